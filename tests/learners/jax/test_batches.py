"""Clients computed together in JAX: in the bits of one by one on a processor, and abreast as on a GPU."""

from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg, fed_prox
from hanse.core import (
    Examples,
    InvalidInput,
    Key,
    Learner,
    LocalProblem,
    StepRule,
    Steps,
    adamw_rule,
    sgd_rule,
)
from hanse.data import from_clients
from hanse.learners.engines import jax_engine
from hanse.learners.networks import char_lstm, cnn, mlp
from hanse.learners.own import jax_model
from hanse.simulation import WorkerPool, auto, batched, sequential
from hanse.transforms import quantize

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
layout = pytest.importorskip("hanse.learners.jax.batches")

KEY = Key.from_seed(3)
SIZES = (23, 3, 24)
RNG = np.random.default_rng(0)


def dropping(params: Any, x: Any, key: Any) -> Any:
    return forward(params, x * jax.random.bernoulli(key, 0.5, x.shape))


def forward(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["w"]) @ params["v"] + params["b"]


def init(key: Any) -> Any:
    draws = jax.random.normal(key, (2, 5, 5)) / 3
    return {"w": draws[0], "v": draws[1, :, :3], "b": jnp.zeros(())}


def rows(n: int) -> Examples:
    return Examples(RNG.normal(size=(n, 5)).astype(np.float32), RNG.integers(3, size=n))


def images(n: int) -> Examples:
    return Examples(RNG.normal(size=(n, 4, 4)).astype(np.float32), RNG.integers(3, size=n))


def texts(n: int) -> Examples:
    return Examples(RNG.integers(7, size=(n, 6)), RNG.integers(7, size=(n, 6)))


MODELS: dict[str, tuple[Learner, Any]] = {
    "mlp": (mlp((16, 16)).bind((5,), 3), rows),
    "float64": (mlp((8,), l2=0.1, dtype="float64").bind((5,), 3), rows),
    "cnn": (cnn((2, 2), kernel=3, hidden=3, engine=jax_engine()).bind((4, 4), 3), images),
    "lstm": (char_lstm(7, embedding=3, hidden=5, engine=jax_engine()).bind((6,), None), texts),
    "own": (jax_model(init, forward).bind((5,), 3), rows),
    "dropout": (jax_model(init, forward, train=dropping).bind((5,), 3), rows),
}
STEPS = {
    "small batches": Steps(0.1, epochs=2, batch_size=4),
    "full batches": Steps(0.1, epochs=3),
    "proximal": Steps(0.1, epochs=2, batch_size=10, proximal=0.7),
}
RULES = {
    "momentum": Steps(0.1, epochs=2, batch_size=4, rule=sgd_rule(0.9, 0.1)),
    "adamw": Steps(0.1, batch_size=4, num_steps=7, rule=adamw_rule(), lr_scales={"hidden1": 0.5}),
}
by_steps = pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
by_model = pytest.mark.parametrize(("learner", "make"), MODELS.values(), ids=MODELS.keys())


def both(learner: Any, make: Any, steps: Steps) -> tuple[Any, list[Any]]:
    """Together, and one by one."""
    data, keys = [make(n) for n in SIZES], [KEY.fold_in(n) for n in SIZES]
    params = learner.init(KEY)
    problems = [LocalProblem(d, steps, key) for d, key in zip(data, keys, strict=True)]
    alone = [learner.local_sgd(params, problem) for problem in problems]
    return learner.local_sgd_many(params, problems), alone


@by_steps
@by_model
def test_together_in_the_bits_of_one_by_one(learner: Any, make: Any, steps: Steps) -> None:
    together, alone = both(learner, make, steps)
    for i, update in enumerate(alone):
        assert together.keys() == update.keys()
        for name, value in update.items():
            assert together[name][i].tobytes() == value.tobytes(), (SIZES[i], name)


@pytest.mark.parametrize("steps", RULES.values(), ids=RULES.keys())
def test_a_rule_keeps_its_bits_together(steps: Steps) -> None:
    together, alone = both(*MODELS["mlp"], steps)
    for i, update in enumerate(alone):
        for name, value in update.items():
            assert together[name][i].tobytes() == value.tobytes(), (SIZES[i], name)


@pytest.mark.parametrize("rule", [adamw_rule(), sgd_rule(0.9)], ids=str)
def test_what_a_rule_remembers_passes_from_call_to_call(
    monkeypatch: pytest.MonkeyPatch, rule: StepRule
) -> None:
    learner, make = MODELS["mlp"]
    params, problem = learner.init(KEY), LocalProblem(make(23), Steps(0.1, 5, 4, rule=rule), KEY)
    expected = learner.local_sgd(params, problem)
    monkeypatch.setattr("hanse.learners.jax.batches.AT_ONCE_BYTES", 1)
    for name, value in learner.local_sgd(params, problem).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.learners.jax.learner.can_vmap", lambda: True)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        *((name, "small batches") for name in MODELS),
        ("mlp", "full batches"),
        ("float64", "proximal"),
        ("float64", "momentum"),
        ("mlp", "adamw"),
    ],
)
def test_abreast_within_rounding(as_on_a_gpu: None, name: str, steps: str) -> None:
    learner, make = MODELS[name]
    together, alone = both(learner, make, (STEPS | RULES)[steps])
    close = 1e-12 if learner.dtype == "float64" else 1e-6
    for i, update in enumerate(alone):
        for name, value in update.items():
            assert together[name][i].dtype == value.dtype
            np.testing.assert_allclose(together[name][i], value, rtol=close, atol=close, err_msg=name)


def test_many_epochs_are_laid_out_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, make = MODELS["dropout"]
    data, steps, params = make(23), Steps(0.1, epochs=5, batch_size=4), learner.init(KEY)
    due = learner.local_sgd(params, LocalProblem(data, steps, KEY))
    monkeypatch.setattr(layout, "AT_ONCE_BYTES", 2 * (data.x.nbytes + data.y.nbytes))
    got = learner.local_sgd(params, LocalProblem(data, steps, KEY))
    for name, value in due.items():
        assert got[name].tobytes() == value.tobytes()


def test_what_is_laid_out_is_taken_without_a_copy() -> None:
    x, y = np.ones((23, 5), np.float32), np.arange(23, dtype=np.int32)
    batches = layout.schedule(MODELS["mlp"][0].program, 23, Steps(0.1, 2, 4), KEY)  # type: ignore[attr-defined]
    for values, *_ in layout.in_order(x, y, batches, "float32"):
        features, labels, _ = values
        for laid in (features, labels):
            assert jax.device_put(laid).unsafe_buffer_pointer() == laid.ctypes.data


Laid = tuple[Any, Any, Any]


def lay_out(sizes: Any, steps: Steps) -> list[Laid]:
    program = MODELS["mlp"][0].program  # type: ignore[attr-defined]
    return [
        (np.full((n, 5), n, np.float32), np.full(n, n), layout.schedule(program, n, steps, KEY.fold_in(n)))
        for n in sizes
    ]


@pytest.mark.parametrize("batch_size", [None, 4, 10])
def test_clients_of_like_work_stand_abreast(batch_size: int | None) -> None:
    program, steps = MODELS["mlp"][0].program, Steps(0.1, 3, batch_size)  # type: ignore[attr-defined]
    sizes = np.random.default_rng(1).integers(1, 500, 60).tolist()
    clients = lay_out(sizes, steps)
    x, y = layout.join_examples(clients)
    assert len(x) == len(y) == 1 << (sum(sizes) - 1).bit_length()
    groups = list(layout.group_for_vmap(program, clients, "float32"))
    assert sorted(i for group in groups for i in group.members) == list(range(60))
    work = [c.width * c.num_steps for _, _, c in clients]
    done = [len(g.rows) * g.rows.shape[2] * int(g.num_steps.max()) for g in groups]
    assert sum(done) <= 2 * sum(work)
    for group in groups:
        for at, i in enumerate(group.members):
            n, own = sizes[i], clients[i][2]
            assert (group.num_batches[at], group.num_steps[at]) == (own.num_batches, own.num_steps)
            assert group.num_steps[at] == steps.count_steps(n)
            taken = group.rows[at, : own.num_batches][group.weights[at, : own.num_batches] > 0]
            assert (y[taken] == n).all()  # its own examples, each as often as it has epochs
            assert np.bincount(taken).max() == len(own.epochs)
            assert len(taken) == n * len(own.epochs)
            np.testing.assert_allclose(group.weights[at, : own.num_batches].sum(1), 1, rtol=1e-6)
        assert not group.num_steps[len(group.members) :].any()
        assert not group.weights[len(group.members) :].any()


def test_clients_of_equal_work_all_stand_abreast() -> None:
    program, steps = MODELS["mlp"][0].program, Steps(0.1, 3, 10)  # type: ignore[attr-defined]
    (group,) = layout.group_for_vmap(program, lay_out([60] * 50, steps), "float32")
    assert group.rows.shape == (64, 64, 10)  # 18 batches each
    (alone,) = layout.group_for_vmap(program, lay_out([60] * 3, steps), "float32")
    assert alone.rows.shape == (4, 64, 10)


def test_batches_that_are_computed_in_parts_split_into_equal_ones() -> None:
    program = MODELS["cnn"][0].program  # type: ignore[attr-defined]
    assert [program.pad_lanes(n) for n in (3, 9, 100, 128, 129, 300, 700)] == [
        8,
        16,
        128,
        128,
        256,
        512,
        1024,
    ]
    assert program.rows_at_once == 128


UNEQUAL = (np.random.default_rng(2).lognormal(4, 1, 40).astype(int) + 1).tolist()


@pytest.mark.parametrize("num_clients", [20, 40])
@pytest.mark.parametrize(("batch_size", "most"), [(10, 3), (50, 2), (None, 8)])
def test_unequal_clients_share_a_handful_of_shapes(
    batch_size: int | None, most: int, num_clients: int
) -> None:
    program, steps = MODELS["mlp"][0].program, Steps(0.1, 2, batch_size)  # type: ignore[attr-defined]
    rng, shapes = np.random.default_rng(0), set()
    assert max(UNEQUAL) > 20 * min(UNEQUAL)
    for _ in range(8):
        clients = lay_out(rng.permutation(UNEQUAL)[:num_clients].tolist(), steps)
        num_rows = len(layout.join_examples(clients)[0])
        groups = layout.group_for_vmap(program, clients, "float32")
        shapes |= {(num_rows, group.rows.shape) for group in groups}
    assert len(shapes) <= most, shapes


def test_padding_abreast_changes_no_bit_and_one_shape_is_compiled_once(
    as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More examples behind the clients' own, and more batches that they never reach."""
    programs = pytest.importorskip("hanse.learners.jax.programs")
    learner, make = MODELS["mlp"]
    params = learner.init(KEY)

    def train(*sizes: int) -> Any:
        problems = [LocalProblem(make(n), Steps(0.1, 2, 4), KEY.fold_in(n)) for n in sizes]
        return problems, learner.local_sgd_many(params, problems)  # type: ignore[attr-defined]

    programs.descend_lanes.clear_cache()
    train(22, 5, 21, 11)
    problems, due = train(23, 3, 24, 9)
    assert programs.descend_lanes._cache_size() == 1
    monkeypatch.setattr(layout, "LEAST_BATCHES", 128)
    monkeypatch.setattr(layout, "power_of_two", lambda size: 2 * programs.power_of_two(size))
    padded = learner.local_sgd_many(params, problems)  # type: ignore[attr-defined]
    assert programs.descend_lanes._cache_size() == 2
    for name, value in due.items():
        assert value.tobytes() == padded[name].tobytes()


# In a run

DATA = from_clients([rows(n) for n in (23, 3, 24, 22, 4, 3, 24, 23, 21, 1)], test=rows(50))


def run(way: Any, **options: Any) -> hanse.Result:
    settings: dict[str, Any] = {
        "algorithm": fed_avg(lr=0.1, fraction=1.0, epochs=2, batch_size=4),
        "rounds": 2,
    }
    return hanse.run(data=DATA, model=mlp((16,)), execution=way, **{**settings, **options})


@pytest.mark.parametrize(
    "algorithm",
    [
        fed_avg(lr=0.1, fraction=1.0, epochs=2, batch_size=4),
        fed_avg(lr=0.1, fraction=1.0, uplink=(quantize(4),)),
        fed_prox(lr=0.1, mu=0.1, fraction=1.0, batch_size=4),
    ],
)
def test_a_run_together_ends_in_the_bits_of_one_by_one(algorithm: Any) -> None:
    due, got = (run(way, algorithm=algorithm) for way in (sequential(), batched()))
    assert got.params_sha256 == due.params_sha256
    assert [record.usage for record in got.records] == [record.usage for record in due.records]
    assert got.records[-1].execution == "one process, together"


def test_a_run_abreast_is_within_rounding_and_its_bits_depend_on_no_clock(
    as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, got = (run(way, rounds=1) for way in (sequential(), batched()))
    for start_s in (0.0, 1e6):
        monkeypatch.setattr(WorkerPool, "start_s", start_s)
        again = run(auto(2), rounds=1)
        assert again.params_sha256 == got.params_sha256
        assert again.records[-1].execution == "one process, together"
    for name, value in due.params.items():
        np.testing.assert_allclose(got.params[name], value, rtol=1e-5, atol=1e-6)


def test_updates_that_would_take_much_memory_are_computed_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hanse.learners.jax.learner.MOST_BYTES", 100)
    learner, make = MODELS["mlp"]
    problems = [LocalProblem(make(n), Steps(0.1), KEY) for n in (3, 4)]
    assert learner.local_sgd_many(learner.init(KEY), problems) is None
    assert "together" not in run(batched()).records[1].execution


def test_examples_that_can_not_be_used_are_refused_together_too() -> None:
    learner, make = MODELS["mlp"]
    wrong = Examples(np.full((2, 5), np.nan, np.float32), np.zeros(2, int))
    with pytest.raises(InvalidInput, match="is nan"):
        learner.local_sgd_many(
            learner.init(KEY), [LocalProblem(d, Steps(0.1), KEY) for d in (make(3), wrong)]
        )
