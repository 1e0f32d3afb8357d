"""Each algorithm's first rounds, recomputed from its paper's formulas in plain NumPy.

Clients are unequal, some of them miss rounds, and no setting has its default. `reference.py` has the
gradients, local steps and means; each test has the rest.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cases import ALGORITHMS
from reference import (
    L2,
    REFERENCES,
    Far,
    Logistic,
    Ridge,
    Round,
    assert_close,
    average,
    batches,
    descend,
    flatten,
    note,
    one_by_one,
    perform,
    reference_of,
    trained,
)
from support import KEYS

from hanse.algorithms import (
    adagrad,
    adding,
    apply_rest,
    async_sgd,
    averaging,
    by_examples,
    choco_sgd,
    cocoa,
    dane,
    decentralised_sgd,
    dga,
    exponential_decay,
    fed_adagrad,
    fed_adam,
    fed_async,
    fed_avg,
    fed_buff,
    fed_dyn,
    fed_nova,
    fed_prox,
    fed_sgd,
    fed_yogi,
    fl_trust,
    fools_gold,
    giant,
    gossip,
    gradient_tracking,
    hinge_staleness,
    local_steps,
    map_reduce,
    momentum,
    nesterov,
    newton,
    one_shot,
    polynomial_staleness,
    scaffold,
    star,
    step_decay,
    uniform,
    zeno,
)
from hanse.core import Close, Discount, stack, value
from hanse.core import sum as sum_
from hanse.core.exchange import PartyMemory, Progress, training
from hanse.learners import dual, least_squares
from hanse.simulation import Devices, InProcess, Simulation, drive_together, ideal, unstable
from hanse.transforms import none, top_k

FAR, RIDGE, LOGISTIC = Ridge(Far()), Ridge(), Logistic()
WEIGHTINGS = pytest.mark.parametrize(
    ("weighting", "weigh"), [(by_examples(), RIDGE.size), (uniform(), lambda k: 1)], ids=["examples", "alike"]
)
LR, SERVER_LR = exponential_decay(0.1, 0.5), step_decay(0.8, every=1, factor=0.25)


def lr(t: int) -> float:
    """LR after t rounds."""
    return 0.1 * 0.5**t


def server_lr(t: int) -> float:
    """SERVER_LR after t rounds."""
    return 0.8 * 0.25**t


def test_every_algorithm_has_a_reference_round() -> None:
    assert REFERENCES == ALGORITHMS


# -- local training and averaging -----------------------------------------------------------------


@reference_of(fed_avg)
@pytest.mark.parametrize("model", [RIDGE, LOGISTIC], ids=["ridge", "logistic"])
@WEIGHTINGS
def test_fed_avg(model: Ridge, weighting: Any, weigh: Any) -> None:
    """McMahan et al. 2017, Algorithm 1; the server's momentum is that of Hsu et al. 2019, FedAvgM."""
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "weighting": weighting}
    algorithm = fed_avg(LR, 0.8, **settings, server_lr=SERVER_LR, server=momentum(0.6))
    w, v = np.zeros(4), np.zeros(4)
    for t, round in one_by_one(perform(algorithm, 3, model), size=5):
        updates = [
            descend(model, w, k, batches(round.key, k, model.size(k), 2, 4), lr(t)) for k in round.parties
        ]
        v = 0.6 * v - average(updates, [weigh(k) for k in round.parties])
        w = w - server_lr(t) * v
        assert_close(round.params, w)


@reference_of(fed_prox)
@WEIGHTINGS
def test_fed_prox(weighting: Any, weigh: Any) -> None:
    """Li et al. 2020, Algorithm 2, with local steps of gradient descent as the inexact solver."""
    algorithm = fed_prox(LR, 0.8, epochs=3, batch_size=6, mu=0.7, weighting=weighting)
    w = np.zeros(4)
    for t, round in one_by_one(perform(algorithm, 3, RIDGE), size=5):
        updates = [
            descend(RIDGE, w, k, batches(round.key, k, RIDGE.size(k), 3, 6), lr(t), mu=0.7)
            for k in round.parties
        ]
        w = w + average(updates, [weigh(k) for k in round.parties])
        assert_close(round.params, w)


@reference_of(fed_nova)
@pytest.mark.parametrize("mu", [0.0, 2.5])
@WEIGHTINGS
def test_fed_nova(weighting: Any, weigh: Any, mu: float) -> None:
    """Wang et al. 2020, equations 5 to 7; with a proximal term a_k = [(1 - lr mu)^(tau_k - 1), ..., 1]."""
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "weighting": weighting}
    algorithm = fed_nova(LR, 0.8, **settings, server_lr=SERVER_LR, mu=mu)
    w = np.zeros(4)
    for t, round in one_by_one(perform(algorithm, 3, RIDGE), size=5):
        directions, lengths = [], []
        for k in round.parties:
            steps = batches(round.key, k, RIDGE.size(k), 2, 4)
            a = [(1 - lr(t) * mu) ** later for later in range(len(steps))]
            directions.append(descend(RIDGE, w, k, steps, lr(t), mu=mu) / sum(a))
            lengths.append(sum(a))
        assert len(set(lengths)) > 2, "clients take different numbers of steps"
        weights = [weigh(k) for k in round.parties]
        w = w + server_lr(t) * average(lengths, weights) * average(directions, weights)
        assert_close(round.params, w)


@reference_of(scaffold)
@WEIGHTINGS
def test_scaffold(weighting: Any, weigh: Any) -> None:
    """Karimireddy et al. 2020, Algorithm 1 with option II; c is the mean of the variates seen so far."""
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "weighting": weighting}
    algorithm = scaffold(LR, 0.8, **settings, server_lr=SERVER_LR)
    w, c, variates = np.zeros(4), np.zeros(4), dict[int, Any]()
    for t, round in one_by_one(perform(algorithm, 4, RIDGE), size=5):
        updates, new = [], {}
        for k in round.parties:
            own, steps = variates.get(k, np.zeros(4)), batches(round.key, k, RIDGE.size(k), 2, 4)
            updates.append(descend(RIDGE, w, k, steps, lr(t), tilt=c - own))
            new[k] = own - c - updates[-1] / (len(steps) * lr(t))
        variates.update(new)
        w = w + server_lr(t) * average(updates, [weigh(k) for k in round.parties])
        c = average(list(variates.values()), [weigh(k) for k in variates])
        assert_close(round.params, w)


@reference_of(fed_dyn)
@WEIGHTINGS
def test_fed_dyn(weighting: Any, weigh: Any) -> None:
    """Acar et al. 2021, Algorithm 1, whose h has the other sign here; it counts all six clients alike.

    By examples, clients that were never seen are taken to have the mean weight of those that were.
    """
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "weighting": weighting}
    w, slopes = np.zeros(4), dict[int, Any]()
    rounds = perform(fed_dyn(LR, 0.5, **settings, alpha=0.6), 4, RIDGE)
    for t, round in one_by_one(rounds, size=3):
        updates = []
        for k in round.parties:
            own, steps = slopes.get(k, np.zeros(4)), batches(round.key, k, RIDGE.size(k), 2, 4)
            updates.append(descend(RIDGE, w, k, steps, lr(t), mu=0.6, tilt=-own))
            slopes[k] = own - 0.6 * updates[-1]
        everybody = 6 * np.mean([weigh(k) for k in slopes])
        h = sum(weigh(k) * own for k, own in slopes.items()) / everybody
        w = w + average(updates, [weigh(k) for k in round.parties]) - h / 0.6
        assert_close(round.params, w)
    assert any(len(round.parties) < 3 for round in rounds[:1]), "some are not seen in the first round"


SECOND_MOMENTS = {
    fed_adagrad: lambda v, g: v + g**2,
    fed_adam: lambda v, g: 0.7 * v + 0.3 * g**2,
    fed_yogi: lambda v, g: v - 0.3 * g**2 * np.sign(v - g**2),
}


@reference_of(fed_adagrad, fed_adam, fed_yogi)
@pytest.mark.parametrize("named", SECOND_MOMENTS)
def test_adaptive_servers(named: Any) -> None:
    """Reddi et al. 2021, Algorithm 2."""
    beta2 = {} if named is fed_adagrad else {"beta2": 0.7}
    settings: dict[str, Any] = {"epochs": 2, "batch_size": None, "weighting": uniform()}
    algorithm = named(LR, 0.8, **settings, server_lr=SERVER_LR, beta1=0.4, tau=0.05, **beta2)
    w, m, v = np.zeros(4), np.zeros(4), np.full(4, 0.05**2)
    for t, round in one_by_one(perform(algorithm, 3, RIDGE), size=5):
        g = -np.mean([descend(RIDGE, w, k, [slice(None)] * 2, lr(t)) for k in round.parties], axis=0)
        m = 0.4 * m + 0.6 * g
        v = SECOND_MOMENTS[named](v, g)
        w = w - server_lr(t) * m / (np.sqrt(v) + 0.05)
        assert_close(round.params, w)


# -- no round is awaited --------------------------------------------------------------------------


@value(name="steady")
class steady(Devices):
    """Each client takes its own time, and the third drops out."""

    draws = False

    def duration_s(self, party: Any, key: Any) -> float | None:
        return None if party == 3 else (1.0, 2.6, 5.7, 0.0, 9.1, 1.3)[party]


@reference_of(fed_buff)
def test_fed_buff() -> None:
    """Nguyen et al. 2022, Algorithm 1: a sum over K buffered updates, each less for its staleness."""
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "server_lr": SERVER_LR}
    algorithm = fed_buff(LR, 5, 2, **settings, discount=Discount(0.8))
    w, started, stale = np.zeros(4), dict[int, Any](), set()
    for version, round in enumerate(perform(algorithm, 6, RIDGE, steady())):
        ((command, tickets),), (got,) = round.sent, round.heard
        for ticket, k in zip(tickets, command.cohort, strict=True):
            steps = batches(command.key, k, RIDGE.size(k), 2, 4)
            started[ticket] = version, descend(RIDGE, w, k, steps, lr(version))
        total = np.zeros(4)
        for ticket in got.counted:
            begun, update = started.pop(ticket)
            stale.add(version - begun)
            total += (1 + version - begun) ** -0.8 * update
        for drop in got.dropped:
            del started[drop.ticket]
        assert len(got.counted) == 2
        w = w + server_lr(version) / 2 * total
        assert_close(round.params, w)
        assert len(started) == 5 - 2 - len(got.dropped), "five are kept busy"
    assert {0, 2, 5} <= stale


def test_fed_buff_applies_the_rest() -> None:
    """What is in flight at the end fills buffers of K as before; in the last each counts 1/K all the same."""
    settings: dict[str, Any] = {"epochs": 1, "batch_size": None, "server_lr": 0.7, "discount": Discount(0.8)}
    algorithm = fed_buff(0.05, 5, 3, **settings, rest=apply_rest())
    *rounds, finish = perform(algorithm, 2, RIDGE, steady())
    w, started = np.zeros(4), dict[int, Any]()
    for version, round in enumerate(rounds):
        ((command, tickets),), (got,) = round.sent, round.heard
        for ticket, k in zip(tickets, command.cohort, strict=True):
            started[ticket] = version, descend(RIDGE, w, k, [slice(None)], 0.05)
        late = [version - started[ticket][0] for ticket in got.counted]
        assert round.reported == {"staleness": np.mean(late)}
        w = round.params
    assert finish.sent == []
    counted = []
    for version, got in enumerate(finish.heard, start=2):
        counted.append(len(got.counted))
        buffered = [started[ticket] for ticket in got.counted]
        w = w + 0.7 / 3 * sum((1 + version - begun) ** -0.8 * update for begun, update in buffered)
        late = [version - begun for begun, _ in buffered]
    assert_close(finish.params, w)
    assert finish.reported == {"staleness": np.mean(late)}
    closed = {n for round in (*rounds, finish) for got in round.heard for n in got.counted}
    dropped = {d.ticket for round in (*rounds, finish) for got in round.heard for d in got.dropped}
    assert closed | dropped == started.keys(), "nothing is left in flight"
    assert counted[-1] < 3, "the last buffer is not full"
    assert len(counted) == -(-sum(counted) // 3)


@reference_of(fed_async)
@pytest.mark.parametrize(
    ("staleness", "weigh"),
    [
        (polynomial_staleness(0.8), lambda late: (1 + late) ** -0.8),
        (hinge_staleness(2.0, 1), lambda late: 1 if late <= 1 else 1 / (2 * (late - 1) + 1)),
    ],
    ids=["polynomial", "hinge"],
)
def test_fed_async(staleness: Any, weigh: Any) -> None:
    """Xie et al. 2019, Algorithm 1, option I; the functions s of section 5.2."""
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "mu": 0.7}
    algorithm = fed_async(LR, 0.5, staleness, 5, **settings)
    w, started, stale, version = np.zeros(4), dict[int, Any](), list[int](), 0
    for round in perform(algorithm, 6, RIDGE, steady()):
        ((command, tickets),), (got,) = round.sent, round.heard
        for ticket, k in zip(tickets, command.cohort, strict=True):
            steps = batches(command.key, k, RIDGE.size(k), 2, 4)
            started[ticket] = version, w + descend(RIDGE, w, k, steps, lr(version), mu=0.7)
        (ticket,) = got.counted
        begun, model = started[ticket]
        stale.append(version - begun)
        alpha = 0.5 * weigh(version - begun)
        w, version = (1 - alpha) * w + alpha * model, version + 1
        assert_close(round.params, w)
        assert round.reported == {"staleness": stale[-1]}
    assert {0, 2} <= set(stale)


@reference_of(async_sgd)
def test_async_sgd() -> None:
    """Dean et al. 2012, one gradient a step; divided by 1 + staleness as in Zhang et al. 2016."""
    algorithm = async_sgd(LR, 4, staleness=polynomial_staleness(1.0))
    w, started, stale, version = np.zeros(4), dict[int, Any](), set[int](), 0
    for round in perform(algorithm, 8, RIDGE, steady()):
        ((command, tickets),), (got,) = round.sent, round.heard
        for ticket, k in zip(tickets, command.cohort, strict=True):
            rows = batches(command.key, k, RIDGE.size(k), 1, 4)[0]
            started[ticket] = version, RIDGE.gradient(w, k, rows)
        (ticket,) = got.counted
        begun, gradient = started[ticket]
        late = version - begun
        stale.add(late)
        w, version = w - lr(version) / (1 + late) * gradient, version + 1
        assert_close(round.params, w)
        assert round.reported == {"staleness": late}
    assert {0, 3} <= stale


@reference_of(dga)
@pytest.mark.parametrize("num_steps", [1, 3])
@WEIGHTINGS
def test_dga(weighting: Any, weigh: Any, num_steps: int) -> None:
    """Zhu et al. 2021, Algorithm 1, as each client of it computes: after the last mean all of them agree."""
    delay, people = 2, range(6)
    algorithm = dga(LR, delay, num_steps, 4, weighting)
    *rounds, finish = perform(algorithm, 7, RIDGE, ideal())
    own = {k: np.zeros(4) for k in people}
    sums: list[dict[int, Any]] = []

    def correct(s: int) -> None:
        mean = average(list(sums[s].values()), [weigh(k) for k in people])
        for k in people:
            own[k] = own[k] - lr(s) * (mean - sums[s][k])

    for t, round in enumerate(rounds):
        ((command, _),) = round.sent
        assert sorted(command.cohort) == list(people)
        moved = {
            k: descend(RIDGE, own[k], k, _first(command.key, k, num_steps), lr(t)) for k in command.cohort
        }
        sums.append({k: -moved[k] / lr(t) for k in people})
        for k in people:
            own[k] = own[k] + moved[k]
        if t >= delay:
            correct(t - delay)
        assert len(round.heard) == (t >= delay)
    spread = max(np.abs(own[k] - own[0]).max() for k in people)
    assert spread > 1e-3, "until then they differ"
    for s in range(7 - delay, 7):
        correct(s)
    assert max(np.abs(own[k] - own[0]).max() for k in people) < 1e-12
    assert len(finish.heard) == delay
    assert_close(finish.params, own[0])


def test_dga_restarts_those_who_drop_out() -> None:
    """Whoever drops out loses what it built on the lost step, and goes on from what all agree on."""
    algorithm = dga(0.05, 2)
    rounds = perform(algorithm, 12, RIDGE, unstable(0.15))
    w, own = np.zeros(4), dict[Any, dict[int, Any]]()
    asked: dict[int, tuple[Any, Any, int]] = {}
    waiting, lost, fractions = list[int](), 0, list[float]()
    for t, round in enumerate(rounds):
        for command, tickets in round.sent:
            assert len(command.cohort) == 6
            for ticket, k in zip(tickets, command.cohort, strict=True):
                asked[ticket] = k, w, min([*waiting, t])
            waiting.append(t)
        for got in round.heard:
            s = waiting.pop(0)
            for ticket in got.counted:
                k, start, first = asked[ticket]
                here = start + sum(u for step, u in own.setdefault(k, {}).items() if first <= step < s)
                own[k][s] = -0.05 * RIDGE.gradient(here, k)
            weights = [RIDGE.size(k) for k in got.parties]
            w = w + average([own[k][s] for k in got.parties], weights)
            fractions.append(len(got.counted) / 6)
            lost += sum("built on" in drop.reason for drop in got.dropped)
            assert round.reported == {"answered": fractions[-1]}
        assert_close(round.params, w)
    assert lost > 3
    assert min(fractions) < 1.0 == max(fractions)
    assert any(b > a for a, b in pairwise(fractions)), "some came back"


def test_dga_gives_up_a_step_that_too_few_answered() -> None:
    """The model stays, those who answered begin anew with the others, and nothing is left in flight."""
    algorithm = dga(0.05, 2, close=Close(minimum_fraction=1.0))
    rounds = perform(algorithm, 8, RIDGE, unstable(0.15))
    given_up = [t for t, round in enumerate(rounds) if any(got.abandoned for got in round.heard)]
    assert given_up
    for t in given_up:
        if len(rounds[t].heard) == 1:
            np.testing.assert_array_equal(rounds[t].params, rounds[t - 1].params)
            assert rounds[t].reported == {"answered": 0.0}
    tickets = {ticket for round in rounds for _, sent in round.sent for ticket in sent}
    closed = [n for round in rounds for got in round.heard for n in got.counted]
    closed += [drop.ticket for round in rounds for got in round.heard for drop in got.dropped]
    assert sorted(closed) == sorted(tickets)


def _first(key: Any, k: int, num_steps: int) -> list[Any]:
    """The rows of the first steps of a client, in batches of 4."""
    return batches(key, k, RIDGE.size(k), num_steps, 4)[:num_steps]


# -- gradients ------------------------------------------------------------------------------------


@reference_of(map_reduce)
def test_map_reduce() -> None:
    """The lecture's lines, with the sum of all gradients that were collected."""
    algorithm = map_reduce(LR, into=stack())
    w = np.zeros(4)
    for t, round in one_by_one(perform(algorithm, 3, RIDGE), size=6):
        w = w - lr(t) * sum(RIDGE.size(k) * RIDGE.gradient(w, k) for k in round.parties)
        assert_close(round.params, w)


@reference_of(fed_sgd)
@pytest.mark.parametrize("model", [RIDGE, LOGISTIC], ids=["ridge", "logistic"])
@WEIGHTINGS
def test_fed_sgd(model: Ridge, weighting: Any, weigh: Any) -> None:
    """McMahan et al. 2017, section 2; here with a sum, and Adagrad at the server (tau inside v, too)."""
    algorithm = fed_sgd(LR, 0.8, weighting=weighting, into=sum_(), server=adagrad(0.4, 0.05))
    w, m, v = np.zeros(4), np.zeros(4), np.full(4, 0.05**2)
    for t, round in one_by_one(perform(algorithm, 3, model), size=5):
        g = sum(weigh(k) * model.gradient(w, k) for k in round.parties)
        m, v = 0.4 * m + 0.6 * g, v + g**2
        w = w - lr(t) * m / (np.sqrt(v) + 0.05)
        assert_close(round.params, w)


@reference_of(nesterov)
@WEIGHTINGS
def test_nesterov(weighting: Any, weigh: Any) -> None:
    """Nesterov's gradient is taken at the point ahead, y = w + momentum (w - w before)."""
    algorithm = nesterov(LR, 0.7, 0.8, weighting=weighting)
    w = before = np.zeros(4)
    for t, round in one_by_one(perform(algorithm, 4, LOGISTIC), size=5):
        ahead = w + 0.7 * (w - before)
        slopes = [LOGISTIC.gradient(ahead, k) for k in round.parties]
        w, before = ahead - lr(t) * average(slopes, [weigh(k) for k in round.parties]), w
        assert_close(round.params, w)


# -- the server judges the clients ----------------------------------------------------------------


def descend_at_server(model: Ridge, w: Any, lr: float, epochs: int) -> Any:
    """The server's own full-batch steps, on everybody's data together."""
    sizes = [model.size(k) for k in range(len(model.population.parts))]
    v = w.copy()
    for _ in range(epochs):
        v = v - lr * average([model.gradient(v, k) for k in range(len(sizes))], sizes)
    return v - w


@reference_of(fl_trust)
def test_fl_trust() -> None:
    """Cao et al. 2021, Algorithm 2, with momentum at the server."""
    settings: dict[str, Any] = {"epochs": 3, "batch_size": None, "trusted": "server"}
    algorithm = fl_trust(LR, 0.8, **settings, server_lr=SERVER_LR, server=momentum(0.6))
    w, v, num_left_out = np.zeros(4), np.zeros(4), 0
    for t, round in one_by_one(perform(algorithm, 4, FAR), size=5, more={"server"}):
        trusted = descend_at_server(FAR, w, lr(t), 3)
        trust, scaled = [], []
        for k in round.parties[1:]:
            u = descend(FAR, w, k, [slice(None)] * 3, lr(t))
            cosine = u @ trusted / np.linalg.norm(u) / np.linalg.norm(trusted)
            trust.append(max(0.0, cosine))
            scaled.append(u / np.linalg.norm(u) * np.linalg.norm(trusted))
        num_left_out += trust.count(0.0)
        v = 0.6 * v - average(scaled, trust)
        w = w - server_lr(t) * v
        assert_close(round.params, w)
    assert num_left_out > 0, "everybody pointed the server's way: this shows too little"


@reference_of(zeno)
@pytest.mark.parametrize("num_byzantine", [2, None])
def test_zeno(num_byzantine: int | None) -> None:
    """Xie et al. 2019, Algorithm 1, on updates; without a number, those count whose score is not below 0."""
    sizes = [FAR.size(k) for k in range(6)]

    def loss(w: Any) -> float:
        free = [FAR.objective(w, k) - L2 / 2 * float(w[:3] @ w[:3]) for k in range(6)]
        return float(average(free, sizes))

    settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "trusted": "server", "rho": 0.3}
    algorithm = zeno(LR, 0.8, **settings, num_byzantine=num_byzantine, server_lr=SERVER_LR)
    w, counts = np.zeros(4), set()
    for t, round in one_by_one(trained(perform(algorithm, 4, FAR)), size=5):
        parties = round.heard[0].parties
        key = round.sent[0][0].key
        updates = [descend(FAR, w, k, batches(key, k, FAR.size(k), 3, 4), lr(t)) for k in parties]
        scores = np.array([loss(w) - loss(w + u) - 0.3 * u @ u for u in updates])
        best = np.argsort(-scores)[: len(scores) - (num_byzantine or 0)]
        chosen = [i for i in best if num_byzantine or scores[i] >= 0]
        counts.add(len(chosen))
        w = w + server_lr(t) * sum(updates[i] for i in chosen) / max(1, len(chosen))
        assert_close(round.params, w)
    assert len(counts) > 1


@reference_of(fools_gold)
def test_fools_gold() -> None:
    """Fung et al. 2020, Algorithm 1, over all that took part so far, with a mean in place of the sum."""
    algorithm = fools_gold(LR, 0.8, epochs=3, batch_size=4, confidence=0.4, server_lr=SERVER_LR)
    w, sums, weights = np.zeros(4), dict[int, Any](), set()
    for t, round in one_by_one(perform(algorithm, 4, FAR), size=5):
        parties = round.parties
        updates = {k: descend(FAR, w, k, batches(round.key, k, FAR.size(k), 3, 4), lr(t)) for k in parties}
        for k, u in updates.items():
            sums[k] = sums.get(k, 0) + u
        cosine = {
            (i, j): sums[i] @ sums[j] / np.linalg.norm(sums[i]) / np.linalg.norm(sums[j])
            for i in sums
            for j in sums
            if i != j
        }
        v = {i: max(0.0, *(cosine[i, j] for j in sums if j != i)) for i in sums}
        for i, j in cosine:
            if v[j] > v[i]:
                cosine[i, j] *= v[i] / v[j]
        alike = {i: max(0.0, *(cosine[i, j] for j in sums if j != i)) for i in sums}
        most = max(1 - a for a in alike.values())
        a = {}
        for i in sums:
            share = (1 - alike[i]) / most
            found = np.inf if share == 1 else 0.4 * (np.log(share / (1 - share)) + 0.5)
            a[i] = float(np.clip(found, 0, 1))
        weights |= {a[i] for i in parties}
        w = w + server_lr(t) * average([updates[k] for k in parties], [a[k] for k in parties])
        assert_close(round.params, w)
    assert {0.0, 1.0} < weights


# -- approximate Newton methods -------------------------------------------------------------------


def by_size(values: list[Any], parties: Any) -> Any:
    """The mean of values, weighted by the parties' examples."""
    return average(values, [RIDGE.size(k) for k in parties])


@reference_of(giant)
@pytest.mark.parametrize("model", [RIDGE, LOGISTIC], ids=["ridge", "logistic"])
def test_giant(model: Ridge) -> None:
    """Wang et al. 2018, Algorithms 1 and 2: p = mean(H_k^-1 g), and Armijo's condition along it."""
    steps = (4.0, 1.0, 0.6, 0.2)
    algorithm = giant(0.8, tolerance=1e-13, steps=steps, armijo=0.55, close=Close(minimum_fraction=0.3))
    w, taken = np.zeros(4), list[float]()
    for _, round in one_by_one(perform(algorithm, 4, model), size=5):
        first, second, third = (got.parties for got in round.heard)
        g = by_size([model.gradient(w, k) for k in first], first)
        p = by_size([np.linalg.solve(model.hessian(w, k), g) for k in second], second)

        def objective(at: Any, parties: Any = third) -> Any:
            return by_size([model.objective(at, k) for k in parties], parties)

        enough = [a for a in steps if objective(w - a * p) <= objective(w) - 0.55 * a * (p @ g)]
        taken.append((*enough, steps[-1])[0])
        w = w - taken[-1] * p
        np.testing.assert_allclose(round.params, w, rtol=1e-7, atol=1e-9)
    assert taken[0] < 4.0
    assert len(set(taken)) > 1


@reference_of(dane)
def test_dane() -> None:
    """Shamir et al. 2014, Figure 1: for quadratics, w_k = w - eta (H_k + mu)^-1 g."""
    algorithm = dane(1.5, 0.7, newton(tolerance=1e-13), 0.8, close=Close(minimum_fraction=0.3))
    w = np.zeros(4)
    for _, round in one_by_one(perform(algorithm, 3, RIDGE), size=5):
        first, second = (got.parties for got in round.heard)
        g = by_size([RIDGE.gradient(w, k) for k in first], first)
        moves = [np.linalg.solve(RIDGE.hessian(w, k) + 1.5 * np.eye(4), -0.7 * g) for k in second]
        w = w + by_size(moves, second)
        np.testing.assert_allclose(round.params, w, rtol=1e-7, atol=1e-9)


@reference_of(dane)
def test_dane_by_local_steps() -> None:
    """The same problem, solved inexactly: steps along grad F_k(v) - grad F_k(w) + eta g + mu (v - w)."""
    algorithm = dane(1.5, 0.7, local_steps(LR, epochs=3), close=Close(minimum_fraction=0.3))
    w = np.zeros(4)
    for t, round in one_by_one(perform(algorithm, 3, LOGISTIC), size=6):
        first, second = (got.parties for got in round.heard)
        g = by_size([LOGISTIC.gradient(w, k) for k in first], first)
        tilts = [0.7 * g - LOGISTIC.gradient(w, k) for k in second]
        pairs = zip(second, tilts, strict=True)
        moves = [descend(LOGISTIC, w, k, [slice(None)] * 3, lr(t), mu=1.5, tilt=a) for k, a in pairs]
        w = w + by_size(moves, second)
        assert_close(round.params, w)


@reference_of(one_shot)
@WEIGHTINGS
def test_one_shot(weighting: Any, weigh: Any) -> None:
    """Zhang et al. 2013, section 2.1: the mean of the local optima; for quadratics w - H_k^-1 grad F_k(w)."""
    algorithm = one_shot(newton(tolerance=1e-13), 0.8, weighting)
    for _, round in one_by_one(perform(algorithm, 3, RIDGE), size=5):
        zero = np.zeros(4)
        optima = [-np.linalg.solve(RIDGE.hessian(zero, k), RIDGE.gradient(zero, k)) for k in round.parties]
        due = average(optima, [weigh(k) for k in round.parties])
        np.testing.assert_allclose(round.params, due, rtol=1e-7, atol=1e-9)


@reference_of(one_shot)
def test_one_shot_by_local_steps() -> None:
    algorithm = one_shot(local_steps(LR, epochs=4, batch_size=6), 0.8)
    w = np.zeros(4)
    for t, round in one_by_one(perform(algorithm, 3, LOGISTIC), size=5):
        orders = [batches(round.key, k, LOGISTIC.size(k), 4, 6) for k in round.parties]
        pairs = zip(round.parties, orders, strict=True)
        w = w + by_size([descend(LOGISTIC, w, k, steps, lr(t)) for k, steps in pairs], round.parties)
        assert_close(round.params, w)


# -- duals ----------------------------------------------------------------------------------------


@reference_of(cocoa)
@pytest.mark.parametrize("combine", [averaging(), adding()], ids=["averaging", "adding"])
def test_cocoa(combine: Any) -> None:
    """Ma et al. 2015, Algorithms 1 and 2, with SDCA on the ridge's dual; gamma is 1/K or 1, sigma' gamma K.

    K counts the cohort, and n the examples of all clients, whoever is missing later.
    """
    model = least_squares(L2, intercept=False, dtype="float64")
    rounds = perform(cocoa(combine, 2, 0.8), 6, RIDGE, learner=dual(model).bind((3,), None))
    assert any(round.abandoned for round in rounds), "the examples of all are counted before the first round"
    w, alpha = np.zeros(3), {k: np.zeros(RIDGE.size(k)) for k in range(6)}
    n = sum(len(a) for a in alpha.values())
    for _, round in one_by_one(rounds, size=5):
        gamma = 1 / 5 if combine == averaging() else 1.0
        key, changes = round.sent[-1][0].key, {}
        for k in round.heard[-1].parties:
            (x, y), own, v = RIDGE.rows(k), alpha[k].copy(), w.copy()
            for order in (
                key.fold_in("party", k, "work", "epoch", e).rng().permutation(len(y)) for e in (0, 1)
            ):
                for i in order:
                    q = gamma * 5 / (L2 * n)  # a change of alpha_i moves v by q x_i
                    best = (y[i] - x[i, :3] @ v + q * x[i, :3] @ x[i, :3] * own[i]) / (
                        1 + q * x[i, :3] @ x[i, :3]
                    )
                    v, own[i] = v + q * (best - own[i]) * x[i, :3], best
            changes[k] = own - alpha[k]
        for k, change in changes.items():
            alpha[k] += gamma * change
            w = w + gamma * RIDGE.rows(k)[0][:, :3].T @ change / (L2 * n)
        assert_close(round.params, w)


# -- peers ----------------------------------------------------------------------------------------


@reference_of(gossip)
def test_gossip() -> None:
    """Lian et al. 2017, Algorithm 1: mix by row i of W, and step along the gradient before mixing."""
    mixing = np.array([[0.5, 0.2, 0, 0.3], [0.1, 0.6, 0.3, 0], [0, 0.7, 0.2, 0.1], [0.4, 0, 0.2, 0.4]])
    learner, seen = RIDGE.model.bind((3,), None), {me: list[Round]() for me in range(4)}
    backend, memory = InProcess(learner, RIDGE.population, KEYS), PartyMemory()
    programs, runtimes = {}, {}
    for me in range(4):
        row = tuple((peer, float(mixing[me, peer])) for peer in range(4) if mixing[me, peer])
        algorithm = gossip(me, row, LR)
        begin = Progress(0, algorithm.init(learner.init(KEYS.public), KEYS.public))
        programs[me] = note(training(algorithm, begin, KEYS.public, rounds=4), seen[me])
        runtimes[me] = Simulation(backend, 4, KEYS, memory=memory, owner=me, first_ticket=me * 2**32)
    ended = drive_together(programs, runtimes)
    w = np.zeros((4, 4))
    for t in range(4):
        w = mixing @ w - lr(t) * np.array([RIDGE.gradient(w[i], i) for i in range(4)])
        for me in range(4):
            assert_close(seen[me][t].params, w[me])
    for t in range(1, 4):
        before = np.array([seen[me][t - 1].params for me in range(4)])
        apart = np.linalg.norm(before - mixing @ before, axis=1)
        for me in range(4):
            assert seen[me][t].reported == {"consensus_distance": pytest.approx(apart[me])}
    assert seen[0][0].reported == {}, "nothing was mixed yet"
    assert_close(flatten(ended[2].state.params), w[2])


def mix_by_hand(round: Round, link_failure: float) -> np.ndarray:
    """The star of 6 peers by Metropolis: 1/6 on each link that works, and the rest stays where it is."""
    is_up = round.key.fold_in("links").rng().random(5) >= link_failure
    mixing = np.eye(6)
    for peer in range(1, 6):
        if is_up[peer - 1] and {0, peer} <= set(round.parties):
            mixing[0, peer] = mixing[peer, 0] = 1 / 6
            mixing[0, 0] -= 1 / 6
            mixing[peer, peer] -= 1 / 6
    return mixing


@reference_of(decentralised_sgd)
def test_decentralised_sgd() -> None:
    """Lian et al. 2017, Algorithm 1, with peers that are away and links that are down in some rounds."""
    rounds = perform(decentralised_sgd(star(), LR, 4, 0.3), 5, RIDGE)
    w = np.zeros((6, 4))
    assert any(not (mix_by_hand(r, 0.3) == mix_by_hand(r, 0.0)).all() for r in rounds), "no link was down"
    for t, round in one_by_one(rounds, size=6):
        slopes = np.zeros((6, 4))
        for k in round.parties:
            own = round.key.fold_in("party", k).fold_in("work").fold_in("batch")
            slopes[k] = RIDGE.gradient(w[k], k, own.rng().choice(RIDGE.size(k), 4, replace=False))
        mixing = mix_by_hand(round, 0.3)
        before, mixed = (np.linalg.norm(v - v.mean(0)) for v in (w, mixing @ w))
        w = mixing @ w - lr(t) * slopes
        assert_close(round.params, w.mean(0))
        apart = np.sqrt(np.square(w - w.mean(0)).sum() / 6)
        assert round.reported["consensus_distance"] == pytest.approx(apart)
        assert round.reported["second_eigenvalue"] == pytest.approx(5 / 6)
        assert round.reported["link_bytes"] == np.count_nonzero(np.triu(mixing, 1)) * 2 * 4 * 8
        if t:
            assert round.reported["consensus_decay"] == pytest.approx(mixed / before)
        else:
            assert "consensus_decay" not in round.reported


@reference_of(choco_sgd)
def test_choco_sgd() -> None:
    """Koloskova et al. 2019, Algorithm 2, with the largest entry of each difference, and links that fail."""
    kept = choco_sgd(star(), LR, link_failure=0.3, compression=(top_k(0.25, none()),), gamma=0.4)
    w, known, broken = np.zeros((6, 4)), np.zeros((6, 4)), np.zeros((6, 6), bool)
    for t, round in one_by_one(perform(kept, 6, RIDGE), size=6):
        for k in round.parties:
            w[k] -= lr(t) * RIDGE.gradient(w[k], k)
            largest = np.abs(w[k] - known[k]).argmax()
            known[k, largest] += (w[k] - known[k])[largest]
        mixing = mix_by_hand(round, 0.3)
        w = w + 0.4 * (mixing @ known - known)
        assert_close(round.params, w.mean(0))
        apart = np.sqrt(np.square(w - w.mean(0)).sum() / 6)
        assert round.reported["consensus_distance"] == pytest.approx(apart, rel=1e-5)
        links = np.triu(mixing, 1) != 0
        entry, model = 8 + 2, 4 * 8  # a number and the two halves of its position; a whole model
        sent = np.count_nonzero(links) * 2 * entry + np.count_nonzero(links & broken) * 2 * model
        assert round.reported["link_bytes"] == sent
        broken = (np.arange(6) > 0) & (np.arange(6)[:, None] == 0) & ~links
    assert t == 5


@reference_of(gradient_tracking)
def test_gradient_tracking() -> None:
    """Nedić et al. 2017, Algorithm 1 (DIGing); who is away keeps model, tracker and gradient."""
    rounds = perform(gradient_tracking(star(), LR, link_failure=0.3), 5, RIDGE)
    w, y, last = np.zeros((6, 4)), np.zeros((6, 4)), np.zeros((6, 4))
    for t, round in one_by_one(rounds, size=6):
        there = np.isin(np.arange(6), round.parties)[:, None]
        now = np.where(there, [RIDGE.gradient(w[k], k) for k in range(6)], last)
        mixing = mix_by_hand(round, 0.3)
        y = mixing @ y + now - last
        w, last = mixing @ w - lr(t) * y * there, now
        assert_close(y.mean(0), now.mean(0))
        assert_close(round.params, w.mean(0))
        assert round.reported["link_bytes"] == np.count_nonzero(np.triu(mixing, 1)) * 2 * 2 * 4 * 8
