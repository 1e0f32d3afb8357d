import numpy as np
import pytest
from support import KEYS, Crash, Few, Fragile, Quadratic

from hanse.core import (
    HanseError,
    Key,
    Part,
    PartSpec,
    Spec,
    Work,
    gather,
    own_test,
    player,
    stack,
    value,
)
from hanse.core.exchange import NotReady, PartyMemory
from hanse.core.program import commit
from hanse.simulation import InProcess, Simulation, drive_together

KEY = Key.from_seed(1)
NUMBER = PartSpec(Spec.of({"n": np.zeros(())}), into=stack())


@value
class announce(Work):
    """At the peer itself: from now on it shows a number as the given step's."""

    step: int
    number: float

    def run(self, learner, shared, data, memory, keys):
        kept = {name: n for name, n in memory.items() if name == str(self.step - 1)}
        return {"n": Part({"n": np.array(self.number)})}, {**kept, str(self.step): self.number}


@value
class overhear(Work):
    """At another peer: what it shows as the given step's."""

    step: int

    def run(self, learner, shared, data, memory, keys):
        if str(self.step) not in memory:
            raise NotReady(f"step {self.step} is not done here yet")
        return {"n": Part({"n": np.array(float(memory[str(self.step)]))})}, memory


def adding(me, neighbours, steps, start=1, store=None):
    """Each step, a peer's number becomes the sum of its own and its neighbours'."""
    saved = store.checkpoint() if store else None
    done, number = (saved.round, saved.state) if saved else (0, float(me))
    for step in range(done + 1, steps + 1):
        key = KEY.fold_in(me, step)
        if step > start:
            got = yield from gather(overhear(step - 1), neighbours, {}, key.fold_in(1), n=NUMBER)
            number += float(got["n"].values["n"].sum())
        yield from gather(announce(step, number), (me,), {}, key.fold_in(2), n=NUMBER)
        yield from commit(step, number, {})
    return number


def runtimes(peers, recall=None):
    backend, memory = InProcess(Quadratic(), Few(), KEYS), PartyMemory(recall)
    return {
        me: Simulation(backend, 6, KEYS, memory=memory, owner=me, first_ticket=me * 10**6) for me in peers
    }


RING = {me: ((me - 1) % 4, (me + 1) % 4) for me in range(4)}


def expected(graph, steps):
    numbers = {me: float(me) for me in graph}
    for _ in range(steps - 1):
        numbers = {me: numbers[me] + sum(numbers[n] for n in graph[me]) for me in graph}
    return numbers


def together(graph, steps, stores=None, **options):
    recall = (lambda party: stores[party].memory(party)) if stores else (lambda party: {})
    programs = {me: adding(me, graph[me], steps, store=stores[me] if stores else None) for me in graph}
    return drive_together(programs, runtimes(graph, recall), stores, **options)


@pytest.mark.parametrize("graph", [RING, {0: (1,), 1: (0, 2), 2: (1,)}, {0: (1,), 1: (0,)}], ids=str)
def test_peers_see_each_other_step_by_step(graph):
    assert together(graph, 5) == expected(graph, 5)


class Measurable(Few):
    """Few, each with tests of its own."""

    def role(self, name):
        return self.client(player(name))


@value
class reveal(Work):
    """At a test role: the number that its peer has committed."""

    def run(self, learner, shared, data, memory, keys):
        return {"n": Part({"n": np.array(float(memory.get("1", -1)))})}, {}


def test_a_peers_test_role_reads_what_the_peer_has_committed():
    def measuring(me):
        seen = []
        for step in (1, 2):
            key = KEY.fold_in(me, step)
            got = yield from gather(reveal(), (own_test(me),), {}, key, n=NUMBER)
            seen.append(float(got["n"].values["n"][0]))
            yield from gather(announce(1, me + step / 10), (me,), {}, key.fold_in(2), n=NUMBER)
            yield from commit(step, me, {})
        return seen

    backend, memory = InProcess(Quadratic(), Measurable(), KEYS), PartyMemory()
    led = {
        me: Simulation(backend, 6, KEYS, memory=memory, owner=me, first_ticket=me * 10**6) for me in range(3)
    }
    programs = {me: measuring(me) for me in range(3)}
    assert drive_together(programs, led) == {me: [-1.0, me + 0.1] for me in range(3)}


def test_the_order_in_which_they_are_named_does_not_matter():
    assert together(dict(reversed(RING.items())), 5) == expected(RING, 5)


def test_peers_that_wait_for_each_other_are_found_out():
    """Nobody shows a first step before having seen the others'."""
    programs = {me: adding(me, RING[me], 3, start=0) for me in RING}
    with pytest.raises(HanseError, match=r"the peers \['0', '1', '2', '3'\] wait for each other"):
        drive_together(programs, runtimes(RING))


def test_only_those_that_still_wait_are_named():
    programs = {0: adding(0, (1,), 5), 1: adding(1, (0,), 2), 2: adding(2, (2,), 2)}
    with pytest.raises(HanseError, match=r"the peers \['0'\] wait"):
        drive_together(programs, runtimes(programs))


def test_nobody_waits_for_nothing():
    assert drive_together({}, {}) == {}
    assert drive_together({1: adding(1, (), 0)}, runtimes([1])) == {1: 1.0}


def test_an_error_at_one_peer_ends_them_all():
    def failing():
        yield from gather(announce(1, 1.0), (2,), {}, KEY, n=NUMBER)
        raise HanseError("peer 2 lost its disk")

    with pytest.raises(HanseError, match="lost its disk"):
        drive_together({1: adding(1, (2,), 3), 2: failing()}, runtimes((1, 2)))


def test_turns_can_be_watched():
    turns = []
    together(RING, 2, on_command=lambda: turns.append(1))
    # 2 + 1 commands in the first step, 2 + 2 + 1 in the second, and whoever asks too early asks again.
    assert len(turns) >= 4 * 8


def test_each_peer_keeps_its_own_books_and_goes_on_from_them():
    whole = {me: Fragile() for me in RING}
    assert together(RING, 4, whole) == expected(RING, 4)
    assert all([record.round for record in store.records] == [1, 2, 3, 4] for store in whole.values())
    for write in range(1, whole[2].num_writes + 1, 3):
        stores = {me: Fragile(write if me == 2 else -1) for me in RING}
        with pytest.raises(Crash):
            together(RING, 4, stores)
        found = {me: Fragile.load(store.dump()) for me, store in stores.items()}
        assert together(RING, 4, found) == expected(RING, 4)


def test_what_peers_send_themselves_costs_nothing():
    stores = {me: Fragile() for me in RING}
    together(RING, 2, stores)
    for store in stores.values():
        own, seen = store.records
        assert own.usage.bytes_up == own.usage.bytes_down == 0
        assert seen.usage.counted == 2
        assert seen.usage.bytes_up > 0
