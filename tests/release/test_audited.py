"""The result of an audit on a card: a damaged one is named, with what is wrong in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hanse.core import InvalidInput
from hanse.release.audited import describe_audit, read_audit_result

SETTINGS = {"rounds": 3, "algorithm": {"name": "fed_avg"}}


def whole() -> Any:
    section: Any = {
        "title": "Who sees what?",
        "found": {"gain_db": 1.5},
        "missing": None,
        "heads": [],
        "rows": [],
    }
    claim = {"name": "max_gain_db", "limit": 3, "measured": None, "holds": False}
    return {
        "holds": False, "claims": [claim], "sections": {"views": section}, "data_sha256": "ab",
        "settings": SETTINGS,
    }  # fmt: skip


def test_a_whole_result_is_described(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(whole()))
    lines = [*describe_audit(read_audit_result(path, SETTINGS), "ab")]
    assert "- **Claim:** `max_gain_db = 3`: not measured, it does not hold" in lines
    assert "- Who sees what? gain db 1.5" in lines


@pytest.mark.parametrize(
    ("place", "held", "says"),
    [
        ([], 3, "the whole is no table"),
        (["sections"], None, "the whole lacks 'sections'"),
        (["sections"], {}, "it has no sections"),
        (["settings"], [], "'settings' of the whole is not a table"),
        (["claims", 0], "x", "claim 1 is no table"),
        (["claims", 0, "holds"], None, "claim 1 lacks 'holds'"),
        (["claims", 0, "limit"], True, "'limit' of claim 1 is not a number"),
        (["claims", 0, "measured"], "0.5", "'measured' of claim 1 is not a number or null"),
        (["sections", "views", "title"], None, "section 'views' lacks 'title'"),
        (["sections", "views", "found"], [], "'found' of section 'views' is not a table"),
        (["sections", "views", "found", "gain_db"], "1", "'gain_db' of found in section 'views' is not"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named(tmp_path: Path, place: list[Any], held: Any, says: str) -> None:
    result: Any = whole()
    at = result
    for step in place[:-1]:
        at = at[step]
    if not place:
        result = held
    elif held is None:
        del at[place[-1]]
    else:
        at[place[-1]] = held
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(result))
    with pytest.raises(InvalidInput) as refused:
        read_audit_result(path, SETTINGS)
    assert f"{path} is not the result of an audit ({says}" in str(refused.value)


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(whole())[:100])
    with pytest.raises(InvalidInput, match="not the result of an audit"):
        read_audit_result(path, SETTINGS)
