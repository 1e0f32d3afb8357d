"""What is linear and shared by the round is folded as it travels, and undone once."""

from typing import Any

import numpy as np
import pytest
from secure import fixed_point, masked_sum
from support import KEYS, Few, Quadratic, simulate

from hanse.algorithms import fed_buff, uniform
from hanse.algorithms.works import local_sgd
from hanse.core import (
    Chain,
    Close,
    CompositionError,
    Part,
    PartSpec,
    Spec,
    Steps,
    gather,
    mean,
    reduce,
    sample,
    stack,
)
from hanse.core import sum as sum_
from hanse.core.exchange import drive
from hanse.simulation import InProcess, Simulation
from hanse.transforms import (
    clip,
    low_rank,
    per_client,
    per_round,
    quantize,
    random_mask,
    rotate,
    subsample,
)

VALUES = {"w": np.zeros((9, 8)), "b": np.zeros(5)}
SHARED = [
    (rotate(),),
    (subsample(0.3, drawn=per_round()),),
    (subsample(0.3, drawn=per_round()), rotate()),
    (random_mask(0.4, drawn=per_round()),),
    (random_mask(0.4, drawn=per_round()), subsample(0.5, drawn=per_round()), rotate()),
    (low_rank(2, drawn=per_round()), rotate()),
    (clip(1.0), rotate()),
]
every_shared = pytest.mark.parametrize("uplink", SHARED, ids=str)


def encoded(chain: Chain, plans: Any, client: int) -> Part:
    trained = chain.stages[0].within is not None
    spec = chain.stages[0].out if trained else chain.source
    rng = np.random.default_rng(client)
    values = {name: rng.normal(size=t.shape) for name, t in spec.tensors.items()}
    return chain.encode(plans, Part(values, 1.0 + client), {}, KEYS.fold_in(client))[0]


def restored(chain: Chain, plans: Any, parts: list[Part], into: Any) -> Any:
    total, _ = chain.decode(chain.init(), plans, reduce(into, parts), KEYS.secret)
    return total


@every_shared
@pytest.mark.parametrize("into", [mean(), sum_()], ids=str)
def test_the_fold_of_what_travels_is_the_fold_of_what_was_meant(uplink: Any, into: Any) -> None:
    chain = PartSpec(Spec.of(VALUES), uplink, into).chain()
    assert chain.opens is None
    assert chain.folded.summable
    plans = chain.plan(chain.init(), KEYS.public)
    parts = [encoded(chain, plans, client) for client in range(4)]
    at_once = restored(chain, plans, parts, into)
    alone = [restored(chain, plans, [part], mean()) for part in parts]
    one_by_one = reduce(into, [Part(t.values, t.weight) for t in alone])
    chain.source.check(at_once.values)
    for name in VALUES:
        np.testing.assert_allclose(at_once.values[name], one_by_one.values[name], atol=1e-12)


@every_shared
def test_stacked_contributions_are_undone_one_by_one(uplink: Any) -> None:
    chain = PartSpec(Spec.of(VALUES), uplink, stack()).chain()
    plans = chain.plan(chain.init(), KEYS.public)
    parts = [encoded(chain, plans, client) for client in range(3)]
    stacked = restored(chain, plans, parts, stack()).values
    np.testing.assert_array_equal(stacked["weight"], [1, 2, 3])
    for client, part in enumerate(parts):
        own = restored(chain, plans, [part], mean()).values
        for name in VALUES:
            np.testing.assert_allclose(stacked[name][client], own[name], atol=1e-12)


def test_bits_are_opened_for_each_and_the_rotation_undone_once() -> None:
    chain = PartSpec(Spec.of(VALUES), (subsample(0.5, drawn=per_round()), rotate(), quantize(8))).chain()
    assert chain.opens == quantize(8)
    assert chain.decodes == subsample(0.5, drawn=per_round())
    assert chain.folded == chain.stages[1].out


@pytest.mark.parametrize(
    "uplink",
    [
        (subsample(0.5), rotate()),
        (random_mask(0.5), subsample(0.5, drawn=per_round()), rotate()),
        (low_rank(2), rotate()),
        (rotate(drawn=per_client()), subsample(0.5, drawn=per_round())),
    ],
    ids=str,
)
def test_after_a_clients_own_draw_everything_is_opened(uplink: Any) -> None:
    chain = PartSpec(Spec.of(VALUES), uplink).chain()
    assert chain.decodes is None
    assert all(stage.open is not None for stage in chain.stages)
    with pytest.raises(CompositionError, match=r"masked_sum|is undone on each contribution"):
        PartSpec(Spec.of(VALUES), (*uplink, fixed_point()), masked_sum()).chain()


class Wide(Few):
    """Eight features, so that a mask, a sketch and a rotation have something to do."""

    def __init__(self) -> None:
        super().__init__(num_features=8)


@pytest.mark.parametrize(
    "uplink",
    [
        (rotate(),),
        (subsample(0.5, drawn=per_round()), rotate()),
        (random_mask(0.5, drawn=per_round()),),
        (random_mask(0.5, drawn=per_round()), rotate()),
    ],
    ids=str,
)
def test_a_secure_sum_carries_compressed_values(uplink: Any) -> None:
    """The server gets the mean of what the clients meant, and never sees one of them."""
    learner = Quadratic(8)
    params = learner.init(KEYS.public)
    spec = Spec.of(params)
    patient = Close(minimum_fraction=1.0)

    def asks(part_spec: PartSpec) -> Any:
        cohort = (yield from sample(KEYS.public, fraction=1.0)).cohort
        work = local_sgd(Steps(0.01), uniform())
        got = yield from gather(
            work, cohort, {"params": params}, KEYS.public, close=patient, update=part_spec
        )
        return got["update"]

    def performed(part_spec: PartSpec) -> Any:
        runtime = Simulation(InProcess(learner, Wide(), KEYS), Wide().num_clients, KEYS)
        return drive(asks(part_spec), runtime)

    hidden = performed(PartSpec(spec, (*uplink, fixed_point()), masked_sum()))
    plain = performed(PartSpec(spec, uplink, sum_()))
    assert hidden.count == plain.count == 6
    spec.check(hidden.values)
    for name in params:
        np.testing.assert_allclose(hidden.values[name], plain.values[name], atol=1e-4)


def test_a_sum_over_several_dispatches_is_refused_with_the_remedy() -> None:
    uplink = (rotate(), quantize(4))
    asynchronous = fed_buff(lr=0.02, concurrency=4, buffer_size=3, uplink=uplink)
    with pytest.raises(CompositionError, match="let it be drawn per client"):
        simulate(asynchronous, 4)
    own = (rotate(drawn=per_client()), quantize(4))
    simulate(fed_buff(lr=0.02, concurrency=4, buffer_size=3, uplink=own), 4)
