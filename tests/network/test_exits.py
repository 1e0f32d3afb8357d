"""The exit codes by which a service manager knows whether to start a command again."""

import re
from pathlib import Path

import pytest
from test_commands import command, done, served, typed

from hanse.cli import exits
from hanse.network.protocol import Forbidden, Refused, Unsuited

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text()


def test_the_codes_of_the_guide_are_those_of_the_program() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    _, _, table = TEXT.partition("| exit code | `hanse serve` | `hanse join` |")
    rows = re.findall(r"^\| (\d+) \|(.*)\|(.*)\|$", table.partition("\n\n")[0], re.MULTILINE)
    assert {int(code) for code, *_ in rows} == {0, *codes}
    used = {int(code): (bool(serve.strip()), bool(join.strip())) for code, serve, join in rows}
    only_one = {code: by for code, by in used.items() if by != (True, True)}
    serves, joins = dict.fromkeys((3, 4, 5), (True, False)), dict.fromkeys((6, 7), (False, True))
    assert only_one == serves | joins
    assert (exits.STOPPED, exits.INCOMPLETE, exits.DIVERGED) == (3, 4, 5)
    assert (exits.REVOKED, exits.UNSUITED) == (6, 7)


def test_the_units_start_nothing_again_that_would_end_in_the_same_way() -> None:
    units = [(ROOT / "deploy" / f"hanse-{side}.service").read_text() for side in ("server", "client")]
    assert all("\nRestart=on-failure\n" in unit for unit in units)
    server, client = (re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)[0] for unit in units)
    assert [*map(int, server.split())] == [exits.BAD_INPUT, exits.STOPPED, exits.INCOMPLETE, exits.DIVERGED]
    assert [*map(int, client.split())] == [exits.BAD_INPUT, exits.REVOKED, exits.UNSUITED]


def test_each_end_of_a_run_has_the_code_of_the_guide() -> None:
    _, _, table = TEXT.partition("| status | meaning | `hanse serve` exits with |")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", table.partition("\n\n")[0], re.MULTILINE)
    told = {status: int(code) for status, code in rows if (status, code) != ("interrupted", "1")}
    assert told == exits.ENDS


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unsuited("its data do not suit the run"), exits.UNSUITED),
        (Refused(403, "left", "client 1 has left"), exits.REVOKED),
        (Refused(403, "role", "this is for operators"), exits.FAILED),
        (Forbidden("the plan waits for approval", "approval"), exits.BAD_INPUT),
    ],
)
def test_an_error_has_its_code(error: Exception, code: int) -> None:
    assert exits._exit_code(error) == code


def test_a_refusal_on_the_way_ends_no_membership() -> None:
    refused = Refused(403, "revoked", "client 1 has been revoked")
    assert exits._exit_code(refused) == exits.REVOKED
    refused.is_proven = False
    assert exits._exit_code(refused) == exits.FAILED


def test_a_revoked_client_and_a_stopped_server_are_not_to_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = """
rounds = 5
algorithm = { name = "fed_avg", fraction = 1.0 }
partition = { name = "iid", num_clients = 2 }
"""
    server, (line, _) = served(tmp_path, settings, 2)
    client = command(tmp_path, *(word.replace("FILE", "share") for word in line))
    while "client 0" not in typed("clients"):
        assert client.poll() is None, done(client)
    typed("revoke", "c0")
    done(client, exits.REVOKED)
    typed("join", "--home", "hanse-client-0", "--data", "share", code=exits.REVOKED)
    (run,) = re.findall(r"run (\w{6,})", typed("status"))[:1]
    typed("stop", run)
    done(server, exits.STOPPED)
