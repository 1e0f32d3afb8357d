"""Blocks over absentees: whoever is missing or refused, the tree's bits and the messages' bytes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import hanse
from hanse.core import (
    Algorithm,
    Chain,
    Close,
    Examples,
    Key,
    Keys,
    Learner,
    Part,
    Parts,
    PartSpec,
    Program,
    Spec,
    Tensors,
    Work,
    gather,
    mean,
    value,
)
from hanse.core.exchange import Message, ModelState, Record, pack
from hanse.data import FederatedData, from_clients
from hanse.learners import least_squares
from hanse.simulation import Devices, batched, sequential
from hanse.transforms import deflate

SPEC = Spec.of({"w": np.zeros((3, 2), np.float32), "b": np.zeros(2)})
MOST = 150
REFUSED = 1.0
"""The label of clients that send NaN."""


WEIGHTS = (1.0, 12.0, 123.5, 1234.0, 12345.0, 123456.0, 1234567.0, 1 / 3)
"""Of 3 to 18 digits: messages are padded to multiples of 8 bytes."""


def emitted(x: Any, y: Any) -> Part:
    """What a client sends that has one row: numbers whose sums round, and a weight."""
    at = float(x[0, 0])
    w = np.float32(at) * np.arange(1, 7, dtype=np.float32).reshape(3, 2) / np.float32(3)
    b = np.array([at * 1e3, np.nan if y[0] == REFUSED else 0.0])
    return Part({"w": w, "b": b}, WEIGHTS[int(at * 1e6) % len(WEIGHTS)])


@value(name="emit_row")
class emit_row(Work[Learner, Examples]):
    """Emits what follows from a client's only row."""

    def run(self, learner: Any, shared: Any, data: Examples, memory: Any, keys: Keys) -> Any:
        return {"u": emitted(data.x, data.y)}, memory

    def many(self, learner: Any, shared: Any, data: Any, keys: Any) -> Any:
        parts = [emitted(examples.x, examples.y) for examples in data]
        values = {name: np.stack([part.values[name] for part in parts]) for name in SPEC.tensors}
        return {"u": Parts(values, np.array([part.weight for part in parts]))}


@value(name="mean_of_rows")
class mean_of_rows(Algorithm[ModelState]):
    """The state is the mean of what clients sent in the last round."""

    num_clients: int
    uplink: tuple[Any, ...] = ()

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState({name: np.zeros(v.shape, v.dtype) for name, v in SPEC.tensors.items()})

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        everybody = tuple(range(self.num_clients))
        close = Close(minimum_fraction=0.0)
        got = yield from gather(emit_row(), everybody, {}, key, close=close, u=PartSpec(SPEC, self.uplink))
        return ModelState(got["u"].values)


@value(name="missing")
class missing(Devices):
    """These clients never answer."""

    draws = False
    parties: tuple[int, ...]

    def duration_s(self, party: Any, key: Key) -> float | None:
        return None if party in self.parties else 1.0


def population(num_clients: int, refused: set[int]) -> FederatedData:
    at = np.random.default_rng(num_clients).normal(size=(num_clients, 1, 1))
    labels = [REFUSED if k in refused else 0.0 for k in range(num_clients)]
    return from_clients([Examples(at[k], np.array([labels[k]])) for k in range(num_clients)])


def tree(leaves: dict[int, Any], begin: int, size: int) -> Any:
    """The fixed binary tree over positions: a missing half leaves the other as it is."""
    if size == 1:
        return leaves.get(begin)
    left, right = (tree(leaves, at, size // 2) for at in (begin, begin + size // 2))
    if left is None or right is None:
        return right if left is None else left
    return mean().merge(left, right)


def due_bytes(num_clients: int, here: list[int], data: FederatedData, uplink: Any, round: int) -> int:
    """The packed length of all messages; of tickets, the numbers go on from round to round."""
    chain, total = Chain.bind(SPEC, uplink), 0
    for k in here:
        part, _ = chain.encode(chain.plan(chain.init(), KEY), emitted(*of(data, k)), {}, Keys(KEY, KEY))
        total += len(pack(Message((round - 1) * num_clients + k, {"u": part})))
    return total


def of(data: FederatedData, k: int) -> tuple[Any, Any]:
    return data.client(k).x, data.client(k).y


KEY = Key.from_seed(0)
some = st.sets(st.integers(0, MOST - 1), max_size=MOST)


@pytest.mark.parametrize("uplink", [(), (deflate(),)], ids=["plain", "deflated"])
@pytest.mark.parametrize("execution", [sequential(), batched()], ids=["one by one", "together"])
@settings(max_examples=12, derandomize=True)
@given(
    num_clients=st.integers(1, MOST), absent=some, refused=some.map(lambda k: {n for n in k if n % 3 == 0})
)
def test_blocks_over_absentees(
    execution: Any, uplink: Any, num_clients: int, absent: set[int], refused: set[int]
) -> None:
    here = [k for k in range(num_clients) if k not in absent]
    counted = [k for k in here if k not in refused]
    assume(len(counted) > len(here) / 2)  # where most are refused the run ends
    data, records = population(num_clients, refused), list[Record]()
    result = hanse.run(
        data=data,
        model=least_squares(),
        algorithm=mean_of_rows(num_clients, uplink),
        rounds=2,
        evaluate_every=0,
        devices=missing(tuple(sorted(absent))),
        execution=execution,
        watch=records.append,
    )
    leaves = {k: mean().lift(emitted(*of(data, k))) for k in counted}
    expected = mean().result(tree(leaves, 0, 256)).values
    for name, found in result.params.items():
        assert found.tobytes() == expected[name].tobytes()
    for record in records[-2:]:
        usage = record.usage
        assert (usage.counted, usage.dropped) == (len(counted), num_clients - len(counted))
        assert usage.bytes_up == due_bytes(num_clients, here, data, uplink, record.round)
