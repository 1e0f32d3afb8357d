"""Every transform, and every engine, over HTTPS: the bits and the bytes of the simulation."""

from collections.abc import Iterator
from typing import Any

import pytest
from federation import Federation, federation, job, simulated

from hanse.algorithms import fed_avg
from hanse.core import Transform
from hanse.core.exchange import Record, find_classes
from hanse.learners import cnn, jax_engine, mlp, softmax, torch_engine
from hanse.transforms import (
    cast,
    clip,
    deflate,
    low_rank,
    none,
    out_last,
    per_block,
    per_client,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
    train_a,
    train_both,
)

UPLINKS: dict[str, tuple[Transform, ...]] = {
    "256x": (subsample(0.0625), rotate(), quantize(2)),
    "256x, of a round": (
        subsample(0.0625, drawn=per_round()),
        rotate(drawn=per_round()),
        quantize(2, per_block(16)),
        deflate(),
    ),
    "mask": (random_mask(0.25),),
    "mask of a round": (random_mask(0.25, drawn=per_round()), rotate(), quantize(4)),
    "B trained": (low_rank(2, layout=out_last()),),
    "A trained": (low_rank(2, factors=train_a(), drawn=per_round(), layout=out_last()),),
    "both trained": (low_rank(2, factors=train_both(), layout=out_last()), quantize(8)),
    "subsample": (subsample(0.25, drawn=per_client()),),
    "1 bit": (quantize(1),),
    "rotate": (rotate(drawn=per_client()),),
    "top k": (top_k(0.05),),
    "top k, forgetful": (top_k(0.05, residual=none()), quantize(4), deflate()),
    "sign": (sign(),),
    "sign of blocks, forgetful": (sign(per_block(16), none()), deflate()),
    "clip": (clip(0.5), cast("float16")),
    "cast": (cast("bfloat16"), deflate()),
}
CONVOLVED = cnn((2, 3), kernel=3, hidden=8)
ENGINES: dict[str, tuple[Any, tuple[Transform, ...]]] = {
    "numpy": (softmax(), ()),
    "jax": (mlp((8,), engine=jax_engine()), ()),
    "torch": (CONVOLVED, ()),
    "jax, within a mask": (mlp((8,), engine=jax_engine()), (random_mask(0.25), quantize(8))),
    "torch, within factors": (CONVOLVED, (low_rank(2),)),
    "torch, a sketch": (mlp((8,), engine=torch_engine()), (subsample(0.25), rotate(), quantize(2))),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """One federation performs all runs."""
    with federation(tmp_path_factory.mktemp("federation"), stay=True) as here:
        here.enter()
        yield here


def check(here: Federation, model: Any, uplink: tuple[Transform, ...]) -> None:
    """A run over the network, and then simulated; its second round begins with what clients remember."""
    algorithm = fed_avg(lr=0.1, fraction=0.8, batch_size=50, uplink=uplink)
    before = len(here.records)
    result = here.end(here.lead(job(algorithm, 2, model=model)), timeout_s=90.0)
    ours: list[Record] = []
    assert result["params_sha256"] == simulated(algorithm, 2, model=model, watch=ours.append)
    theirs = here.records[before:]
    assert [r.usage.bytes_up for r in theirs] == [r.usage.bytes_up for r in ours]
    assert [dict(r.metrics) for r in theirs] == [dict(r.metrics) for r in ours]
    assert all(r.usage.bytes_up for r in theirs[1:])


def test_these_are_all_transforms() -> None:
    ours = {
        name for name, c in find_classes(Transform).items() if c.__module__.startswith("hanse.transforms")
    }
    assert ours == {type(transform).__name__ for uplink in UPLINKS.values() for transform in uplink}


@pytest.mark.parametrize("uplink", UPLINKS.values(), ids=UPLINKS.keys())
def test_a_compressed_run_is_the_simulated_one(here: Federation, uplink: tuple[Transform, ...]) -> None:
    check(here, softmax(), uplink)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_ends_in_the_bits_of_the_simulation(here: Federation, engine: str) -> None:
    pytest.importorskip("jax" if "jax" in engine else "torch" if "torch" in engine else "numpy")
    check(here, *ENGINES[engine])
