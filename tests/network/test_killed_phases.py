"""kill -9 of the server and of a client between two phases of a secure sum: the bits stay the same."""

from pathlib import Path
from typing import Any

from deaths import PARTIES, perform
from forked import PIPE, python
from test_kill import free_port


def start(*words: Any) -> Any:
    return python(*words, stdout=PIPE)


def test_processes_killed_between_phases_lead_to_the_same_bits(tmp_path: Path) -> None:
    """The server dies once in each round, and so does a client; the whole sweep is a benchmark."""
    deaths = {
        "server": [(1, "mask_parts", "before"), (2, "reveal_shares", "after")],
        "client-0": [(1, "advertise_keys", "kept"), (2, "mask_parts", "written")],
    }
    outcome, undisturbed = perform(tmp_path, free_port(), deaths, 2, start, 120.0)
    assert (outcome.status, outcome.params_sha256) == ("completed", undisturbed)
    assert outcome.starts == {"server": 3, "client-0": 3, "client-1": 1, "client-2": 1}
    assert {n: said for n, said in outcome.rounds.items() if n} == dict.fromkeys((1, 2), (PARTIES, ""))
