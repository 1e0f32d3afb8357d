"""The result of an audit on a model card: what was attacked, and whether its claims hold."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput

__all__ = ["describe_audit", "read_audit_result"]

LEFT_OUT = ("adversary", "baselines", "imports")
"""The settings that an audit leaves out: they say nothing of the federation that is attacked."""


def read_audit_result(path: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Reads what `hanse audit --json` printed, if it is of the settings of a run.

    Args:
      settings: of the run's experiment.

    Raises: InvalidInput: if there is none, or the audit is of other settings.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        audited = dict(result["settings"])
        if not result["sections"] or not isinstance(result["claims"], list):
            raise ValueError("it has no sections or claims")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} is not the result of an audit ({error}); write one: hanse audit FILE.toml --json"
        ) from error
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
