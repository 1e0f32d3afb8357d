from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.chain import Chain, Stage, Transform
from hanse.core.errors import CompositionError
from hanse.core.keys import Key, Keys
from hanse.core.reducers import reduce
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec, TensorSpec
from hanse.core.tensors import tree_map
from hanse.core.values import value
from hanse.core.work import Everything, Part, Total

SOURCE = Spec.of({"w": np.zeros(2)})
KEYS = Keys.from_seed(3)
LOG = []


@pytest.fixture(autouse=True)
def log():
    LOG.clear()
    return LOG


@value
class noted(Transform):
    """Writes down who is called with which key, and counts its calls in its plan, memory and state."""

    name: str
    does: frozenset = frozenset({"encode", "open", "decode"})

    def __call__(self, spec):
        def plan(state, key):
            LOG.append(("plan", self.name, key))
            return (self.name, state)

        def within(plan, key):
            LOG.append(("within", self.name, key))
            return Everything({"w": np.zeros(2)})

        def encode(plan, part, memory, keys):
            assert plan[0] == self.name
            LOG.append(("encode", self.name, keys))
            return part, {**memory, "calls": (*memory.get("calls", ()), self.name)}

        def open(plan, part, key):
            assert plan[0] == self.name
            LOG.append(("open", self.name, key))
            return part

        def decode(state, plan, total, key):
            assert plan[0] == self.name
            LOG.append(("decode", self.name, key))
            return total, state + 1

        halves = {"within": within, "encode": encode, "open": open, "decode": decode}
        done = {name: half for name, half in halves.items() if name in self.does}
        return Stage(spec.like(tensors={self.name: TensorSpec((2,), "float64")}), init=0, plan=plan, **done)


@value
class scaled(Transform):
    """x -> factor x, undone on the total, or at once on each contribution."""

    factor: float
    at_once: bool = False

    def __call__(self, spec):
        def encode(plan, part, memory, keys):
            return replace(part, values=tree_map(lambda x: x * self.factor, part.values)), memory

        def undone(of):
            return replace(of, values=tree_map(lambda x: x / self.factor, of.values))

        if self.at_once:
            return Stage(spec, encode=encode, open=lambda plan, part, key: undone(part))
        return Stage(spec, encode=encode, decode=lambda state, plan, total, key: (undone(total), state))


@value
class shifted(Transform):
    """x -> x + drawn by the plan, undone on the total, or at once on each contribution."""

    at_once: bool = False

    def __call__(self, spec):
        def plan(state, key):
            return float(key.rng().integers(-8, 8))

        def encode(plan, part, memory, keys):
            return replace(part, values=tree_map(lambda x: x + plan, part.values)), memory

        def open(plan, part, key):
            return replace(part, values=tree_map(lambda x: x - plan, part.values))

        def decode(state, plan, total, key):
            return replace(total, values=tree_map(lambda x: x - total.weight * plan, total.values)), state

        if self.at_once:
            return Stage(spec, plan=plan, encode=encode, open=open)
        return Stage(spec, plan=plan, encode=encode, decode=decode)


@value
class noised(Transform):
    """Its values are calibrated: nothing after it may change them."""

    def __call__(self, spec):
        return Stage(spec.like(sealed=True), encode=lambda plan, part, memory, keys: (part, memory))


@value
class packed_bits(Transform):
    lossless: bool
    forgets: bool = False

    def __call__(self, spec):
        out = spec.like(kind="coded", sealed=spec.sealed and not self.forgets)
        return Stage(
            out,
            encode=lambda plan, part, memory, keys: (part, memory),
            open=lambda plan, part, key: part,
            lossless=self.lossless,
        )


def _there_and_back(chain, emitted):
    """What the server ends up with, when each client emits one array with weight 1."""
    plans = chain.plan(chain.init(), KEYS.public)
    opened = []
    for client, array in enumerate(emitted):
        keys = KEYS.fold_in("client", client)
        part, _ = chain.encode(plans, Part({"w": array}), {}, keys)
        opened.append(chain.open(plans, part, keys.public))
    return chain.decode(chain.init(), plans, reduce(sum_(), opened), KEYS.secret)[0]


# Powers of two and small integers: every step is exact.
undone_on_totals = st.lists(
    st.builds(scaled, st.sampled_from([0.5, 2.0, -4.0])) | st.builds(shifted), max_size=4
)
undone_at_once = st.lists(
    st.builds(scaled, st.sampled_from([0.5, -2.0]), st.just(True)) | st.builds(shifted, st.just(True)),
    max_size=4,
)
exact = st.lists(st.integers(-9, 9).map(float), min_size=2, max_size=2).map(np.array)


@settings(deadline=None)
@given(undone_on_totals, undone_at_once, st.lists(exact, min_size=1, max_size=4))
def test_the_server_undoes_what_the_clients_did(on_totals, at_once, emitted):
    chain = Chain.bind(SOURCE, on_totals + at_once)
    np.testing.assert_array_equal(_there_and_back(chain, emitted).values["w"], sum(emitted))


@pytest.mark.parametrize("tail", [(shifted(),), (shifted(), scaled(2.0, True)), (shifted(True), shifted())])
def test_what_follows_an_opened_stage_must_be_undone_before_it_or_is_refused(tail):
    try:
        chain = Chain.bind(SOURCE, (scaled(4.0, True), *tail))
    except CompositionError:
        return
    emitted = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    np.testing.assert_array_equal(_there_and_back(chain, emitted).values["w"], [4, 6])


def test_clients_encode_first_to_last_and_the_server_undoes_last_to_first(log):
    chain = Chain.bind(SOURCE, [noted("a"), noted("bb"), noted("ccc")])
    _there_and_back(chain, [np.ones(2)])
    client = KEYS.fold_in("client", 0)
    assert log == [
        *[("plan", name, KEYS.public.fold_in(i)) for i, name in enumerate(("a", "bb", "ccc"))],
        *[("encode", name, client.fold_in(i)) for i, name in enumerate(("a", "bb", "ccc"))],
        *[("open", name, client.public.fold_in(i)) for i, name in ((2, "ccc"), (1, "bb"), (0, "a"))],
        *[("decode", name, KEYS.secret.fold_in(i)) for i, name in ((2, "ccc"), (1, "bb"), (0, "a"))],
    ]


def test_nobody_but_the_server_draws_from_the_servers_secret(log):
    _there_and_back(Chain.bind(SOURCE, [noted("a")]), [np.ones(2)])
    seen = [key.secret if isinstance(key, Keys) else key for does, _, key in log if does != "decode"]
    assert KEYS.secret.fold_in(0) not in seen


def test_an_empty_chain_changes_nothing():
    chain = Chain.bind(SOURCE, ())
    part, total = Part({"w": np.ones(2)}, 3.0), Total({"w": np.ones(2)}, 3.0, 2)
    assert (chain.out, chain.folded, chain.opens, chain.decodes) == (SOURCE, SOURCE, None, None)
    assert (chain.init(), chain.plan((), KEYS.public), chain.space((), KEYS.public)) == ((), (), None)
    assert chain.encode((), part, {"own": 1}, KEYS) == (part, {"own": 1})
    assert chain.open((), part, KEYS.public) is part
    assert chain.decode((), (), total, KEYS.secret) == (total, ())


# -- what a chain says of itself ------------------------------------------------------------------

A, B, C = (
    noted("a", frozenset({"encode"})),
    noted("b", frozenset({"open"})),
    noted("c", frozenset({"decode"})),
)


@pytest.mark.parametrize(
    ("transforms", "out", "folded", "opens", "decodes"),
    [
        ((A,), "a", "a", None, None),
        ((C,), "c", "c", None, C),
        ((B,), "b", "w", B, None),
        ((B, A), "a", "w", B, None),
        ((A, B), "b", "a", B, None),
        ((C, A, B), "b", "a", B, C),
        ((C, B, A), "a", "c", B, C),
        ((A, C), "c", "c", None, C),
    ],
)
def test_a_chain_says_what_travels_what_is_folded_and_who_undoes_it(transforms, out, folded, opens, decodes):
    chain = Chain.bind(SOURCE, transforms)
    assert [*chain.out.tensors, *chain.folded.tensors] == [out, folded]
    assert (chain.opens, chain.decodes) == (opens, decodes)


def test_each_transform_is_bound_to_what_precedes_it():
    seen = []

    class watching(Transform):
        def __call__(self, spec):
            seen.extend(spec.tensors)
            return Stage(spec)

    Chain.bind(SOURCE, [watching(), noted("a"), watching(), noted("four"), watching()])
    assert seen == ["w", "a", "four"]


# -- composition ----------------------------------------------------------------------------------

SPACE = noted("space", frozenset({"within"}))


def test_a_space_comes_first_and_is_drawn_per_client(log):
    chain = Chain.bind(SOURCE, [SPACE, A])
    plans = chain.plan(chain.init(), KEYS.public)
    assert isinstance(chain.space(plans, KEYS.public.fold_in("client")), Everything)
    assert log[-1] == ("within", "space", KEYS.public.fold_in("client", 0))
    assert Chain.bind(SOURCE, [A]).space((None,), KEYS.public) is None


@pytest.mark.parametrize("before", [(A,), (SPACE,), (A, B)])
def test_a_space_that_follows_anything_is_refused(before):
    with pytest.raises(
        CompositionError, match=r"noted\(name='space'.* must come first.*move it to the front"
    ):
        Chain.bind(SOURCE, [*before, SPACE])


@pytest.mark.parametrize("changing", [A, scaled(2.0), packed_bits(lossless=False)])
def test_calibrated_noise_is_not_changed(changing):
    with pytest.raises(CompositionError, match="move it before the noise"):
        Chain.bind(SOURCE, [noised(), changing])
    with pytest.raises(CompositionError, match="move it before the noise"):
        Chain.bind(SOURCE.like(sealed=True), [changing])
    Chain.bind(SOURCE, [changing, noised()])


def test_calibrated_noise_may_be_packed_without_loss_and_undone_at_the_server():
    chain = Chain.bind(SOURCE, [noised(), packed_bits(lossless=True), B])
    assert chain.out.sealed
    with pytest.raises(CompositionError, match="before the noise"):
        Chain.bind(SOURCE, [noised(), packed_bits(lossless=True), B, scaled(2.0)])


def test_noise_stays_calibrated_whatever_the_stages_in_between_say():
    with pytest.raises(CompositionError, match="before the noise"):
        Chain.bind(SOURCE, [noised(), packed_bits(lossless=True, forgets=True), scaled(2.0)])


def test_what_a_transform_refuses_is_refused_when_bound():
    class choosy(Transform):
        def __call__(self, spec):
            raise CompositionError("not after that")

    with pytest.raises(CompositionError, match="not after that"):
        Chain.bind(SOURCE, [A, choosy()])


# -- memory and state -----------------------------------------------------------------------------


def test_each_stage_remembers_for_itself():
    chain = Chain.bind(SOURCE, [A, B, replace(A, name="again")])
    plans, memory = chain.plan(chain.init(), KEYS.public), {}
    for _ in range(2):
        _, memory = chain.encode(plans, Part({"w": np.ones(2)}), memory, KEYS)
    assert memory == {"0": {"calls": ("a", "a")}, "2": {"calls": ("again", "again")}}


def test_the_memory_that_was_given_is_not_written_to():
    chain = Chain.bind(SOURCE, [A])
    memory = {"0": {"calls": ("before",)}}
    chain.encode(chain.plan((0,), KEYS.public), Part({"w": np.ones(2)}), memory, KEYS)
    assert memory == {"0": {"calls": ("before",)}}


def test_a_stage_may_forget():
    class forgetful(Transform):
        def __call__(self, spec):
            return Stage(spec, encode=lambda plan, part, memory, keys: (part, {} if memory else {"n": 1}))

    chain = Chain.bind(SOURCE, [forgetful()])
    _, memory = chain.encode((None,), Part({"w": np.ones(2)}), {}, KEYS)
    assert memory["0"] == {"n": 1}
    _, memory = chain.encode((None,), Part({"w": np.ones(2)}), memory, KEYS)
    assert not memory.get("0")


def test_each_stage_has_its_own_state():
    chain = Chain.bind(SOURCE, [C, A, C])
    states = chain.init()
    total = Total({"w": np.ones(2)}, 1.0, 1)
    for count in (1, 2):
        plans = chain.plan(states, KEYS.public)
        assert [plan[1] for plan in plans] == [count - 1, 0, count - 1]
        _, states = chain.decode(states, plans, total, KEYS.secret)
        assert states == (count, 0, count)


def test_states_and_plans_of_another_chain_are_refused():
    chain = Chain.bind(SOURCE, [A, C])
    with pytest.raises(ValueError, match="zip"):
        chain.plan((0,), Key.from_seed(0))
    with pytest.raises(ValueError, match="zip"):
        chain.encode((("a", 0),), Part({"w": np.ones(2)}), {}, KEYS)
