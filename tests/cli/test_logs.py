"""Structured logs: the fields of events, and no text of others."""

import json
import logging
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from hanse.cli import app
from hanse.cli.serving import begin_logging
from hanse.core import InvalidInput

SECRET = "Anna Schmidt, diabetes"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("hanse")
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


def log_some() -> None:
    ours = logging.getLogger("hanse.network.server.run_thread")
    ours.info("event=round-ended run=%s round=%d seconds=%.3f abandoned=%s", "abc d=1", 3, 0.12345, False)
    ours.debug("event=polled orders=%d", 3)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("asyncio").exception("Task failed: %s", SECRET)
    logging.getLogger("httpx").info("HTTP Request: %s", "https://fed.example.org/v1/runs/abc")


def test_events_are_json_with_typed_fields_and_no_text_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    begin_logging("json")
    begin_logging("json")  # once is enough
    log_some()
    written = capsys.readouterr().err
    first, second = map(json.loads, written.splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "hanse.network.server.run_thread",
        "event": "round-ended",
        "run": "abc d=1",
        "round": 3,
        "seconds": 0.123,
        "abandoned": False,
    }
    assert second["level"] == "error"
    assert (second["event"], second["text"], second["exception"]) == (
        "message",
        "Task failed: %s",
        "ValueError",
    )
    assert SECRET not in written


def test_events_are_text_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    begin_logging("text")
    log_some()
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith('INFO    event=round-ended run="abc d=1" round=3 seconds=0.123 abandoned=false')
    assert second.endswith('ERROR   event=message text="Task failed: %s" exception=ValueError')


@pytest.mark.parametrize("kind", [None, "", "none"])
def test_nothing_is_logged_if_nobody_asks(kind: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    begin_logging(kind)
    logging.getLogger("hanse.network").info("event=joined member=%s", "c0")
    assert capsys.readouterr().err == ""


def test_a_wrong_word_is_refused_wherever_it_stands() -> None:
    with pytest.raises(InvalidInput, match="write json, text or none"):
        begin_logging("yaml")
    for command in ("serve", "join"):
        said = CliRunner().invoke(app, [command], prog_name="hanse", env={"HANSE_LOG": "yaml"})
        assert said.exit_code == 2
        assert "'yaml' is unknown; write json, text or none" in said.stderr
