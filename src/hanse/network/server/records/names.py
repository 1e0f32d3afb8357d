"""The names of parties, and those of members in what was written about them."""

import json
import re

from hanse.core import InvalidInput

__all__ = ["check_party", "find_name"]

_PARTY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")

_GENERAL = re.compile(r"client \d+|(the )?server|operator|observer|\d*|[0-9a-f]{8,}")
"""Names that tell nobody apart: a member may call itself so, and events of others hold these words, too."""


def check_party(name: str) -> None:
    """Checks the name of a party that a member plays. Raises: InvalidInput."""
    if not _PARTY.fullmatch(name) or name == "server":
        raise InvalidInput(
            f"{name[:50]!r} can't be the name of a party that a member plays; write a letter, then letters, "
            'digits, hyphens or underscores, such as "key_holder" ("server" is the server itself)'
        )


def find_name(name: str) -> re.Pattern[str] | None:
    """Returns what finds a member's name in a text, also as JSON writes it; None: others may be called so.

    >>> find_name("St. Anne").sub("c2", "St. Anne and St. Annes")
    'c2 and St. Annes'
    """
    if _GENERAL.fullmatch(name):
        return None
    forms = {name, *(json.dumps(name, ensure_ascii=plain)[1:-1] for plain in (True, False))}
    return re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(form) for form in sorted(forms))})(?!\w)")
