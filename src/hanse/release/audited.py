"""The result of an audit on a model card: what was attacked, and whether its claims hold."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias

from hanse.core import InvalidInput

__all__ = ["describe_audit", "read_audit_result"]

LEFT_OUT = ("adversary", "baselines", "imports")
"""The settings that an audit leaves out: they say nothing of the federation that is attacked."""

Form: TypeAlias = Mapping[str, tuple[str, tuple[type, ...]]]

RESULT: Form = {
    "settings": ("a table", (dict,)),
    "data_sha256": ("a text", (str,)),
    "claims": ("a list", (list,)),
    "sections": ("a table", (dict,)),
}
CLAIM: Form = {
    "name": ("a text", (str,)),
    "limit": ("a number", (int, float)),
    "measured": ("a number or null", (int, float, NoneType)),
    "holds": ("true or false", (bool,)),
}
SECTION: Form = {
    "title": ("a text", (str,)),
    "missing": ("a text or null", (str, NoneType)),
    "found": ("a table", (dict,)),
}
"""The fields of a result that a card reads: what each must be, in words and as types."""


def read_audit_result(path: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Reads what `hanse audit --json` printed, if it is of the settings of a run.

    Args:
      settings: of the run's experiment.

    Raises: InvalidInput: if there is none, or the audit is of other settings.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        _check_result(result)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} is not the result of an audit ({error}); write one: hanse audit FILE.toml --json"
        ) from error
    audited = result["settings"]
    said = json.loads(json.dumps(dict(settings)))
    other = [name for name in sorted({*audited, *said} - {*LEFT_OUT}) if audited.get(name) != said.get(name)]
    if other:
        raise InvalidInput(
            f"{path} is the audit of another federation: {', '.join(other)} differ from the settings of the "
            "run; audit the settings that the run has"
        )
    if "structure" in result["sections"]:
        raise InvalidInput(
            f"{path} is the audit of a recording, which a card can't tell of; write one with: hanse audit "
            "FILE.toml --json"
        )
    return dict(result)


def _check_result(result: Any) -> None:
    """Checks that a result holds what a card reads of it. Raises: ValueError."""
    _check_form(result, RESULT, "the whole")
    if not result["sections"]:
        raise ValueError("it has no sections")
    for place, claim in enumerate(result["claims"], start=1):
        _check_form(claim, CLAIM, f"claim {place}")
    for name, section in result["sections"].items():
        _check_form(section, SECTION, f"section {name!r}")
        number: Form = dict.fromkeys(section["found"], ("a number", (int, float)))
        _check_form(section["found"], number, f"found in section {name!r}")


def _check_form(held: Any, form: Form, where: str) -> None:
    if not isinstance(held, dict):
        raise ValueError(f"{where} is no table")
    for name, (words, types) in form.items():
        if name not in held:
            raise ValueError(f"{where} lacks {name!r}")
        if not isinstance(held[name], types) or (isinstance(held[name], bool) and bool not in types):
            raise ValueError(f"{name!r} of {where} is not {words}")


def describe_audit(result: Mapping[str, Any], data_sha256: str) -> Iterator[str]:
    """Yields the lines of a card about an audit.

    Args:
      data_sha256: the fingerprint of the data of the run.
    """
    yield from ("## Audit", "")
    is_same = result.get("data_sha256") == data_sha256
    what = "this federation" if is_same else "a federation of these settings on other data"
    yield (f"`hanse audit` attacked {what} in simulation. What it did not find, a better attack may.")
    yield ""
    for claim in result["claims"]:
        measured = claim["measured"]
        found = "not measured" if measured is None else f"{measured:.4g}"
        word = "holds" if claim["holds"] else "does not hold"
        yield f"- **Claim:** `{claim['name']} = {claim['limit']:g}`: {found}, it {word}"
    for section in result["sections"].values():
        if section["missing"] is not None:
            yield f"- {section['title']} Not measured: {section['missing']}"
        elif section["found"]:
            numbers = ", ".join(
                f"{name.replace('_', ' ')} {found:.4g}" for name, found in section["found"].items()
            )
            yield f"- {section['title']} {numbers}"
    yield ""
