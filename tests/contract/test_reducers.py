"""What every reducer owes: the same bits in whatever blocks, from disk or memory; messages left alone."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rules import RULES

from hanse.core import Part, Parts, Reducer, each, fixed_mean, mean, reduce, stack
from hanse.core import sum as sum_
from hanse.core.exchange import Stored, TreeFold, digest, find_classes, pack, unpack
from hanse.core.layout import Mapped
from hanse.robust import cosine_trust

REDUCERS: dict[str, Reducer[Any]] = {
    "mean": mean(),
    "sum": sum_(),
    "fixed_mean": fixed_mean(8.0),
    "stack": stack(),
    "each": each(),
    "cosine_trust": cosine_trust(),
    **RULES,
}

every_reducer = pytest.mark.parametrize("reducer", REDUCERS.values(), ids=REDUCERS.keys())


def make_parts(n: int = 11, size: int = 7) -> list[Part]:
    rng = np.random.default_rng(n)
    return [
        Part({"w": rng.normal(size=(size, 2)).astype(np.float32), "b": rng.normal(size=())}, float(1 + k % 3))
        for k in range(n)
    ]


def in_blocks(reducer: Reducer[Any], parts: list[Part], size: int, *, many: bool = False) -> Any:
    """Folds aligned blocks of positions by themselves, as worker processes do, and then the blocks."""
    whole = TreeFold(reducer)
    for begin in range(0, len(parts), size):
        some = parts[begin : begin + size]
        stacked = Parts(
            {name: np.stack([part.values[name] for part in some]) for name in some[0].values},
            np.array([part.weight for part in some]),
        )
        block = reducer.lift_many(stacked) if many else None
        if block is None:
            fold = TreeFold(reducer)
            for i, part in enumerate(some):
                fold.lift(begin + i, part)
            block = fold.accumulator()
        whole.add(begin, pickle.loads(pickle.dumps(block)))
    return whole.result()


@every_reducer
@pytest.mark.parametrize("many", [False, True], ids=["one by one", "at once"])
def test_blocks_end_in_the_same_bits(reducer: Reducer[Any], many: bool) -> None:
    parts = make_parts()
    due = digest(reduce(reducer, parts))
    assert {digest(in_blocks(reducer, parts, size, many=many)) for size in (1, 4, 16)} == {due}


@every_reducer
def test_messages_on_disk_end_in_the_same_bits(
    reducer: Reducer[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanse.core.layout.MAPPED_BYTES", 1)
    monkeypatch.setattr("hanse.robust.rows.READ_VALUES", 11 * 3000)
    parts = make_parts(size=5000)  # more than are read or sorted at a time
    for k, part in enumerate(parts):
        (tmp_path / str(k)).write_bytes(pack(part))
    fold, paths = TreeFold(reducer), [tmp_path / str(k) for k in range(len(parts))]
    for k, path in enumerate(paths):
        part = unpack(Stored(path), Part)
        assert isinstance(part.values, Mapped)
        fold.lift(k, part)
        del part
    assert digest(fold.result()) == digest(reduce(reducer, parts))


@every_reducer
def test_messages_are_left_as_they_were(reducer: Reducer[Any]) -> None:
    parts = make_parts()
    before = digest(tuple(parts))
    for part in parts:
        for values in part.values.values():
            values.flags.writeable = False
    total = reduce(reducer, parts)
    assert digest(tuple(parts)) == before
    assert total.count == len(parts)
    assert all(0 <= i < len(parts) for i in total.left_out)


@every_reducer
def test_it_is_a_value_with_a_disclosure(reducer: Reducer[Any]) -> None:
    assert unpack(pack(reducer)) == reducer
    assert reducer.disclosure.count("server") == 1


def test_cases_cover_all_reducers() -> None:
    ours = {name for name, cls in find_classes(Reducer).items() if cls.__module__.startswith("hanse.")}
    hiding = {
        "secure_sum",
        "secure_mean",
        "encrypted_sum",
        "encrypted_mean",
        "add_residues",
    }  # see tests/privacy
    assert ours - {"moments", "tally"} - hiding <= {type(reducer).__name__ for reducer in REDUCERS.values()}
