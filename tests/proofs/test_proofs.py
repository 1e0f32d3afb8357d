"""The hardest things that the core must carry, each against an oracle."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from secure import fixed_point, masked_sum, secure_avg
from support import KEYS, Few, Quadratic, program, simulate, simulation

from hanse.algorithms import fed_avg, fed_sgd, giant, scaffold, uniform
from hanse.algorithms.works import local_sgd
from hanse.core import (
    Close,
    CompositionError,
    LocalProblem,
    PartSpec,
    RoundAbandoned,
    Spec,
    Steps,
    Tensors,
    gather,
    mean,
    sample,
    stack,
)
from hanse.core.exchange import Collect, Dispatch, Message, drive, unpack
from hanse.simulation import InProcess, Simulation, WrappedBackend, unstable
from hanse.transforms import clip, quantize, random_mask

PARAMS = Quadratic().init(KEYS.public)
SPEC = Spec.of(PARAMS)


def flat(params: Tensors) -> np.ndarray:
    return np.append(params["w"], params["b"])


def exchange(work: Any, part_spec: PartSpec, devices: Any = unstable(0.0), key: Any = KEYS.public) -> Any:
    """One exchange with everybody."""

    def asks() -> Any:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        return (yield from gather(work, cohort, {"params": PARAMS}, key, update=part_spec))

    return drive(asks(), simulation(devices=devices))


# A 2-bit quantiser with per-client scales, behind a mask per client in whose space the client trains.


def test_clients_train_inside_their_own_masks() -> None:
    work = local_sgd(Steps(0.02, epochs=3), uniform())
    got = exchange(work, PartSpec(SPEC, (random_mask(0.4),), stack()))["update"].values
    kept = [tuple(np.flatnonzero(row)) for row in got["w"]]
    assert all(len(row) == 2 for row in kept), "2 = ceil(0.4 * 3) of each client's entries are trained"
    assert len(set(kept)) > 1, "each client draws its own"
    k = 2
    data = Few().client(k)
    cohort_row = exchange(work, PartSpec(SPEC, (random_mask(0.4),), stack())).parties.index(k)
    at = list(kept[cohort_row])
    w, b = np.zeros(3), 0.0
    for _ in range(3):
        residual = data.x[:, at] @ w[at] + b - data.y
        w[at] -= 0.02 * data.x[:, at].T @ residual / len(data)
        b -= 0.02 * residual.mean()
    np.testing.assert_allclose(got["w"][cohort_row], w, rtol=1e-12)
    np.testing.assert_allclose(got["b"][cohort_row], b, rtol=1e-12)


def test_two_bits_behind_a_mask_are_an_unbiased_mean() -> None:
    work = local_sgd(Steps(0.02), uniform())
    uplink = (random_mask(1.0), quantize(2))
    exact = exchange(work, PartSpec(SPEC, (random_mask(1.0),)))["update"].values["w"]
    drawn = [
        exchange(work, PartSpec(SPEC, uplink), key=KEYS.public.fold_in(i))["update"].values["w"]
        for i in range(400)
    ]
    error = np.abs(np.mean(drawn, axis=0) - exact)
    assert (error < 4.5 * np.std(drawn, axis=0) / np.sqrt(len(drawn)) + 1e-12).all()


# SCAFFOLD: two parts, and memory that commits only when counted.


@pytest.mark.parametrize(("epochs", "rounds"), [(1, 1500), (20, 300)])
def test_scaffold_reaches_the_pooled_optimum_with_abandoned_rounds_in_between(
    epochs: int, rounds: int
) -> None:
    algorithm = scaffold(lr=0.02, epochs=epochs, batch_size=None, close=Close(minimum_fraction=1.0))
    records: list[Any] = []
    state = simulate(algorithm, rounds, unstable(0.06), watch=records.append)
    abandoned = sum(record.abandoned is not None for record in records)
    assert 0.2 * rounds < abandoned < 0.47 * rounds, "about one round in three"
    np.testing.assert_allclose(flat(state.params), Few().optimum(), atol=1e-9)


def test_fed_avg_stops_short_of_it() -> None:
    state = simulate(fed_avg(lr=0.02, fraction=1.0, epochs=20, batch_size=None), 500)
    assert np.abs(flat(state.params) - Few().optimum()).max() > 0.01


# GIANT: two exchanges and a line search in one round.


def test_giant_reaches_the_pooled_optimum() -> None:
    state = simulate(giant(), 60)
    np.testing.assert_allclose(flat(state.params), Few().optimum(), atol=1e-9)


def test_giant_with_one_client_is_newtons_method() -> None:
    class One(Few):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [self.pooled]

    one = One()
    newton = drive(program(giant(tolerance=1e-12), 1), simulation(population=one))
    np.testing.assert_allclose(flat(newton.state.params), one.optimum(), rtol=1e-8)


# A secure sum in several exchanges.


class Watched(WrappedBackend):
    """Keeps whatever the clients send."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.sent: list[tuple[Any, Message]] = []

    def compute(self, jobs: Any, memory_at: Any) -> Any:
        for answer in super().compute(jobs, memory_at):
            ((_, task),) = answer.job.places
            self.sent.append((task, unpack(answer.result)))
            yield answer


def secure_round(seed: int) -> tuple[Any, Any, list[Any]]:
    """One secure exchange on unreliable devices: its result, the commands and events, and what was sent."""
    watched = Watched(InProcess(Quadratic(), Few(), KEYS))
    runtime = Simulation(watched, Few().num_clients, KEYS, unstable(0.08), in_blocks=False)
    log: list[Any] = []
    perform = runtime.perform

    def logged(command: Any) -> Any:
        event = perform(command)
        log.append((command, event))
        return event

    runtime.perform = logged  # type: ignore[method-assign]
    key = KEYS.public.fold_in(seed)

    def asks() -> Any:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        part_spec = PartSpec(SPEC, (fixed_point(),), masked_sum())
        work = local_sgd(Steps(0.02), uniform())
        return (yield from gather(work, cohort, {"params": PARAMS}, key, update=part_spec))

    return drive(asks(), runtime), log, watched.sent


def test_a_secure_sum_survives_a_client_that_falls_silent_between_its_phases() -> None:
    silent_between = 0
    for seed in range(16):
        try:
            got, log, _ = secure_round(seed)
        except RoundAbandoned:  # somebody fell silent in the last phase too: without him there is no sum
            continue
        answered = [event.parties for command, event in log if isinstance(command, Collect)]
        _, ready, masked, *_ = answered
        silent_between += set(ready) != set(masked)
        work = local_sgd(Steps(0.02), uniform())
        plain = 0.0
        for command, _event in log:
            if isinstance(command, Dispatch) and command.work == work:
                for k in masked:
                    plain = (
                        plain
                        + Quadratic().local_sgd(
                            PARAMS, LocalProblem(Few().client(k), work.steps, KEYS.public)
                        )["w"]
                    )
        np.testing.assert_allclose(got["update"].values["w"], plain, atol=1e-5)
        assert got["update"].count == len(masked)
    assert silent_between >= 3


def test_the_server_sees_only_masked_values() -> None:
    _, _, sent = secure_round(0)
    assert all(message.parts == {"update": None} for task, message in sent if "update" in message.parts)
    masked = [m.parts["masked"].values["update/w"] for _, m in sent if "masked" in m.parts]
    assert len(masked) >= 4
    for words in masked:
        assert np.abs(words.astype(np.int64) / 2.0**63).max() > 1e-3, "a mask is as wide as the ring"


def test_the_secure_mean_trains_as_the_plain_one() -> None:
    secure = simulate(secure_avg(), 30)
    plain = simulate(fed_avg(lr=0.02, fraction=1.0, epochs=2, batch_size=None, weighting=uniform()), 30)
    np.testing.assert_allclose(flat(secure.params), flat(plain.params), atol=1e-3)


# Compositions that can't be are refused when they are built.


@pytest.mark.parametrize(
    ("part_spec", "remedy"),
    [
        (PartSpec(SPEC, (quantize(2),), masked_sum()), "use transforms that commute with sums"),
        (PartSpec(SPEC, (random_mask(0.5),), masked_sum()), "use transforms that commute with sums"),
        (PartSpec(SPEC, (clip(1.0),), masked_sum()), r"use fixed_point\(\)"),
        (PartSpec(SPEC, (quantize(2), clip(1.0))), "put it first"),
        (PartSpec(SPEC, (clip(1.0), random_mask(0.5))), "move it to the front"),
        (PartSpec(Spec(SPEC.tensors, kind="coded"), (), mean()), "collect them with stack"),
    ],
)
def test_impossible_compositions_name_the_remedy(part_spec: PartSpec, remedy: str) -> None:
    with pytest.raises(CompositionError, match=remedy):
        part_spec.chain()


def test_a_work_that_can_not_train_inside_a_space_is_refused_before_it_starts() -> None:
    with pytest.raises(CompositionError, match="use a sketched update"):
        simulate(fed_sgd(uplink=(random_mask(0.5),)), 1)


# Exactness.


def test_one_full_batch_epoch_of_fed_avg_is_one_centralised_step() -> None:
    pooled, lr = Few().role("server"), 0.05
    state = simulate(fed_avg(lr=lr, fraction=1.0, epochs=1, batch_size=None), 1)
    gradient = Quadratic().gradient(PARAMS, pooled)
    np.testing.assert_allclose(flat(state.params), -lr * flat(gradient), atol=1e-12)


def test_parallel_gradient_descent_is_centralised_gradient_descent() -> None:
    centralised = dict(PARAMS)
    for _ in range(50):
        gradient = Quadratic().gradient(centralised, Few().pooled)
        centralised = {name: centralised[name] - 0.05 * gradient[name] for name in centralised}
    state = simulate(fed_sgd(lr=0.05), 50)
    np.testing.assert_allclose(flat(state.params), flat(centralised), rtol=1e-10)
    assert replace(fed_sgd(), lr=0.1) == fed_sgd(lr=0.1)
