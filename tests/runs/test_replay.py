"""`hanse replay` does a client's work of a recorded round again, to the same bytes."""

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_avg, fed_buff, giant, scaffold
from hanse.cli import app
from hanse.core import InvalidInput, Key, Memory, Program, RoundAbandoned, Stalled, value
from hanse.core.exchange import Commit, Fork, Message, Payload, Record, Task, pack
from hanse.data import iid
from hanse.learners import softmax
from hanse.network.protocol import hash_chunks
from hanse.runs.replay import Case, Replayed, in_simulation, replay_ticket
from hanse.simulation import InProcess, Simulation, sequential
from hanse.store import Runs
from hanse.transforms import quantize, random_mask

WAY = sequential()
"""One by one, so that a message has the same bits."""

Sent = dict[tuple[int, Any], list[str]]

ALGORITHMS = {
    "fed_avg": fed_avg(lr=0.5, fraction=0.5, batch_size=20),
    "scaffold": scaffold(lr=0.3, fraction=0.7, batch_size=20),
    "masked_quantized": fed_avg(lr=0.5, fraction=0.5, uplink=(random_mask(0.5), quantize(4))),
    "three_exchanges": giant(),
    "buffered": fed_buff(lr=0.3, concurrency=4, buffer_size=2),
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Return the digests of all messages of a run, by round and party."""
    found: Sent = {}
    now = [0]
    compute, perform = InProcess.compute_ticket, Simulation.perform

    def computing(
        self: InProcess, before: Memory, task: Task, payload: Payload, timer: Any = None
    ) -> tuple[Message, Fork]:
        message, fork = compute(self, before, task, payload, timer)
        found.setdefault((now[0], task.party), []).append(hash_chunks([pack(message)]))
        return message, fork

    def performing(self: Simulation, command: Any) -> Any:
        if isinstance(command, Commit):
            now[0] = command.round + (not command.again)
        return perform(self, command)

    monkeypatch.setattr(InProcess, "compute_ticket", computing)
    monkeypatch.setattr(Simulation, "perform", performing)
    return found


def run(store: Path, algorithm: Any, rounds: int = 4, until: int | None = None) -> str:
    def watch(record: Record) -> None:
        if record.round == until:
            raise KeyboardInterrupt

    options: Any = {
        "partition": iid(4),
        "model": softmax(l2=0.01),
        "store": store,
        "watch": watch,
        "execution": WAY,
    }
    if until is None:
        return str(hanse.run(algorithm=algorithm, rounds=rounds, **options).run)
    with pytest.raises(hanse.Interrupted) as caught:
        hanse.run(algorithm=algorithm, rounds=rounds, **options)
    return str(caught.value.result.run)


@pytest.mark.parametrize("until", [None, 2], ids=["completed", "interrupted"])
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS.keys())
def test_the_same_bytes_again(algorithm: Any, until: int | None, sent: Sent, tmp_path: Path) -> None:
    name = run(tmp_path / "runs.db", algorithm, until=until)
    runs, seen = Runs(tmp_path / "runs.db"), {key: list(sums) for key, sums in sent.items()}
    round = 3 if until is None else 2
    for party in {party for r, party in seen if r == round} - {"server"}:
        done, remark = in_simulation(runs, name, round, party, replay_ticket)
        assert [one.sha256 for one in done] == seen[round, party]
        assert remark.startswith("the round came out as it is recorded")


@value
class fails_often(fed_avg):
    """Most of its rounds need several attempts."""

    def round(self, state: Any, key: Key) -> Program[Any]:
        state = yield from fed_avg.round(self, state, key)
        if key.fold_in("fails").rng().random() < 0.8:
            raise RoundAbandoned("for the test", waits=True)
        return state


def test_of_a_round_that_was_attempted_again_the_last_attempt_is_done(sent: Sent, tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    algorithm = fails_often(lr=0.5, fraction=1.0, batch_size=None)
    with pytest.raises(Stalled) as stalled:
        run(store, algorithm)
    name = stalled.value.result.run  # type: ignore[attr-defined]
    while (last := Runs(store).records(name)[-1]).round < 4 or last.abandoned:
        with suppress(Stalled):
            hanse.resume(name, store=store)
    attempts = Counter(record.round for record in Runs(store).records(name))
    assert attempts == {0: 1, 1: 2, 2: 2, 3: 8, 4: 3}, "or this seed shows nothing"
    seen = {key: list(sums) for key, sums in sent.items()}
    for round in (2, 4):
        assert len(seen[round, 2]) == attempts[round]
        (done,), remark = in_simulation(Runs(store), name, round, 2, replay_ticket)
        assert done.sha256 == seen[round, 2][-1]
        assert remark.startswith("the round came out as it is recorded")


def test_a_round_that_failed_begins_from_the_last_checkpoint(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs.db"
    name = run(store, ALGORITHMS["scaffold"], until=2)
    full = run(tmp_path / "other.db", ALGORITHMS["scaffold"])
    seen = {key: list(sums) for key, sums in sent.items()}
    sent.clear()
    (party,) = [p for r, p in seen if r == 3 and p != "server"][:1]
    (done,), remark = in_simulation(Runs(store), name, 3, party, replay_ticket)
    assert done.sha256 == seen[3, party][-1]
    assert done.case.memory
    assert remark == "the round was not recorded: it was interrupted, or failed"
    assert len({r for r, _ in sent}) == 1  # earlier rounds were not computed again
    assert Runs(store).info(name).status == "interrupted"
    assert full != name


def test_other_data_leave_the_round_as_it_was(tmp_path: Path) -> None:
    name = run(tmp_path / "runs.db", ALGORITHMS["three_exchanges"])
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(7, 64)).astype("float32"), y=np.arange(7))
    runs, file = Runs(tmp_path / "runs.db"), str(tmp_path / "own.npz")
    own, remark = in_simulation(runs, name, 2, 1, replay_ticket, file=file)
    theirs, _ = in_simulation(runs, name, 2, 1, replay_ticket)
    assert [len(one.case.data) for one in own] == [7] * len(theirs)
    assert remark.startswith("the round came out as it is recorded")
    assert own[0].sha256 != theirs[0].sha256
    assert own[1].case.payload.shared.keys() == theirs[1].case.payload.shared.keys()


@pytest.mark.parametrize(
    ("round", "party", "why"),
    [
        (9, 0, "the run did not reach that round"),
        (0, 0, "write at least 1"),
        (1, 4, "there is no client 4; write a number from 0 to 3"),
        (1, "test/1", "computed nothing in round 1 .* these did: "),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, round: int, party: Any, why: str) -> None:
    name = run(tmp_path / "runs.db", ALGORITHMS["fed_avg"], rounds=2)
    with pytest.raises(InvalidInput, match=why):
        in_simulation(Runs(tmp_path / "runs.db"), name, round, party, replay_ticket)


# -- the command -------------------------------------------------------------------------------


def replay(tmp_path: Path, *words: str, given: str = "") -> Any:
    command = ["replay", *words, "--store", str(tmp_path / "runs.db")]
    return CliRunner().invoke(app, command, prog_name="hanse", input=given)


def test_the_command_shows_what_is_emitted(tmp_path: Path) -> None:
    name = run(tmp_path / "runs.db", ALGORITHMS["three_exchanges"], rounds=2)
    shown = replay(tmp_path, name[:5], "--round", "2", "--client", "3")
    assert shown.exit_code == 0, shown.output
    for word in ("ticket ", "gradient", "weights", "float32 (64, 10)", "360", "SHA-256 "):
        assert word in shown.stdout
    assert "Note: the round came out as it is recorded" in shown.stderr
    said = json.loads(replay(tmp_path, name, "--round", "2", "--client", "3", "--json").stdout)
    assert said["replayed"][0]["work"].startswith("gradient(")
    assert said["replayed"][0]["parts"]["gradient"]["values"]["weights"]["norm"] > 0
    assert "write --client C" in replay(tmp_path, name, "--round", "2").stderr


def test_the_debugger_stops_where_the_work_begins(tmp_path: Path) -> None:
    name = run(tmp_path / "runs.db", ALGORITHMS["fed_avg"], rounds=1)
    words = [name, "--round", "1", "--client", str(first(tmp_path, name)), "--pdb"]
    shown = replay(tmp_path, *words, given="p len(data)\nc\n")
    assert shown.exit_code == 0, shown.output
    assert "works.py" in shown.stdout
    assert "(Pdb) 360" in shown.stdout or "(Pdb) 359" in shown.stdout
    assert replay(tmp_path, *words, given="q\n").exit_code == 0


def test_an_exception_is_shown_and_stopped_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hanse.learners import Linear

    name = run(tmp_path / "runs.db", ALGORITHMS["fed_avg"], rounds=1)
    client = str(first(tmp_path, name))

    def broken(*given: Any, **more: Any) -> Any:
        mark = 17
        raise InvalidInput(f"no such luck {mark}")

    monkeypatch.setattr(Linear, "local_sgd", broken)
    shown = replay(tmp_path, name, "--round", "1", "--client", client)
    assert shown.exit_code == 1
    assert "Traceback" in shown.stderr
    assert "no such luck 17" in shown.stderr
    shown = replay(tmp_path, name, "--round", "1", "--client", client, "--pdb", given="c\np mark + 1\nq\n")
    assert shown.exit_code == 1
    assert "(Pdb) 18" in shown.stdout


def first(tmp_path: Path, name: str) -> int:
    """Return a client of round 1."""
    for client in range(4):
        try:
            in_simulation(Runs(tmp_path / "runs.db"), name, 1, client, replay_ticket)
        except InvalidInput:
            continue
        return client
    raise AssertionError("nobody")


def test_a_case_is_all_that_is_needed(tmp_path: Path) -> None:
    name = run(tmp_path / "runs.db", ALGORITHMS["fed_avg"], rounds=1)
    seen: list[Case] = []

    def keep(case: Case) -> Replayed:
        seen.append(case)
        return replay_ticket(case)

    (done,), _ = in_simulation(Runs(tmp_path / "runs.db"), name, 1, first(tmp_path, name), keep)
    assert replay_ticket(seen[0]).message == done.message
