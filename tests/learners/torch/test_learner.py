from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hanse.algorithms import evaluation, fed_avg
from hanse.core import Examples, InvalidInput, Key, Keys, LocalProblem, Steps, Tensors, tree_map
from hanse.core.exchange import Progress, drive, training
from hanse.data import from_clients
from hanse.learners import batches, bfloat16, full, mlp, torch_engine
from hanse.learners.own import averaged_buffers, local_buffers, torch_module
from hanse.simulation import InProcess, Simulation

torch = pytest.importorskip("torch")
nn = pytest.importorskip("torch.nn")

KEY = Key.from_seed(7)


def problem(n: int, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 3.0, size=(n, 5)).astype(np.float32)
    return Examples(x, (x @ np.random.default_rng(9).normal(size=(5, 3))).argmax(1))


def dense() -> Any:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def normed() -> Any:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def dropping() -> Any:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def plain_loop(factory: Callable[[], Any], params: Tensors, data: Examples, steps: Steps, key: Key) -> Any:
    """What anyone would write in PyTorch."""
    module = factory()
    module.load_state_dict({name: torch.tensor(v) for name, v in params.items()}, strict=False)
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=steps.lr)
    x, y = torch.tensor(data.x), torch.tensor(data.y)
    for rows in batches(len(data), steps, key):
        chosen = torch.arange(len(data))[rows]
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x[chosen]), y[chosen]).backward()
        optimiser.step()
    return module


# Modules of one's own


@pytest.mark.parametrize("factory", [dense, normed])
def test_local_training_is_what_a_plain_loop_does(factory: Callable[[], Any]) -> None:
    learner = torch_module(factory).bind((5,), 3)
    start, data, steps = learner.init(KEY), problem(23), Steps(0.1, epochs=3, batch_size=5)
    update = learner.local_sgd(start, LocalProblem(data, steps, KEY))
    trained = plain_loop(factory, start, data, steps, KEY).state_dict()
    for name, value in update.items():
        np.testing.assert_allclose(start[name] + value, trained[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_names_are_pytorchs_own_and_initial_values_come_from_the_key() -> None:
    learner = torch_module(dense).bind((5,), 3)
    start, again, other = learner.init(KEY), learner.init(KEY), learner.init(KEY.fold_in("other"))
    assert list(start) == list(dense().state_dict())
    for name, value in start.items():
        np.testing.assert_array_equal(value, again[name])
        assert (value != other[name]).all()


def test_no_global_generator_is_touched_or_asked() -> None:
    learner = torch_module(dropping).bind((5,), 3)
    start, data, steps = learner.init(KEY), problem(23), Steps(0.1, batch_size=5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = learner.local_sgd(start, LocalProblem(data, steps, KEY))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    for name, value in learner.local_sgd(start, LocalProblem(data, steps, KEY)).items():
        np.testing.assert_array_equal(value, first[name])
    np.testing.assert_array_equal(learner.init(KEY)["0.weight"], start["0.weight"])


def test_dropout_draws_from_the_clients_key_and_only_in_training() -> None:
    drops, keeps = torch_module(dropping).bind((5,), 3), torch_module(dense).bind((5,), 3)
    start, data = drops.init(KEY), problem(40)
    kept = {name.replace("3.", "2."): value for name, value in start.items()}
    one, other = (
        drops.local_sgd(start, LocalProblem(data, Steps(0.1), key)) for key in (KEY, KEY.fold_in("other"))
    )
    assert (one["0.weight"] != other["0.weight"]).any()
    assert drops.evaluate(start, data) == keeps.evaluate(kept, data)
    assert drops.objective(start, data) == keeps.objective(kept, data)
    gradient, due = drops.gradient(start, data), keeps.gradient(kept, data)
    np.testing.assert_array_equal(gradient["0.weight"], due["0.weight"])


def test_threads_are_as_they_were() -> None:
    threads = torch.get_num_threads()
    seen = []

    class Seeing(nn.Linear):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            seen.append(torch.get_num_threads())
            return super().forward(x)

    learner = torch_module(lambda: Seeing(5, 3)).bind((5,), 3)
    torch.set_num_threads(2)
    try:
        learner.local_sgd(learner.init(KEY), LocalProblem(problem(10), Steps(0.1), KEY))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}


def test_a_loss_of_ones_own() -> None:
    smooth = nn.CrossEntropyLoss(label_smoothing=0.2)
    learner = torch_module(dense, loss=smooth).bind((5,), 3)
    start, data = learner.init(KEY), problem(30)
    module = dense()
    module.load_state_dict({name: torch.tensor(v) for name, v in start.items()})
    due = float(smooth(module(torch.tensor(data.x)), torch.tensor(data.y)).detach())
    assert learner.metrics == ("loss", "correct")
    assert learner.objective(start, data) == pytest.approx(due, rel=1e-5)


def test_a_binary_loss_of_ones_own() -> None:
    def loss(scores: Any, y: Any) -> Any:
        return nn.functional.binary_cross_entropy_with_logits(scores[:, 0], y.float())

    learner = torch_module(lambda: nn.Linear(5, 1), loss=loss).bind((5,), 2)
    x = problem(50).x
    data = Examples(x, (x[:, 0] > 0).astype(int))
    axis = np.eye(5, dtype=np.float32)[:1]
    assert learner.evaluate({"weight": axis, "bias": np.zeros(1)}, data)["correct"] == 50
    assert learner.evaluate({"weight": -axis, "bias": np.zeros(1)}, data)["correct"] == 0


def test_labels_of_any_shape_with_a_loss_of_ones_own() -> None:
    learner = torch_module(lambda: nn.Linear(5, 2), loss=nn.MSELoss()).bind((5,), None)
    data = problem(30)
    data = Examples(data.x, data.x[:, :2])
    update = learner.local_sgd(learner.init(KEY), LocalProblem(data, Steps(0.01, epochs=3), KEY))
    assert learner.metrics == ("loss",)
    assert np.isfinite(update["weight"]).all()


def test_frozen_and_shared_parameters() -> None:
    class Tied(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.fixed, self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.out, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)
            self.second.weight = self.first.weight
            for parameter in self.fixed.parameters():
                parameter.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            return self.out(self.second(torch.relu(self.first(self.fixed(x)))))

    learner = torch_module(Tied).bind((5,), 3)
    start = learner.init(KEY)
    assert list(start) == [
        "first.weight",
        "first.bias",
        "second.bias",
        "out.weight",
        "out.bias",
        "unused.weight",
        "unused.bias",
    ]
    update = learner.local_sgd(start, LocalProblem(problem(20), Steps(0.1), KEY))
    assert update["first.weight"].any()
    assert not update["unused.weight"].any()
    assert not learner.hessian_vector(start, problem(20), start)["unused.bias"].any()


def test_integers_are_looked_up_where_a_module_embeds() -> None:
    embedding = torch_module(lambda: nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 3)))
    dense_too = torch_module(lambda: nn.Linear(4, 3))
    rng = np.random.default_rng(0)
    data = Examples(rng.integers(9, size=(30, 4)), rng.integers(3, size=30))
    for model in (embedding, dense_too):
        learner = model.bind((4,), 3)
        assert np.isfinite(learner.objective(learner.init(KEY), data))


@pytest.mark.parametrize(
    ("factory", "num_classes", "message"),
    [
        (lambda: None, 3, "the factory gave None; give the class of your module"),
        (nn.ReLU, 3, "no parameter that requires a gradient"),
        (lambda: dense().to(torch.bfloat16), 3, r"bfloat16; return module.float\(\)"),
        (lambda: nn.Linear(5, 2), 3, r"scores of shape \(8, 2\) for 8 examples; \(8, 3\) is needed"),
        (lambda: nn.Linear(5, 2), None, r"\(8, 2\) for 8 examples; \(8,\) is needed"),
    ],
)
def test_modules_that_do_not_suit_are_refused(factory: Any, num_classes: int | None, message: str) -> None:
    data = problem(8)
    data = data if num_classes else Examples(data.x, data.x[:, 0])

    def use() -> None:
        learner = torch_module(factory).bind((5,), num_classes)
        learner.gradient(learner.init(KEY), data)

    with pytest.raises(InvalidInput, match=message):
        use()


def test_parameters_of_another_model_are_refused() -> None:
    learner = torch_module(dense).bind((5,), 3)
    start = learner.init(KEY)
    wrong = {name.replace("0.", "1."): value for name, value in start.items()}
    with pytest.raises(InvalidInput, match=r"missing \['0.bias', '0.weight'\], unknown \['1.bias'"):
        learner.evaluate(wrong, problem(8))


def test_an_error_of_the_module_says_what_it_was_given() -> None:
    learner = torch_module(lambda: nn.Linear(4, 3)).bind((5,), 3)
    with pytest.raises(RuntimeError) as caught:
        learner.gradient(learner.init(KEY), problem(8))
    assert caught.value.__notes__ == [
        "while the module computed on features of shape (8, 5) and dtype float32"
    ]


# Buffers


STATISTICS = {"1.running_mean", "1.running_var"}


def test_averaged_buffers_are_sent_but_counts_are_not() -> None:
    learner = torch_module(normed, buffers=averaged_buffers()).bind((5,), 3)
    start = learner.init(KEY)
    assert set(start) == set(normed().state_dict()) - {"1.num_batches_tracked"}
    update = learner.local_sgd(start, LocalProblem(problem(23), Steps(0.1, batch_size=5), KEY))
    assert all(update[name].any() for name in STATISTICS)
    gradient = learner.gradient(start, problem(23))
    assert not any(gradient[name].any() for name in STATISTICS)
    assert list(gradient) == list(update) == list(start)


def test_offsets_and_the_proximal_term_leave_buffers_alone() -> None:
    learner = torch_module(normed, l2=0.1).bind((5,), 3)
    start, data = learner.init(KEY), problem(23)
    offset = tree_map(np.ones_like, start)
    plain = learner.local_sgd(start, LocalProblem(data, Steps(0.1), KEY))
    pulled = learner.local_sgd(start, LocalProblem(data, Steps(0.1, proximal=0.5), KEY, offset=offset))
    np.testing.assert_allclose(pulled["3.bias"], plain["3.bias"] - np.float32(0.1), rtol=1e-5, atol=1e-6)
    for name in STATISTICS:
        np.testing.assert_array_equal(plain[name], pulled[name])


def test_local_buffers_are_not_sent_and_measured_anew() -> None:
    learner = torch_module(normed, buffers=local_buffers()).bind((5,), 3)
    start, data = learner.init(KEY), problem(60)
    assert set(start) == {name for name, _ in normed().named_parameters()}
    fresh = learner.evaluate(start, data)
    learner.local_sgd(start, LocalProblem(problem(60, 1), Steps(0.5, epochs=5), KEY))
    learner.evaluate(start, problem(60, 2))
    assert learner.evaluate(start, data) == fresh
    module = normed()
    module.load_state_dict({name: torch.tensor(v) for name, v in start.items()}, strict=False)
    hidden = module[0](torch.tensor(data.x)).detach()
    module[1].running_mean.copy_(hidden.mean(0))
    module[1].running_var.copy_(hidden.var(0))
    module.eval()
    due = nn.functional.cross_entropy(module(torch.tensor(data.x)), torch.tensor(data.y))
    assert fresh["loss"] / 60 == pytest.approx(float(due.detach()), rel=1e-5)


@pytest.mark.parametrize("buffers", [averaged_buffers(), local_buffers()])
def test_gradients_are_those_of_evaluation(buffers: Any) -> None:
    learner = torch_module(lambda: normed().double(), buffers=buffers).bind((5,), 3)
    data, start = problem(23), learner.init(KEY)
    name, step = "3.weight", 1e-6
    direction = {other: np.zeros_like(value) for other, value in start.items()}
    direction[name] = np.random.default_rng(0).normal(size=start[name].shape)
    ahead, behind = (tree_map(lambda w, d, s=s: w + s * d, start, direction) for s in (step, -step))
    gradient = (learner.objective(ahead, data) - learner.objective(behind, data)) / (2 * step)
    assert np.vdot(learner.gradient(start, data)[name], direction[name]) == pytest.approx(gradient, rel=1e-6)


@pytest.mark.parametrize("buffers", [averaged_buffers(), local_buffers()])
def test_a_batch_of_one_example_is_normalised_by_running_statistics(buffers: Any) -> None:
    learner = torch_module(normed, buffers=buffers).bind((5,), 3)
    for n in (1, 6):
        update = learner.local_sgd(learner.init(KEY), LocalProblem(problem(n), Steps(0.1, batch_size=5), KEY))
        assert all(np.isfinite(value).all() for value in update.values())


def test_buffers_begin_alike_for_each_client() -> None:
    class Counting(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(5, 3)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return self.dense(x) * self.calls

    learner = torch_module(Counting).bind((5,), 3)
    start = learner.init(KEY)
    assert set(start) == {"dense.weight", "dense.bias"}
    first, again = (
        learner.local_sgd(start, LocalProblem(problem(20), Steps(0.01, 1, 5), KEY)) for _ in range(2)
    )
    np.testing.assert_array_equal(first["dense.weight"], again["dense.weight"])


def federated(buffers: Any, rounds: int, **settings: Any) -> tuple[Any, Tensors, Tensors, list[Examples]]:
    """A learner, its parameters before and after training, and the clients."""
    clients = [problem(n, seed) for seed, n in enumerate((20, 33, 7, 51))]
    keys = Keys.from_seed(1)
    learner = torch_module(normed, buffers=buffers).bind((5,), 3)
    start = learner.init(keys.public)
    algorithm = fed_avg(lr=0.1, fraction=1.0, **settings)
    begin = Progress(0, algorithm.init(start, keys.public))
    data = from_clients(clients, test=problem(200, 10))
    led = training(algorithm, begin, keys.public, rounds=rounds, evaluate=evaluation(learner))
    return (
        learner,
        start,
        drive(led, Simulation(InProcess(learner, data, keys), 4, keys)).state.params,
        clients,
    )


@pytest.mark.parametrize("buffers", [averaged_buffers(), local_buffers()])
def test_federated_averaging_with_batch_norm(buffers: Any) -> None:
    learner, _, end, _ = federated(buffers, 15, epochs=2, batch_size=10)
    assert learner.evaluate(end, problem(200, 10))["correct"] > 160


def test_averaged_running_means_are_those_of_all_examples() -> None:
    _, start, end, clients = federated(averaged_buffers(), 1, epochs=1, batch_size=None)
    pooled = np.concatenate([client.x for client in clients]).mean(0)
    due = 0.1 * (pooled @ start["0.weight"].T + start["0.bias"])  # PyTorch's momentum is 0.1
    np.testing.assert_allclose(end["1.running_mean"], due, rtol=1e-4)


# Precision


def dull() -> Any:
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with units for bfloat16, whichever it is."""
    monkeypatch.setattr("hanse.learners.torch.precision.units_for_bfloat16", lambda: True)


@pytest.mark.usefixtures("able")
def test_bfloat16_trains_about_alike_and_repeats_its_bits() -> None:
    exact, rough = (torch_module(dull, precision=p).bind((5,), 3) for p in (full(), bfloat16()))
    start, data, steps = exact.init(KEY), problem(40), Steps(0.01, epochs=2, batch_size=5)
    due, update, again = (
        learner.local_sgd(start, LocalProblem(data, steps, KEY)) for learner in (exact, rough, rough)
    )
    for name, value in update.items():
        assert value.dtype == np.float32
        assert value.tobytes() == again[name].tobytes()
    assert 0 < distance(update, due) < 0.05 * distance(due, tree_map(np.zeros_like, due))


def distance(a: Tensors, b: Tensors) -> float:
    return float(np.sqrt(sum(np.square(a[name] - b[name]).sum() for name in a)))


@pytest.mark.usefixtures("able")
def test_bfloat16_measures_in_full() -> None:
    exact, rough = (torch_module(dull, precision=p).bind((5,), 3) for p in (full(), bfloat16()))
    start, data = exact.init(KEY), problem(40)
    assert rough.evaluate(start, data) == exact.evaluate(start, data)
    assert distance(rough.gradient(start, data), exact.gradient(start, data)) == 0


@pytest.mark.usefixtures("able")
def test_bfloat16_is_for_float32() -> None:
    with pytest.raises(InvalidInput, match='write dtype="float32"'):
        mlp((4,), engine=torch_engine(precision=bfloat16()), dtype="float64").bind((5,), 3)


def test_bfloat16_without_units_for_it_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    with pytest.warns(UserWarning, match=r"write precision=full\(\)"):
        torch_module(dull, precision=bfloat16()).bind((5,), 3)


# The product of dense layers


def test_our_product_is_a_dense_layers_and_so_are_its_gradients_twice() -> None:
    own = pytest.importorskip("hanse.learners.torch.networks")
    plain = nn.Linear(7, 4)
    layer = own.Dense(7, 4)
    layer.load_state_dict(plain.state_dict())
    x = torch.linspace(-1, 1, 21).reshape(3, 7).requires_grad_()
    for one in (plain, layer):
        one.found = []
        weights = (x, one.weight, one.bias)
        slopes = torch.autograd.grad(one(x).square().sum(), weights, create_graph=True)
        one.found += [one(x), *slopes, *torch.autograd.grad(sum(s.square().sum() for s in slopes), weights)]
    for due, found in zip(plain.found, layer.found, strict=True):
        torch.testing.assert_close(found, due, rtol=1e-5, atol=1e-5)
