"""A program over parties that have names; child processes of clients import it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hanse.core import (
    Algorithm,
    Close,
    Contribution,
    InvalidInput,
    Key,
    Keys,
    Memory,
    ModelState,
    Part,
    PartSpec,
    PartyId,
    Population,
    Program,
    Shared,
    Spec,
    Tensors,
    Work,
    gather,
    sample,
    value,
)
from hanse.core.exchange import Collect, Dispatch, InMemory, NotReady, PartyMemory, Progress, digest, training
from hanse.simulation import Devices, InProcess, Simulation, ideal

KEYS = Keys.from_seed(30)
NUM_CLIENTS, ROUNDS = 3, 4
PARTIES = ("hospital",)
EVERYBODY: tuple[PartyId, ...] = (0, 1, 2, "hospital")


class Houses(Population):
    """Three clients, a hospital, and the server; each holds a table of numbers."""

    num_clients = NUM_CLIENTS

    def client(self, number: int) -> Any:
        return KEYS.public.fold_in("data", number).rng().normal(size=(5, 3))

    def role(self, name: str) -> Any:
        if name not in ("server", *PARTIES):
            raise InvalidInput(f"role {name!r} holds nothing")
        return KEYS.public.fold_in("data", name).rng().normal(size=(4, 3))

    def of(self, party: PartyId) -> Any:
        return self.client(party) if isinstance(party, int) else self.role(party)


@value
class visit_house(Work[Any, Any]):
    """Mixes what it is sent with its own numbers, a draw, and its count of visits.

    Args:
      fails: the fraction of tickets, drawn anew in each attempt, whose answer the server refuses.
    """

    fails: float = 0.0

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        visits = memory.get("visits", 0) + 1
        drawn = keys.public.rng().normal(size=3)
        refused = keys.public.fold_in("fails").rng().random() < self.fails
        moved = {"w": 0.5 * shared["params"]["w"] + visits * data.mean(axis=0) + drawn}
        return {"update": Part(moved, weight=1e9 if refused else 1.0)}, {"visits": visits}


EARLY: dict[str, Any] = {}
"""By the sums of parties' data: a function that says whether a result exists yet."""


def key_of(data: Any) -> str:
    return f"{data.sum():.6f}"


@value
class visit_later(visit_house):
    """Changes its memory, and then finds that its result does not exist yet, where `EARLY` says so."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        done = super().run(learner, shared, data, memory, keys)
        if not EARLY.get(key_of(data), lambda: True)():
            raise NotReady("it does not exist yet")
        return done


@value
class never_ready(Work[Any, Any]):
    """Has no result yet, whenever it is asked."""

    def run(self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys) -> Any:
        raise NotReady("it does not exist yet")


@value
class around(Algorithm[ModelState]):
    """Each round: one exchange with the clients and the server, then one with the hospital."""

    work: visit_house = visit_house()
    close: Close = Close(minimum_fraction=1.0, wait_s=600.0)
    cohorts: tuple[tuple[PartyId, ...], ...] = (("server", 0, 1, 2), ("hospital",))

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        params = state.params
        for number, cohort in enumerate(self.cohorts):
            got = yield from gather(
                self.work,
                cohort,
                {"params": params},
                key.fold_in("exchange", number),
                close=self.close,
                update=PartSpec(Spec.of(params)),
            )
            params = got["update"].values
        return ModelState(params)


@value
class beside(Algorithm[ModelState]):
    """Each round: samples half of two clients, asks both by their names, and then those sampled."""

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        sampled = (yield from sample(key, fraction=0.5)).cohort
        params = state.params
        for name, cohort in (("named", (0, 1)), ("sampled", sampled), ("named again", (0, 1))):
            spec = PartSpec(Spec.of(params))
            got = yield from gather(visit_house(), cohort, {"params": params}, key.fold_in(name), update=spec)
            params = got["update"].values
        return ModelState(params)


@value
class ahead(Algorithm[ModelState]):
    """Each round sends a party two works, one after the other, and then collects both."""

    party: PartyId
    work: visit_house = visit_house()

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        uplink, tickets = {"update": PartSpec(Spec.of(state.params))}, list[int]()
        for number in range(2):
            shared, own = {"params": state.params}, key.fold_in("work", number)
            tickets += (yield Dispatch(self.work, (self.party,), shared, uplink, own)).tickets
        got = yield Collect(tuple(tickets), Close(minimum_fraction=1.0, wait_s=600.0))
        return ModelState(got.totals["update"].values)


def begin(algorithm: Any) -> Progress[Any]:
    return Progress(0, algorithm.init({"w": np.zeros(3)}, KEYS.public))


def measure(params: Tensors, key: Key) -> Program[Mapping[str, float]]:
    """Measures without asking anybody."""
    yield from ()
    return {"norm": float(np.linalg.norm(params["w"]))}


def program(algorithm: Any, progress: Progress[Any], rounds: int = ROUNDS) -> Any:
    return training(algorithm, progress, KEYS.public, rounds=rounds, evaluate=measure)


def lead_on(algorithm: Any, store: InMemory, rounds: int = ROUNDS) -> Any:
    """The program from where a store has it."""
    saved = store.checkpoint()
    return program(algorithm, saved.state if saved else begin(algorithm), rounds)


def simulation(store: InMemory, devices: Devices = ideal(), parties: Any = PARTIES) -> Simulation:
    memory = PartyMemory(store.memory)
    return Simulation(InProcess(None, Houses(), KEYS), NUM_CLIENTS, KEYS, devices, memory, parties=parties)  # type: ignore[arg-type]


def sha256(params: Tensors) -> str:
    return digest(dict(params))
