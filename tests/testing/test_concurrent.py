import asyncio
import random
from dataclasses import replace

import numpy as np
import pytest
from support import KEYS, Few, Quadratic, simulation

from hanse.core import Close, Discount, Key, Part, PartSpec, Spec, TensorSpec, Work, mean, stack, value
from hanse.core.exchange import (
    Collect,
    Commit,
    Dispatch,
    InMemory,
    NotReady,
    Sample,
    digest,
    drive,
    pack,
    unpack,
)
from hanse.simulation import heavy_tailed, ideal, unstable
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive

KEY = Key.from_seed(1)
SPEC = Spec({"n": TensorSpec((3,), "float64")})


@value
class call(Work):
    """Counts, in memory, how often a client was called; draws, publicly and in secret. Some send nonsense."""

    bad: tuple[int, ...] = ()
    fails: tuple[int, ...] = ()
    wants: int = 0

    def run(self, learner, shared, data, memory, keys):
        if len(data) in self.fails:
            raise ZeroDivisionError("broken data")
        n = memory.get("n", 0)
        if n < self.wants:
            raise NotReady(f"only {n} calls so far")
        drawn = [n + 1, keys.public.rng().random(), keys.secret.rng().random()]
        emitted = np.full(3, np.nan) if len(data) in self.bad else np.array(drawn)
        return {"n": Part({"n": emitted}, float(len(data)))}, {**memory, "n": n + 1}


CHANNELS = {"n": PartSpec(SPEC, into=mean())}
ALL = Close(minimum_fraction=0.0)


def asking(*cohort, key=KEY, version=0, **work):
    return Dispatch(call(**work), cohort, {}, CHANNELS, key, version)


def errands(seed, told):
    """A program that asks at random: cohorts while others are in flight, all kinds of closes and commits."""
    rng = random.Random(seed)
    version = 0
    for number in range(8):
        key = KEY.fold_in(seed, number)
        cohort = (yield Sample(key, count=rng.randrange(1, 5))).cohort
        bad = (5 + 3 * rng.randrange(6),) if rng.random() < 0.3 else ()
        sent = yield asking(*cohort, key=key, version=version, bad=bad)
        role = yield asking("server", key=key.fold_in("role"))
        told.append((yield Collect(role.tickets)))
        goal = rng.choice([None, 1, 2])
        close = Close(goal, rng.choice([None, 0.7, 3.0]), rng.choice([0.0, 0.5, 1.0]))
        named = sent.tickets if rng.random() < 0.5 else None
        got = yield Collect(named, close, version, Discount(0.3))
        told.append(got)
        if got.abandoned is None and got.counted:
            version += 1
            told.append((yield asking(got.parties[0], key=key.fold_in("again"))))
            told.append((yield Collect(told[-1].tickets, ALL)))
        told.append((yield Commit(number, (), {}, got.abandoned)))
    return version


async def shuffled():
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)


def conversing(steps, devices=ideal(), pause=shuffled, **options):
    """Runs steps(runtime, clients) among clients that answer in a random order."""

    async def run():
        async with ClientTasks(Quadratic(), Few(), KEYS, pause=pause) as clients:
            return await steps(ConcurrentSimulation(clients, 6, KEYS, devices, **options), clients)

    return asyncio.run(run())


def facts(told):
    bare = {"memories": {}, "execution": "", "spent": {}}
    return [digest(replace(e, **bare) if hasattr(e, "memories") else e) for e in told]


def memories(told):
    last = {}
    for event in told:
        last |= getattr(event, "memories", {})
    return last


@pytest.mark.parametrize("devices", [ideal(), heavy_tailed(), unstable(0.3, heavy_tailed())], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_message_passing_tells_the_same_as_one_process(seed, devices):
    told, heard, stores = [], [], (InMemory(), InMemory())
    whole = drive(errands(seed, told), simulation(devices=devices), stores[0])

    async def steps(runtime, clients):
        return await adrive(errands(seed, heard), runtime, stores[1])

    assert conversing(steps, devices) == whole
    assert facts(heard) == facts(told)
    assert memories(heard) == memories(told)
    assert [record.usage for record in stores[0].records] == [record.usage for record in stores[1].records]


def test_the_order_of_arrival_changes_nothing():
    async def eager():
        pass

    async def steps(runtime, clients):
        heard = []
        await adrive(errands(3, heard), runtime)
        return facts(heard)

    told = [conversing(steps, unstable(0.2, heavy_tailed()), pause) for pause in (shuffled, shuffled, eager)]
    assert told[0] == told[1] == told[2]


def test_clients_compute_while_the_program_goes_on():
    async def steps(runtime, clients):
        await runtime.perform(asking(0, 1))
        for _ in range(20):
            await asyncio.sleep(0)
        return clients.memory.forks(runtime.snapshot().coordinator.holders)

    assert conversing(steps).keys() == {0, 1}


def test_each_client_has_a_memory_of_its_own():
    async def steps(runtime, clients):
        for cohort in ((0, 1), (1,)):
            sent = await runtime.perform(asking(*cohort))
            await runtime.perform(Collect(sent.tickets))
        committed = await runtime.perform(Commit(1, None, {}))
        sent = await runtime.perform(asking(0, 1, 2))
        got = await runtime.perform(Collect(sent.tickets))
        dropped = await runtime.perform(Commit(2, None, {}, "given up"))
        return committed.memories, got.parties, dropped.memories

    assert conversing(steps) == ({0: {"n": 1}, 1: {"n": 2}}, (0, 1, 2), {})


def test_an_error_at_a_client_ends_the_run_and_says_whose_it_was():
    async def steps(runtime, clients):
        sent = await runtime.perform(asking(0, 3, fails=(14,)))
        await runtime.perform(Collect(sent.tickets))

    with pytest.raises(ZeroDivisionError) as raised:
        conversing(steps)
    assert raised.value.__notes__[0].startswith("while 3 performed call(")


def test_a_client_that_never_answers_is_not_awaited_for_ever():
    async def never():
        await asyncio.Event().wait()

    async def steps(runtime, clients):
        sent = await runtime.perform(asking(2))
        await runtime.perform(Collect(sent.tickets))

    with pytest.raises(NotReady, match=r"2 did not answer ticket 0 within 0\.01 s"):
        conversing(steps, pause=never, wait_s=0.01)


def test_who_is_asked_too_early_answers_when_it_can():
    """After its own next round, as a peer does."""

    async def steps(runtime, clients):
        early = await runtime.perform(asking(2, wants=1))
        other = ConcurrentSimulation(clients, 6, KEYS, owner=2, first_ticket=1000)

        async def later():
            sent = await other.perform(asking(2))
            await other.perform(Collect(sent.tickets))
            await other.perform(Commit(1, None, {}))

        got, _ = await asyncio.gather(runtime.perform(Collect(early.tickets)), later())
        return got.totals["n"].values["n"][0]

    assert conversing(steps) == 2


def test_nobody_is_left_when_the_conversation_ends():
    async def run():
        async with ClientTasks(Quadratic(), Few(), KEYS, pause=shuffled) as clients:
            runtime = ConcurrentSimulation(clients, 6, KEYS)
            await runtime.perform(asking(*range(6)))
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1


def test_it_goes_on_from_a_snapshot():
    """Tickets in flight are sent again; forks of memory are handed back."""
    devices, cut = heavy_tailed(), []

    def commands():
        for number in range(3):
            key = KEY.fold_in(number)
            cohort = yield Sample(key, count=2)
            yield asking(*cohort.cohort, key=key)
            yield Collect(None, Close(goal=1))

    async def step(command, saved):
        async with ClientTasks(Quadratic(), Few(), KEYS, pause=shuffled) as clients:
            runtime = ConcurrentSimulation(clients, 6, KEYS, devices)
            if saved is not None:
                runtime.restore(unpack(saved))
            return await runtime.perform(command), pack(runtime.snapshot())

    whole, told = simulation(devices=devices), []
    for events, perform in ((told, None), (cut, step)):
        program, saved = commands(), None
        command = next(program)
        while command is not None:
            if perform is None:
                event = whole.perform(command)
            else:
                event, saved = asyncio.run(perform(command, saved))
            events.append(event)
            try:
                command = program.send(event)
            except StopIteration:
                command = None
    assert facts(cut) == facts(told)


def test_what_was_built_on_an_abandoned_round_does_not_remember_it():
    async def steps(runtime, clients):
        first = await runtime.perform(asking(1))
        await runtime.perform(Collect(first.tickets))
        await runtime.perform(asking(1, key=KEY.fold_in("later")))
        for _ in range(20):
            await asyncio.sleep(0)
        await runtime.perform(Commit(1, None, {}, "given up"))
        return await runtime.perform(Collect(None))

    got = conversing(steps)
    assert got.counted == () or got["n"].values["n"][0] == 1


def test_what_nobody_counts_is_forgotten():
    async def steps(runtime, clients):
        for _ in range(3):
            sent = await runtime.perform(asking(*range(6)))
            await runtime.perform(Collect(sent.tickets, Close(goal=1)))
            await runtime.perform(Commit(1, None, {}))
        return len(runtime._arrived.messages)

    assert conversing(steps, heavy_tailed()) == 0


def test_stacks_stand_in_the_order_of_the_cohort():
    async def steps(runtime, clients):
        command = Dispatch(call(), (4, 1, 3), {}, {"n": PartSpec(SPEC, into=stack())}, KEY)
        sent = await runtime.perform(command)
        return (await runtime.perform(Collect(sent.tickets)))["n"].values["weight"].tolist()

    assert conversing(steps) == [17, 8, 14]
