"""What parties may hold, in a module that worker processes import.

Three parties of one table: two hold columns, one the labels. And patients whose head of a model is private.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from support import KEYS

from hanse.core import (
    Algorithm,
    Array,
    Contribution,
    InvalidInput,
    Key,
    Keys,
    Memory,
    ModelState,
    OwnLearners,
    Part,
    PartSpec,
    PartyId,
    Population,
    Program,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    collect,
    dispatch,
    gather,
    mean,
    own_test,
    player,
    sample,
    stack,
    value,
)
from hanse.core import sum as sum_
from hanse.simulation import InProcess

# -- one table over three parties ----------------------------------------------------------------

NUM_ROWS, WIDTHS, LR = 40, (3, 2), 0.1
FEATURE_PARTIES, LABEL_PARTY, LABEL_HOLDER = (0, 1), 2, "label_holder"


@dataclass(frozen=True)
class Columns:
    """Some columns of a table, and the ids of its rows, in the order of this party."""

    ids: Array
    x: Array

    def __len__(self) -> int:
        return len(self.ids)


class Table(Population[Columns | Array]):
    """Two parties hold columns, each in an order of its own; the third holds one label for each id."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.x = rng.normal(size=(NUM_ROWS, sum(WIDTHS)))
        self.y = self.x @ rng.normal(size=sum(WIDTHS)) + rng.normal(size=NUM_ROWS)
        self.ids = [rng.permutation(NUM_ROWS) for _ in WIDTHS]

    @property
    def num_clients(self) -> int:
        return 3

    def client(self, number: int) -> Columns | Array:
        if number == LABEL_PARTY:
            return self.y
        first = sum(WIDTHS[:number])
        columns = self.x[:, first : first + WIDTHS[number]]
        return Columns(self.ids[number], columns[self.ids[number]])

    def role(self, name: str) -> Columns | Array:
        if name != LABEL_HOLDER:
            raise InvalidInput(f"{name!r} holds nothing")
        return self.y

    def pooled(self, num_steps: int) -> Array:
        """The weights of gradient descent on the whole table."""
        w = np.zeros(sum(WIDTHS))
        for _ in range(num_steps):
            w = w - LR * self.x.T @ (self.x @ w - self.y) / NUM_ROWS
        return w


class Scores:
    """The learner of a party with columns: a linear model of just so many."""

    def __init__(self, data: Columns) -> None:
        self.width, self.rows = data.x.shape[1], np.argsort(data.ids)

    def init(self) -> Array:
        return np.zeros(self.width)

    def scores(self, w: Array, data: Columns) -> Array:
        return (data.x @ w)[self.rows]

    def gradient(self, residual: Array, data: Columns) -> Array:
        return np.asarray(data.x[self.rows].T @ residual / len(data))


class Squares:
    """The learner of the party with labels."""

    def residual(self, scores: Array, labels: Array) -> Array:
        return scores - labels


def make_learner(party: PartyId, data: Columns | Array) -> Scores | Squares:
    if len(data) != NUM_ROWS:
        raise InvalidInput(f"{party!r} holds {len(data)} rows; {NUM_ROWS} are needed")
    return Scores(data) if isinstance(data, Columns) else Squares()


@value
class partial_scores(Work[Scores, Columns]):
    def run(
        self, learner: Scores, shared: Shared, data: Columns, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        w = memory.get("w", learner.init())
        return {"scores": Part({"scores": learner.scores(w, data)})}, memory


@value
class residuals(Work[Squares, Array]):
    def run(
        self, learner: Squares, shared: Shared, data: Array, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        residual = learner.residual(shared["total"]["scores"], data)
        return {"residual": Part({"residual": residual})}, memory


@value
class descend(Work[Scores, Columns]):
    lr: float

    def run(
        self, learner: Scores, shared: Shared, data: Columns, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        w = memory.get("w", learner.init())
        w = w - self.lr * learner.gradient(shared["down"]["residual"], data)
        return {"moved": Part({"steps": np.ones(())})}, {"w": w}


@value
class vertical_descent(Algorithm[ModelState]):
    """Least squares over columns of several parties: scores go up, the residual comes down, weights stay."""

    label_party: PartyId = LABEL_PARTY

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        rows = Spec({"scores": TensorSpec((NUM_ROWS,), "float64")})
        scores = PartSpec(rows, into=sum_())
        up = yield from gather(partial_scores(), FEATURE_PARTIES, {}, key.fold_in("up"), scores=scores)
        residual = PartSpec(Spec({"residual": TensorSpec((NUM_ROWS,), "float64")}), into=sum_())
        total = {"total": up["scores"].values}
        turn = yield from gather(
            residuals(), (self.label_party,), total, key.fold_in("turn"), residual=residual
        )
        down = {"down": turn["residual"].values}
        moved = PartSpec(Spec({"steps": TensorSpec((), "float64")}), into=sum_())
        yield from gather(descend(LR), FEATURE_PARTIES, down, key.fold_in("down"), moved=moved)
        return ModelState({"residual": turn["residual"].values["residual"]})


VERTICAL, NO_RESIDUAL = vertical_descent(), {"residual": np.zeros(NUM_ROWS)}
BY_LABEL_HOLDER = vertical_descent(LABEL_HOLDER)


def table_backend() -> InProcess:
    return InProcess(OwnLearners(make_learner), Table(), KEYS)


# -- private heads -------------------------------------------------------------------------------

NUM_CLIENTS, NUM_FEATURES, NUM_HIDDEN, NUM_CLASSES = 4, 5, 3, 3
TESTED = tuple(map(own_test, range(NUM_CLIENTS)))
FALLS_OUT = {1: 2, 3: 1}
"""The client whose ticket is dropped, by round: its message is not finite."""


@dataclass(frozen=True)
class Patients:
    """Rows and labels, and the round in which the client's message is spoilt."""

    x: Array
    y: Array
    spoilt: int

    def __len__(self) -> int:
        return len(self.y)


class Clinics(Population[Patients]):
    """Each clinic has labels of its own kind: one head would not serve them all."""

    @property
    def num_clients(self) -> int:
        return NUM_CLIENTS

    def client(self, number: int) -> Patients:
        return self._draw(number, 20 + 3 * number)

    def role(self, name: str) -> Patients:
        number = player(name)
        if number is None:
            raise InvalidInput(f"{name!r} holds nothing")
        return self._draw(number, 11, "test")

    def _draw(self, number: int, rows: int, *kind: str) -> Patients:
        rng = KEYS.public.fold_in("clinic", number, *kind).rng()
        x = rng.normal(size=(rows, NUM_FEATURES))
        spoilt = [round for round, client in FALLS_OUT.items() if client == number]
        return Patients(x, (x[:, :NUM_CLASSES].argmax(axis=1) + number) % NUM_CLASSES, *spoilt or [0])


def first_body() -> Tensors:
    return {"body": KEYS.public.fold_in("body").rng().normal(size=(NUM_FEATURES, NUM_HIDDEN))}


def first_head() -> Array:
    return KEYS.public.fold_in("head").rng().normal(size=(NUM_HIDDEN, NUM_CLASSES))


def loss(body: Array, head: Array, data: Patients) -> tuple[float, Array]:
    """The mean loss of a linear softmax, and its slopes by the scores."""
    scores = data.x @ body @ head
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    rows = np.arange(len(data))
    found = float(-np.log(probabilities[rows, data.y]).mean())
    probabilities[rows, data.y] -= 1
    return found, np.asarray(probabilities / len(data))


@value
class train_head_and_body(Work[Any, Patients]):
    """Trains body and head; the body leaves, the head stays."""

    def run(
        self, learner: Any, shared: Shared, data: Patients, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        body, head = shared["params"]["body"], memory.get("head", first_head())
        for _ in range(3):
            _, slopes = loss(body, head, data)
            down, back = (data.x @ body).T @ slopes, data.x.T @ slopes @ head.T
            head, body = head - 0.5 * down, body - 0.5 * back
        if int(shared["params"]["round"]) == data.spoilt:
            body = body * np.nan
        return {"body": Part({"body": body}, float(len(data)))}, {"head": head}


@value
class measure_head(Work[Any, Patients]):
    """Measures the client's head on its own tests; spoils what it was given of the memory."""

    def run(
        self, learner: Any, shared: Shared, data: Patients, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        found, _ = loss(shared["params"]["body"], memory.get("head", first_head()), data)
        return {"loss": Part({"loss": np.asarray(found)})}, {"head": first_head() * 0, "more": 1}


@value
class fed_per(Algorithm[ModelState]):
    """FedPer: one body for all, and a head for each. A round begins by measuring what the last one left.

    References: Arivazhagan, Aggarwal, Singh, Choudhary, "Federated Learning with Personalization Layers",
    2019, arXiv 1912.00818.
    """

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState({**params, "round": np.zeros(()), "losses": np.zeros(NUM_CLIENTS)})

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        params = {"params": {"body": state.params["body"], "round": state.params["round"] + 1}}
        losses = PartSpec(Spec({"loss": TensorSpec((), "float64")}), into=stack())
        seen = yield from gather(measure_head(), TESTED, params, key.fold_in("measure"), loss=losses)
        cohort = (yield from sample(key, fraction=1.0)).cohort
        body = PartSpec(Spec({"body": TensorSpec((NUM_FEATURES, NUM_HIDDEN), "float64")}), into=mean())
        got = yield from gather(train_head_and_body(), cohort, params, key.fold_in("train"), body=body)
        number = params["params"]["round"]
        return ModelState({**got["body"].values, "round": number, "losses": seen["loss"].values["loss"]})


FED_PER = fed_per()


def clinics_backend() -> InProcess:
    return InProcess(None, Clinics(), KEYS)


# -- promises ------------------------------------------------------------------------------------

COUNTS = {"count": PartSpec(Spec({"n": TensorSpec((), "float64")}), into=sum_())}


@value
class promise(Work[Any, Any]):
    """Makes a promise, with an answer that the server refuses, or says whether one holds."""

    makes: bool

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        found = {"n": np.asarray(float("!asked" in memory))}
        if self.makes:
            return {"count": Part(found, weight=1e9)}, {**memory, "!asked": 1}
        return {"count": Part(found)}, memory


@value
class promises(Algorithm[ModelState]):
    """In odd rounds clients make promises in tickets that are dropped, and their test roles are counted.

    In even rounds it adds up the promises that hold.
    """

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState({"round": np.zeros(()), "kept": np.zeros(())})

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        number, kept = state.params["round"] + 1, state.params["kept"]
        clients = tuple(range(NUM_CLIENTS))
        if number % 2:
            asked = yield from dispatch(promise(True), clients, {}, key.fold_in("promise"), **COUNTS)
            yield from collect(asked.tickets)  # none is counted, or no promise would hold in the next round
            yield from gather(promise(False), TESTED, {}, key.fold_in("test"), **COUNTS)
        else:
            found = yield from gather(promise(False), clients, {}, key.fold_in("look"), **COUNTS)
            kept = kept + found["count"].values["n"]
        return ModelState({"round": number, "kept": kept})
