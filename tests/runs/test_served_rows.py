"""Parties measure their rows as a simulation would, and a run goes on from any command of that exchange."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg, inverse_time, sgd, uniform
from hanse.config import Experiment
from hanse.core import Declined, Memory, Part, Stop, fixed_mean, player
from hanse.core.exchange import Fork, InMemory, Led, Message, Payload, Progress, Task, digest, drive
from hanse.data import from_clients
from hanse.evaluation import Evaluation, measure_row, on_site
from hanse.privacy import gaussian
from hanse.privacy.secure_sums import secure_mean
from hanse.runs import Parties
from hanse.runs.preparation import Prepared, ServedRows, prepare_run
from hanse.simulation import InProcess
from hanse.transforms import clip

HIDDEN = fed_avg(lr=0.1, fraction=1.0, uplink=(clip(1.0),))
NOISED = fed_avg(
    lr=0.1, fraction=1.0, weighting=uniform(), uplink=(clip(1.0), gaussian(1.0)), into=fixed_mean(3.0)
)
AT_HOME = measure_row.at_home


class AtHome(InProcess):
    """Computes rows as real parties do, whose training examples lie beside their test examples."""

    def __init__(self, ready: Prepared, keeps: Callable[[int], bool]) -> None:
        super().__init__(ready.learner, ready.population, ready.keys)
        self.people, self.keeps = ready.population, keeps
        self.told: dict[int, dict[str, Any]] = {}
        self.sent: list[Mapping[str, Part | None]] = []

    def compute_ticket(
        self, before: Memory, task: Task, payload: Payload, timer: Any = None
    ) -> tuple[Message, Fork]:
        if not isinstance(payload.work, measure_row):
            return super().compute_ticket(before, task, payload, timer)
        number = player(task.party)
        assert number is not None
        own = self.people.client(number)
        message, fork = super().compute_ticket({AT_HOME: (number, len(own), own)}, task, payload, timer)
        self.told[number] = json.loads(fork.changed[AT_HOME])
        if self.keeps(number):
            raise Declined("it is kept at home")
        self.sent.append(message.parts)
        return message, Fork(task.after, {}, ())


def perform(
    rows: ServedRows, backend: AtHome, store: InMemory | None = None, most: int = 10**6
) -> Progress[Any] | None:
    """Leads a run to its end, or only to so many commands; None: it has not ended."""
    kept = InMemory() if store is None else store
    saved = kept.checkpoint()
    rows.recall(list(kept.records))
    program = rows.program(saved.state if saved else rows.ready.begin())
    led = Led(program, rows.ready.runtime(backend), kept)
    while not led.done and most:
        led.step()
        most -= 1
    return led.result if led.done else None


def experiment(num_clients: int = 3, **settings: Any) -> Experiment:
    """Make parties of different sizes whose labels follow rules that differ a little."""
    draws, clients, tests = np.random.default_rng(0), [], []
    for number in range(num_clients):
        x = draws.normal(size=(60 + number, 3)).astype(np.float32)
        y = (x[:, 0] + 0.3 * number * x[:, 1] + draws.normal(size=len(x)) > 0).astype(int)
        clients.append(hanse.Examples(x[20:], y[20:]))
        tests.append(hanse.Examples(x[: 20 - number], y[: 20 - number]))
    names = [f"house {number}" for number in range(num_clients)]
    usual: dict[str, Any] = {
        "data": from_clients(clients, client_tests=tests, names=names),
        "partition": None,
        "model": "logistic",
        "algorithm": fed_avg(lr=inverse_time(0.3, 0.1), fraction=1.0, epochs=2, batch_size=7),
        "rounds": 3,
        "baselines": (on_site(),),
    }
    return Experiment(**{**usual, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "stop": Stop("loss"),
            "algorithm": fed_avg(client=sgd(0.1, momentum=0.9, num_steps=9), fraction=1.0),
        },
        {"baselines": (on_site(lr=0.05, batch_size=3),), "evaluation": Evaluation(metrics=("auroc", "f1"))},
        {"baselines": (), "evaluation": Evaluation(min_count=19)},
    ],
    ids=["accuracy", "loss", "named", "masked"],
)
def test_rows_are_those_of_the_simulation(settings: dict[str, Any]) -> None:
    asked = experiment(**settings)
    alone, rows = hanse.perform(asked), ServedRows(prepare_run(asked))
    backend = AtHome(rows.ready, keeps=lambda number: False)
    progress = perform(rows, backend)
    assert progress is not None
    assert digest(progress.state.params) == alone.params_sha256
    assert rows.list_rows() == alone.parties
    told = [backend.told[number]["row"] for number in range(3)]
    assert [{**row, "party": f"house {row['number']}"} for row in told] == list(alone.parties)
    assert any(row["masked"] for row in alone.parties) == ("min_count=19" in repr(asked.evaluation))
    assert rows.describe() == {"asked": 3, "shared": 3, "not_shared": [], "why": None}


def test_masked_numbers_do_not_leave() -> None:
    asked = experiment(11, evaluation=Evaluation(metrics=("brier",), min_count=15))
    rows = ServedRows(prepare_run(asked))
    backend = AtHome(rows.ready, keeps=lambda number: False)
    perform(rows, backend)
    sent = [part.values for parts in backend.sent if (part := parts["row"]) is not None]
    for number, values in enumerate(sent):
        is_small = 20 - number < 15
        assert values["counts"].tolist() == [40 + number, -1 if is_small else 20 - number]
        others = np.concatenate([held.ravel() for name, held in values.items() if name != "counts"])
        assert bool(others.any()) != is_small


def test_who_keeps_a_row_is_counted_and_its_verdict_is_not_told() -> None:
    rows = ServedRows(prepare_run(experiment()))
    perform(rows, AtHome(rows.ready, keeps=lambda number: number == 1))
    assert [row["party"] for row in rows.list_rows()] == ["house 0", "house 2"]
    assert rows.write_sentence() == "2 of 3 parties shared their row"
    assert rows.describe() == {"asked": 3, "shared": 2, "not_shared": ["house 1"], "why": None}
    nobody = ServedRows(prepare_run(experiment()))
    assert perform(nobody, AtHome(nobody.ready, keeps=lambda number: True)) is not None
    assert nobody.list_rows() == ()
    assert nobody.write_sentence() == "none of 3 parties shared their row"


def test_intervals_are_those_of_the_simulation_where_enough_share() -> None:
    asked = experiment(11, rounds=1, evaluation=Evaluation(metrics=("auroc", "brier"), resamples=40))
    alone = hanse.perform(asked).assessment
    assert alone is not None
    rows = ServedRows(prepare_run(asked))
    perform(rows, AtHome(rows.ready, keeps=lambda number: False))
    found = rows.assess()
    assert found is not None
    for name, one in found["metrics"].items():
        assert (one["low"], one["high"]) == (alone["metrics"][name]["low"], alone["metrics"][name]["high"])
    assert found["intervals"]["parties"] == 11
    few = ServedRows(prepare_run(asked))
    perform(few, AtHome(few.ready, keeps=lambda number: number > 8))
    told = few.assess()
    assert told is not None
    assert told["no_intervals"] == "intervals need the rows of 10 parties, and 9 shared theirs"
    assert "low" not in told["metrics"]["auroc"]


def test_a_run_that_is_cut_anywhere_ends_with_the_same_rows_and_assessment() -> None:
    asked = experiment(rounds=1, evaluation=Evaluation(metrics=("auroc",)))
    whole, store = ServedRows(prepare_run(asked)), InMemory()
    done = perform(whole, AtHome(whole.ready, keeps=lambda number: number == 1), store)
    assert done is not None
    assert len(whole.list_rows()) == 2
    most, notes = 0, dict[str, Any]()
    while True:
        first, kept = ServedRows(prepare_run(asked)), InMemory()
        cut = perform(first, AtHome(first.ready, keeps=lambda number: number == 1), kept, most)
        if cut is not None:
            break
        notes = json.loads(json.dumps(first.notes))  # as a server keeps them
        again = ServedRows(prepare_run(asked))
        saved = kept.checkpoint()
        again.recall(list(kept.records))
        again.notes.update(notes)
        program = again.program(saved.state if saved else again.ready.begin())
        ended = drive(program, again.ready.runtime(AtHome(again.ready, lambda n: n == 1)), kept)
        assert digest(ended.state.params) == digest(done.state.params)
        assert [record.metrics for record in kept.records] == [record.metrics for record in store.records]
        assert again.list_rows() == whole.list_rows(), most
        assert again.assess() == whole.assess(), most
        most += 1
    assert most > 8


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"secure": True, "algorithm": HIDDEN}, "the run hides single parties in sums"),
        (
            {"algorithm": fed_avg(lr=0.1, fraction=1.0, uplink=(clip(1.0),), into=secure_mean())},
            "hides single",
        ),
        ({"algorithm": NOISED}, "the run adds noise to what parties send"),
    ],
    ids=["secure", "hiding", "noised"],
)
def test_no_row_leaves_where_a_run_protects_single_parties(settings: dict[str, Any], why: str) -> None:
    rows = ServedRows(prepare_run(experiment(**settings)))
    backend = AtHome(rows.ready, keeps=lambda number: False)
    perform(rows, backend)
    assert backend.sent == [{}, {}, {}]
    assert backend.told[0]["row"]["on_site"]["accuracy"] > 0.3  # but each owner has it
    assert rows.list_rows() == ()
    told = rows.describe()
    assert told is not None
    assert why in told["why"]
    assert rows.write_sentence() == ""


def test_a_served_run_says_which_baselines_nobody_trains(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "app.toml"
    file.write_text('baselines = ["centralised", "on_site"]\npartition = "iid(3)"\n')
    Parties().job(file, (), warn=said.append)
    assert len(said) == 2
    assert said[0].startswith("centralised is not trained: no machine has the rows of all clients")
    assert said[1].endswith("which it has not; write client_test_fraction = 0.2")
    said.clear()
    Parties().job(file, ("client_test_fraction=0.2",), warn=said.append)
    assert len(said) == 1
