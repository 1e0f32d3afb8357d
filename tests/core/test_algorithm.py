import math

import numpy as np
import pytest
from support import Crash, Fragile

from hanse.core.algorithm import Algorithm, ModelState, Progress, Stop, is_higher_better, training
from hanse.core.errors import Diverged, InvalidInput, RoundAbandoned
from hanse.core.exchange.runtime import InMemory, Runtime, drive
from hanse.core.keys import Key
from hanse.core.program import Commit, Committed, Sampled, sample
from hanse.core.values import digest, value

KEY = Key.from_seed(1)


@value
class count_rounds(Algorithm):
    """Each round adds what it draws; rounds in `gives_up` can't close, those in `breaks` leave NaN."""

    gives_up: tuple[int, ...] = ()
    breaks: tuple[int, ...] = ()

    def init(self, params, key):
        return ModelState(params)

    def round(self, state, key):
        number = (yield from sample(key, count=1)).cohort[0]
        if number in self.gives_up:
            raise RoundAbandoned("too few")
        drawn = math.nan if number in self.breaks else key.rng().random()
        return ModelState({"w": state.params["w"] + drawn})


class Counting(Runtime):
    """Answers the n-th Sample with a cohort of n."""

    def __init__(self):
        self.num = 0

    def snapshot(self):
        return self.num

    def restore(self, snapshot, changes=()):
        self.num = snapshot

    def perform(self, command):
        if isinstance(command, Commit):
            return Committed()
        self.num += 1
        return Sampled((self.num,), 99)


class Script:
    """An evaluation that measures what it is told to, and notes when it was asked."""

    def __init__(self, **metrics):
        self.metrics, self.asked = metrics, []

    def __call__(self, params, key):
        self.asked.append(key)
        at = len(self.asked) - 1
        return {name: values[min(at, len(values) - 1)] for name, values in self.metrics.items()}
        yield


def begun(algorithm):
    return Progress(0, algorithm.init({"w": np.zeros(2)}, KEY))


def trained(algorithm=count_rounds(), rounds=5, store=None, progress=None, **options):
    """The progress at the end and the records."""
    store = InMemory() if store is None else store
    saved = store.checkpoint()
    progress = saved.state if saved else progress or begun(algorithm)
    ended = drive(training(algorithm, progress, KEY, rounds=rounds, **options), Counting(), store)
    return ended, store.records


# -- rounds ---------------------------------------------------------------------------------------


def test_every_round_draws_from_a_key_of_its_own_and_ends_in_a_commit():
    ended, records = trained(rounds=3)
    drawn = sum(KEY.fold_in("round", number).rng().random() for number in (1, 2, 3))
    np.testing.assert_allclose(ended.state.params["w"], [drawn, drawn])
    assert [record.round for record in records] == [1, 2, 3]
    assert (ended.round, ended.first, ended.best, ended.stopped) == (3, {}, None, None)


def test_no_rounds_change_nothing():
    ended, records = trained(rounds=0)
    assert (ended.round, records, ended.state.params["w"].tolist()) == (0, [], [0, 0])


def test_a_run_goes_on_from_where_it_stands():
    whole, records = trained(rounds=6, evaluate=Script(loss=[3.0]), evaluate_every=2)
    half, first = trained(rounds=4, evaluate=Script(loss=[3.0]), evaluate_every=2)
    rest, second = trained(rounds=6, progress=half, evaluate=Script(loss=[3.0]), evaluate_every=2)
    assert digest(rest) == digest(whole)
    assert [(r.round, r.metrics) for r in first + second] == [(r.round, r.metrics) for r in records]


class _Even(Script):
    """The same measure for the same parameters, however often it was asked before."""

    def __call__(self, params, key):
        self.asked.append(key)
        return {"loss": 10.0 - float(params["w"][0]), "accuracy": float(key.rng().random())}
        yield


@pytest.mark.parametrize("write", range(1, 12))
def test_a_run_that_was_cut_anywhere_ends_as_an_undisturbed_one(write):
    options = {
        "algorithm": count_rounds(gives_up=(2, 4)),
        "evaluate": _Even(),
        "evaluate_every": 2,
        "stop": Stop(patience=4),
    }
    undisturbed, records = trained(**options)
    store = Fragile(write)
    with pytest.raises(Crash):
        trained(store=store, **options)
    found = Fragile.load(store.dump())
    ended, rest = trained(store=found, **options)
    assert digest(ended) == digest(undisturbed)
    before = [(r.round, r.metrics, r.abandoned) for r in records][: len(records) - len(rest)]
    assert before + [(r.round, r.metrics, r.abandoned) for r in rest] == [
        (r.round, r.metrics, r.abandoned) for r in records
    ]


# -- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "every", "measured"),
    [(5, 1, [0, 1, 2, 3, 4, 5]), (5, 2, [0, 2, 4, 5]), (4, 2, [0, 2, 4]), (3, 10, [0, 3]), (0, 1, [0])],
)
def test_parameters_are_measured_at_the_beginning_now_and_then_and_at_the_end(rounds, every, measured):
    script = Script(loss=[1.0])
    _, records = trained(rounds=rounds, evaluate=script, evaluate_every=every)
    assert script.asked == [KEY.fold_in("evaluate", number) for number in measured]
    assert [record.round for record in records] == list(range(rounds + 1))
    assert [record.round for record in records if record.metrics] == measured


def test_the_first_measure_is_kept():
    ended, _ = trained(evaluate=Script(loss=[5.0, 4.0, 3.0], accuracy=[0.1, 0.2]))
    assert ended.first == {"loss": 5.0, "accuracy": 0.1}


def test_what_was_measured_before_the_first_round_is_not_measured_again():
    script = Script(loss=[5.0, 4.0])
    begin, _ = trained(rounds=0, evaluate=script)
    _, records = trained(rounds=1, progress=begin, evaluate=script)
    assert len(script.asked) == 2
    assert [record.round for record in records] == [1]


def test_an_evaluation_that_too_few_answer_does_not_end_the_run():
    class Unlucky(Script):
        def __call__(self, params, key):
            self.asked.append(key)
            if len(self.asked) == 2:
                raise RoundAbandoned("too few evaluators")
            return {"loss": 1.0}
            yield

    ended, records = trained(rounds=3, evaluate=Unlucky())
    assert ended.round == 3
    assert len(records) == 4


@pytest.mark.parametrize("every", [0, -1])
def test_a_schedule_that_can_not_be_is_refused(every):
    with pytest.raises(InvalidInput):
        trained(evaluate=Script(loss=[1.0]), evaluate_every=every)


# -- stopping -------------------------------------------------------------------------------------


def test_the_best_measure_and_its_round_are_kept():
    ended, _ = trained(evaluate=Script(accuracy=[0.1, 0.5, 0.3, 0.5, 0.7, 0.6]))
    assert (ended.best, ended.num_worse) == ((0.7, 4), 1)
    ended, _ = trained(evaluate=Script(loss=[3.0, 1.0, 2.0, 1.0, 1.5, 4.0]), stop=Stop("loss"))
    assert (ended.best, ended.num_worse) == ((1.0, 1), 4)


@pytest.mark.parametrize(
    ("metric", "target", "values"),
    [
        ("accuracy", 0.5, [0.1, 0.4, 0.5, 0.9]),
        ("loss", 1.0, [9.0, 2.0, 1.0, 0.1]),
        ("loss", 1.0, [9.0, 2.0, 0.5]),
    ],
)
def test_a_run_stops_once_the_target_is_reached(metric, target, values):
    ended, records = trained(evaluate=Script(**{metric: values}), stop=Stop(metric, target))
    assert (ended.round, ended.target_round) == (2, 2)
    assert ended.stopped == f"{metric} reached {target:g}"
    assert len(records) == 3


def test_a_target_that_is_met_at_the_beginning_needs_no_round():
    ended, records = trained(evaluate=Script(accuracy=[0.9]), stop=Stop(target=0.5))
    assert (ended.round, ended.target_round, len(records)) == (0, 0, 1)


def test_a_run_that_has_stopped_stays_so():
    ended, _ = trained(evaluate=Script(accuracy=[0.1, 0.9]), stop=Stop(target=0.5))
    again, records = trained(
        rounds=50, progress=ended, evaluate=Script(accuracy=[0.1]), stop=Stop(target=0.5)
    )
    assert digest(again) == digest(ended)
    assert records == []


@pytest.mark.parametrize(("patience", "stops_in", "best"), [(1, 2, 1), (2, 5, 3), (4, 7, 3)])
def test_patience_counts_measures_in_a_row_that_are_no_better(patience, stops_in, best):
    accuracy = [0.1, 0.2, 0.2, 0.3, 0.1, 0.3, 0.2, 0.1]
    ended, _ = trained(rounds=9, evaluate=Script(accuracy=accuracy), stop=Stop(patience=patience))
    assert (ended.round, ended.best[1]) == (stops_in, best)
    assert ended.stopped == f"no better accuracy in {patience} evaluations"


def test_patience_does_not_count_rounds_that_are_not_measured():
    script = Script(accuracy=[0.5, 0.4, 0.3])
    ended, _ = trained(rounds=20, evaluate=script, evaluate_every=3, stop=Stop(patience=2))
    assert ended.round == 6


def test_what_is_not_measured_is_not_watched():
    ended, _ = trained(evaluate=Script(loss=[1.0]), stop=Stop("recall", target=0.5, patience=1))
    assert (ended.round, ended.best, ended.stopped) == (5, None, None)


def test_patience_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match="patience is 0"):
        Stop(patience=0)


# -- rounds that can't close ----------------------------------------------------------------------


def test_an_abandoned_round_is_recorded_and_changes_nothing():
    ended, records = trained(count_rounds(gives_up=(2, 3)), rounds=4)
    assert [record.abandoned for record in records] == [None, "too few", "too few", None]
    drawn = KEY.fold_in("round", 1).rng().random() + KEY.fold_in("round", 4).rng().random()
    np.testing.assert_allclose(ended.state.params["w"], [drawn, drawn])
    assert ended.round == 4


def test_an_abandoned_round_is_measured_all_the_same():
    script = Script(loss=[3.0])
    _, records = trained(count_rounds(gives_up=(1, 2)), rounds=2, evaluate=script)
    assert [record.metrics for record in records] == [{"loss": 3.0}] * 3


# -- divergence -----------------------------------------------------------------------------------


def _diverged(match, **options):
    store = InMemory()
    with pytest.raises(Diverged, match=match) as raised:
        trained(store=store, **options)
    assert "write a smaller step size" in str(raised.value)
    return store


def test_parameters_that_are_not_finite_end_the_run_before_they_are_saved():
    store = _diverged("in round 3: the parameters are not finite", algorithm=count_rounds(breaks=(3,)))
    assert store.checkpoint().round == 2
    assert np.isfinite(store.checkpoint().state.state.params["w"]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(bad):
    store = _diverged(
        f"in round 2: the loss is {bad:g}, it began at 1", evaluate=Script(loss=[1.0, 1.0, bad])
    )
    assert store.checkpoint().round == 1


def test_a_loss_a_thousand_times_the_first_ends_the_run():
    trained(evaluate=Script(loss=[2.0, 1999.0]))
    _diverged("the loss is 2001, it began at 2", evaluate=Script(loss=[2.0, 2001.0]))


def test_a_loss_that_is_not_finite_at_the_beginning_is_found_out():
    with pytest.raises(Diverged):
        trained(rounds=0, evaluate=Script(loss=[math.nan]))


@pytest.mark.parametrize("losses", [[-5.0, -4.0, 0.5], [0.0, 1e-6]])
def test_a_loss_that_begins_at_or_below_zero_is_no_divergence(losses):
    assert trained(evaluate=Script(loss=losses))[0].round == 5


# -- what algorithms tell of themselves -----------------------------------------------------------


@value
class tell(count_rounds):
    """Counts up, measures the sum by itself, reports its half, and finishes by a draw of its own."""

    measured = ("total",)

    how: str = "finishes"

    def measure(self, state, key):
        return self._measure(state, key)

    def _measure(self, state, key):
        yield from sample(key, count=1)
        return {"total": float(state.params["w"].sum())}

    def metrics(self, state):
        return {"half": float(state.params["w"].sum()) / 2}

    def finish(self, state, key):
        return None if self.how == "ends" else self._finish(state, key)

    def _finish(self, state, key):
        yield from sample(key, count=1)
        if self.how == "fails":
            raise RoundAbandoned("nobody is left")
        return ModelState({"w": state.params["w"] - key.rng().random()})


def totals(records):
    return [record.metrics.get("total") for record in records]


def test_an_algorithm_that_measures_itself_is_not_evaluated_and_reports_each_round():
    script = Script(loss=[1.0])
    ended, records = trained(tell(how="ends"), rounds=5, evaluate=script, evaluate_every=2)
    assert script.asked == []
    assert [total is None for total in totals(records)] == [False, True, False, True, False, False]
    assert all(r.metrics["half"] == r.metrics["total"] / 2 for r in records if r.is_measured)
    assert [record.reported for record in records] == [("half",)] * 6
    assert [record.is_measured for record in records] == [True, False, True, False, True, True]
    assert totals(records)[-1] == ended.state.params["w"].sum()


def test_without_an_evaluation_nothing_is_measured():
    _, records = trained(tell(how="ends"), rounds=2)
    assert [list(record.metrics) for record in records] == [["half"]] * 2
    assert not any(record.is_measured for record in records)


def test_a_finish_is_a_measured_round_of_its_own_after_the_last():
    plain, before = trained(tell(how="ends"), rounds=3, evaluate=Script())
    ended, records = trained(tell(), rounds=3, evaluate=Script(), evaluate_every=3)
    drawn = KEY.fold_in("finish", 3).rng().random()
    np.testing.assert_array_equal(ended.state.params["w"], plain.state.params["w"] - drawn)
    assert [record.round for record in records] == [0, 1, 2, 3, 4]
    assert totals(records)[3:] == [totals(before)[-1], ended.state.params["w"].sum()]
    assert (ended.round, ended.finished, plain.finished) == (4, True, False)


def test_no_rounds_are_not_finished():
    ended, records = trained(tell(), rounds=0, evaluate=Script())
    assert (ended.round, ended.finished, len(records)) == (0, False, 1)


def test_a_finished_run_stays_finished_and_goes_on_from_its_last_state():
    ended, _ = trained(tell(), rounds=3)
    again, records = trained(tell(), rounds=3, progress=ended)
    assert (digest(again), records) == (digest(ended), [])
    longer, records = trained(tell(), rounds=6, progress=ended)
    assert [record.round for record in records] == [5, 6, 7]
    drawn = KEY.fold_in("round", 5).rng().random() + KEY.fold_in("round", 6).rng().random()
    drawn -= KEY.fold_in("finish", 6).rng().random()
    np.testing.assert_allclose(longer.state.params["w"], ended.state.params["w"] + drawn)
    assert longer.finished


@pytest.mark.parametrize(
    "stop", [Stop("total", target=0.2, higher_is_better=True), Stop("total", patience=1)]
)
def test_a_run_that_stops_early_is_finished(stop):
    plain, before = trained(tell(how="ends"), rounds=9, evaluate=Script(), stop=stop)
    ended, records = trained(tell(), rounds=9, evaluate=Script(), stop=stop)
    assert plain.round < 9
    assert len(records) == len(before) + 1
    assert (ended.round, ended.finished) == (plain.round + 1, True)
    assert (ended.stopped, ended.target_round) == (plain.stopped, plain.target_round)
    assert ended.stopped is not None


def test_a_finish_may_reach_the_target_be_the_best_or_be_worse_and_stops_nothing():
    rounds = {"rounds": 1, "evaluate": Script()}
    start, first, last = totals(trained(tell(), **rounds)[1])
    assert last < start < first
    ended, _ = trained(tell(), **rounds, stop=Stop("total", target=last, patience=2))
    assert (ended.stopped, ended.target_round, ended.best) == (None, 2, (last, 2))
    high = Stop("total", target=first + 1.0, higher_is_better=True, patience=1)
    ended, _ = trained(tell(), **rounds, stop=high)
    assert (ended.stopped, ended.target_round, ended.best) == (None, None, (first, 1))


def test_a_finish_that_fails_is_recorded_and_not_tried_again():
    plain, _ = trained(tell(how="ends"), rounds=2)
    ended, records = trained(tell(how="fails"), rounds=2)
    assert [record.abandoned for record in records] == [None, None, "nobody is left"]
    np.testing.assert_array_equal(ended.state.params["w"], plain.state.params["w"])
    assert ended.finished
    assert trained(tell(how="fails"), rounds=2, progress=ended)[1] == []


@pytest.mark.parametrize("how", ["finishes", "fails"])
def test_a_finish_that_was_cut_anywhere_ends_as_an_undisturbed_one(how):
    options = {
        "algorithm": tell(how=how),
        "rounds": 4,
        "evaluate": Script(),
        "stop": Stop("total", target=0.5, higher_is_better=True),
    }
    store = Fragile()
    undisturbed, records = trained(store=store, **options)
    assert (undisturbed.stopped is not None, undisturbed.finished) == (True, True)
    for write in range(1, store.num_writes + 1):
        for before in (True, False):
            cut = Fragile(write, before=before)
            with pytest.raises(Crash):
                trained(store=cut, **options)
            ended, rest = trained(store=Fragile.load(cut.dump()), **options)
            assert digest(ended) == digest(undisturbed)
            assert [(r.round, r.metrics) for r in rest] == [
                (r.round, r.metrics) for r in records[len(records) - len(rest) :]
            ]


# -- which way is better --------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "auc", "concordance", "f1", "precision", "r2", "recall"])
def test_well_known_metrics_are_better_when_higher(metric):
    assert is_higher_better(metric)
    assert is_higher_better(f"train_{metric}")
    assert Stop(metric).better(0.9, 0.1)
    assert not Stop(metric).better(0.1, 0.9)


def test_other_metrics_are_better_when_lower_unless_they_say_so():
    assert not is_higher_better("loss")
    assert not is_higher_better("agreement")
    assert is_higher_better("agreement", {"agreement"})
    assert Stop("agreement").better(0.1, 0.9)
    assert Stop("agreement", higher_is_better=True).better(0.9, 0.1)
    assert Stop("accuracy", higher_is_better=False).better(0.1, 0.9)
