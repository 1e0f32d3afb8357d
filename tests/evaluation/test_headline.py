"""Each sentence of a headline appears where it is true, and only there."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg, fed_sgd
from hanse.core import Examples
from hanse.core.exchange import Record
from hanse.data import arrays, from_clients, iid
from hanse.evaluation import Guessing, centralised, on_site, write_headline
from hanse.learners import least_squares
from hanse.privacy import central
from hanse.runs import Parties
from hanse.simulation import unstable

RNG = np.random.default_rng(5)


def judged(*gains: float | None, metric: str = "accuracy") -> list[dict[str, Any]]:
    """Make rows with these gains, which are clear if they are larger than .1."""
    verdicts = [
        None if gain is None else "helped" if gain > 0.1 else "hurt" if gain < -0.1 else "no clear difference"
        for gain in gains
    ]
    return [
        {"party": f"hospital {'abcdefgh'[i]}", "metric": metric, "gain": gain, "verdict": verdict}
        for i, (gain, verdict) in enumerate(zip(gains, verdicts, strict=True))
    ]


@pytest.mark.parametrize(("gains", "said"), [
    ((0.2, 0.3, -0.131),
     "federation helped 2 of 3 parties; hospital c lost 13.1 points against training alone"),
    ((0.2, 0.3, 0.4), "federation helped 3 of 3 parties"),
    ((0.2, 0.0, None),
     "federation helped 1 of 2 parties; 1 shows no clear difference; 1 could not be compared"),
    ((-0.2, 0.0, 0.0),
     "federation helped none of 3 parties; hospital a lost 20.0 points against training alone; 2 show no "
     "clear difference"),
    ((0.0, 0.05), "federation made no clear difference to any of 2 parties"),
    ((0.0,), "federation made no clear difference to the only party"),
    ((-0.2, -0.5, -0.3, -0.4),
     "federation helped none of 4 parties; 4 lost against training alone, hospital b most: 50.0 points"),
])  # fmt: skip
def test_who_gained_and_who_lost(gains: tuple[float | None, ...], said: str) -> None:
    assert write_headline(rows=judged(*gains), num_tests=500) == (said,)


@pytest.mark.parametrize(("gains", "said"), [
    ((0.0,), "made no clear difference to the only party that shared"),
    ((0.0, 0.05), "made no clear difference to any of 2 parties that shared"),
    ((0.2, 0.3), "helped 2 of 2 parties that shared"),
])  # fmt: skip
def test_parties_that_keep_their_rows_are_not_spoken_of(gains: tuple[float, ...], said: str) -> None:
    assert write_headline(rows=judged(*gains), num_parties=3) == (f"federation {said}",)
    assert "shared" not in write_headline(rows=judged(*gains), num_parties=len(gains))[0]


def test_a_loss_is_told_in_its_own_unit() -> None:
    (said,) = write_headline(rows=judged(-0.25, metric="loss"))
    assert said.endswith("hospital a lost 0.2500 of loss against training alone")


def test_nothing_is_said_of_parties_that_were_not_compared() -> None:
    assert write_headline(rows=judged(None, None)) == ()


@pytest.mark.parametrize(("is_better", "is_clear", "said"), [
    (False, False, "not better than always guessing the majority class"),
    (True, False, "not clearly better than always guessing the majority class"),
    (True, True, ""),
])  # fmt: skip
def test_a_guess(is_better: bool, is_clear: bool, said: str) -> None:
    guess = Guessing("the majority class", "accuracy", 0.5, 0.6, is_better, is_clear)
    figures = "accuracy 0.5000 against 0.6000"
    assert write_headline(guess=guess) == ((f"{said}: {figures}",) if said else ())


@pytest.mark.parametrize(("num_tests", "said"), [
    (1, "the test set has 1 example: the figures are not reliable"),
    (99, "the test set has 99 examples: the figures are not reliable"),
    (100, ""),
    (0, "there are no test examples: the figures are of training examples, and flatter the model"),
    (None, ""),
])  # fmt: skip
def test_few_test_examples(num_tests: int | None, said: str) -> None:
    assert write_headline(num_tests=num_tests) == ((said,) if said else ())


# -- whole runs --------------------------------------------------------------------------------


def table(n: int, *, signal: float = 3.0, flip: bool = False) -> Examples:
    x = RNG.normal(size=(n, 2))
    y = (signal * x[:, 0] + RNG.normal(size=n) > 0).astype(int)
    return Examples(x, 1 - y if flip else y)


def run(people: Any, **more: Any) -> hanse.Result:
    settings: dict[str, Any] = {"algorithm": fed_avg(lr=0.3, fraction=1.0, epochs=2), "rounds": 5}
    return hanse.run(data=people, **settings | more)


def three(last_is_unlike: bool) -> Any:
    sizes = (8, 8, 80) if last_is_unlike else (80, 80, 80)
    clients = [table(150), table(150), table(sizes[2], flip=last_is_unlike)]
    tests = [table(60), table(60), table(60, flip=last_is_unlike)]
    return from_clients(clients, client_tests=tests, names=["a", "b", "hospital c"])


def test_a_run_tells_who_lost() -> None:
    baselines = (centralised(), on_site())
    said = run(three(True), baselines=baselines).headline[0]
    assert "hospital c lost " in said
    assert " points against training alone" in said
    alike = run(three(False), baselines=baselines).headline
    assert "lost" not in alike[0]
    assert len(alike) == 1  # nothing else is wrong with it


def test_a_run_tells_that_it_is_no_better_than_a_guess() -> None:
    x = RNG.normal(size=(400, 2))
    noise = arrays(x, (RNG.random(400) < 0.3).astype(int), test_fraction=0.4)
    kwargs = {"partition": iid(3)}
    assert any("better than always guessing the majority class: accuracy" in line
               for line in run(noise, **kwargs).headline)  # fmt: skip
    clear = table(400)
    assert run(arrays(clear.x, clear.y, test_fraction=0.4), **kwargs).headline == ()


def test_numbers_are_compared_with_their_mean() -> None:
    x, noise = RNG.normal(size=(400, 2)), RNG.normal(size=400)
    kwargs: dict[str, Any] = {"model": least_squares(), "partition": iid(3), "algorithm": fed_sgd(lr=0.3)}
    (said,) = run(arrays(x, noise, test_fraction=0.4), **kwargs).headline
    assert "better than always guessing the mean: squared_error" in said
    assert run(arrays(x, x[:, 0] + 0.1 * noise, test_fraction=0.4), **kwargs).headline == ()


def test_a_run_tells_that_there_are_few_or_no_test_examples() -> None:
    own = table(60)
    few = run(arrays(own.x, own.y, test_fraction=0.2), partition=iid(3))
    assert "the test set has 12 examples: the figures are not reliable" in few.headline
    none = run(from_clients([own]))
    assert none.headline == (
        "there are no test examples: the figures are of training examples, and flatter the model",
    )


PEOPLE = arrays(table(500).x, table(500).y, test_fraction=0.4)


def never(result: hanse.Result) -> list[str]:
    return [line for line in result.headline if "never counted" in line]


def test_a_run_tells_who_was_never_counted() -> None:
    few = fed_avg(lr=0.3, fraction=0.6)
    assert never(run(PEOPLE, partition=iid(5), rounds=1, algorithm=few)) == [
        "2 of 5 parties were never counted"
    ]
    assert never(run(PEOPLE, partition=iid(5), rounds=1)) == []
    dropped = run(PEOPLE, partition=iid(5), rounds=1, devices=unstable(0.6), seed=4)
    (last,) = [record for record in dropped.records if record.round == 1]
    missing = 5 - last.usage.counted if last.abandoned is None else 5
    assert never(dropped)[0].startswith(f"{missing} of 5 parties")


def test_measuring_is_not_being_counted() -> None:
    clients = [table(40) for _ in range(5)]
    few = fed_avg(lr=0.3, fraction=0.4)
    assert never(run(from_clients(clients), rounds=1, algorithm=few)) == ["3 of 5 parties were never counted"]


def test_a_resumed_run_tells_the_same(tmp_path: Path) -> None:
    def stop(record: Record) -> None:
        if record.round == 2:
            signal.raise_signal(signal.SIGINT)

    few = fed_avg(lr=0.3, fraction=0.2)
    kwargs: dict[str, Any] = {
        "partition": iid(10),
        "rounds": 4,
        "algorithm": few,
        "store": tmp_path / "runs.db",
    }
    whole = run(PEOPLE, **kwargs)
    assert never(whole)
    with pytest.raises(hanse.Interrupted) as cut:
        run(PEOPLE, **kwargs, watch=stop)
    resumed = hanse.resume(str(cut.value.result.run), store=tmp_path / "runs.db", data=PEOPLE)
    assert resumed.headline == whole.headline


def test_a_run_that_protects_its_clients_says_nothing_of_them() -> None:
    few = fed_avg(lr=0.3, fraction=0.2)
    private = run(PEOPLE, partition=iid(20), rounds=1, privacy=central(epsilon=5.0), algorithm=few)
    assert private.parties == ()
    assert private.headline == ()


def test_a_served_run_tells_what_its_server_knows(tmp_path: Path) -> None:
    settings = tmp_path / "run.toml"
    settings.write_text(
        'rounds = 1\nalgorithm = {name = "fed_avg"}\npartition = {name = "iid", num_clients = 5}'
    )
    job = Parties().job(settings, ())
    never = [
        SimpleNamespace(who=f"client {number}", asked=4, counted=counted, why="it was late")
        for number, counted in enumerate((0, 0, 1))
    ]

    def conclude(*uncounted: Any) -> list[str]:
        found: list[str] = job.conclude("run", "completed", job.begin(), (), None, uncounted)["headline"]
        return found

    guess, *rest = conclude(*never)
    assert "better than always guessing the majority class of the test set: accuracy 0.1" in guess
    assert rest == ["2 of 5 parties were never counted"]
    assert len(conclude()) == 1
