"""Runs whose clients train by a user's own function, on every engine."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg, trained_by
from hanse.core import Examples, InvalidInput, Key, Part, mean, reduce
from hanse.core.exchange import digest
from hanse.data import from_clients
from hanse.evaluation import centralised
from hanse.learners import (
    averaged_buffers,
    jax_model,
    local_buffers,
    mlp,
    softmax,
    torch_engine,
    torch_module,
)
from hanse.simulation import sequential

RNG = np.random.default_rng(3)
CLIENTS = [
    Examples(RNG.normal(size=(n, 6)).astype(np.float32), RNG.integers(0, 3, size=n)) for n in (20, 33, 47)
]
DATA = from_clients(CLIENTS)
FLAT: dict[str, Any] = {"data": DATA, "model": softmax(), "rounds": 3}


def descend(params: Any, data: Any, config: Any) -> Any:
    """Full-batch steps on softmax regression, by hand."""
    for _ in range(config["steps"]):
        scores = data.x @ params["weights"] + params["bias"]
        slopes = np.exp(scores - scores.max(axis=1, keepdims=True))
        slopes /= slopes.sum(axis=1, keepdims=True)
        loss = -np.log(slopes[np.arange(len(data)), data.y]).mean()
        slopes[np.arange(len(data)), data.y] -= 1
        params["weights"] -= config["lr"] * data.x.T @ slopes / len(data)
        params["bias"] -= config["lr"] * slopes.mean(axis=0)
    return None, None, {"loss": loss}


DESCEND = trained_by(descend, {"lr": 0.3, "steps": 4}, metrics=("loss",))


def test_a_loop_on_a_linear_model_equals_our_own() -> None:
    by_hand = hanse.run(**FLAT, algorithm=fed_avg(fraction=1.0, client=DESCEND))
    ours = hanse.run(**FLAT, algorithm=fed_avg(lr=0.3, fraction=1.0, epochs=4, batch_size=None))
    for name, tensor in ours.params.items():
        np.testing.assert_allclose(by_hand.params[name], tensor, atol=2e-6)
    assert by_hand.status == "completed"
    assert by_hand.findings == ()
    train_loss = [record.metrics.get("train_loss") for record in by_hand.records]
    assert train_loss[0] is None
    assert all(b < a for a, b in itertools.pairwise(train_loss[1:]))
    assert by_hand.final is not None
    assert set(by_hand.final.metrics) == {"loss", "accuracy", "train_loss"}


def test_rounds_that_only_clients_measured_are_not_the_final_one() -> None:
    options = {**FLAT, "algorithm": fed_avg(fraction=1.0, client=DESCEND), "evaluate_every": 0}
    result = hanse.run(**options)
    assert result.final is None
    assert [sorted(record.metrics) for record in result.records] == [["train_loss"]] * 3


def test_baselines_want_a_step_size_of_their_own() -> None:
    algorithm = fed_avg(fraction=1.0, client=DESCEND)
    with pytest.raises(InvalidInput, match=r"trained_by\(\) does not show the steps.*centralised\(lr=0.1\)"):
        hanse.run(**FLAT, algorithm=algorithm, baselines=(centralised(),))
    result = hanse.run(**FLAT, algorithm=algorithm, baselines=(centralised(lr=0.1),))
    assert result.baselines[0]["name"] == "centralised"


def test_a_function_that_does_not_repeat_itself_is_said() -> None:
    entropy = iter(range(1000))

    def train(params: Any, data: Any) -> None:
        params["bias"] += 1e-3 * next(entropy)

    result = hanse.run(**FLAT, algorithm=fed_avg(client=trained_by(train)))
    assert [finding.code for finding in result.findings] == ["not_repeatable"]
    assert result.status == "completed"
    assert "two runs with one seed may differ" in result.to_json()["findings"][0]["text"]


def test_a_key_of_the_config_that_is_never_read_is_said() -> None:
    def train(params: Any, data: Any, config: Any) -> None:
        params["bias"] += config.get("lr", 0.1)

    result = hanse.run(**FLAT, algorithm=fed_avg(client=trained_by(train, {"lrr": 0.5})))
    (finding,) = result.findings
    assert (finding.code, result.status) == ("config_unread", "completed")
    assert finding.text == "train(), called for the first client, did not read config.lrr"
    whole = hanse.run(**FLAT, algorithm=fed_avg(client=trained_by(train, {"lr": 0.5})))
    assert whole.findings == ()


def test_workers_end_in_the_bits_of_one_process() -> None:
    algorithm = fed_avg(fraction=1.0, client=DESCEND)
    one = hanse.run(**FLAT, algorithm=algorithm, execution=sequential())
    two = hanse.run(**FLAT, algorithm=algorithm, execution=sequential(num_workers=2))
    assert two.executions == ("2 workers",)
    assert one.params_sha256 == two.params_sha256
    assert [r.metrics for r in one.records] == [r.metrics for r in two.records]


def test_a_function_that_workers_cannot_import_is_refused_or_kept_here() -> None:
    mine = trained_by(lambda params, data: None)
    with pytest.raises(hanse.HanseError, match="worker"):
        hanse.run(**FLAT, algorithm=fed_avg(client=mine), execution=sequential(num_workers=2))
    assert hanse.run(**FLAT, algorithm=fed_avg(client=mine)).status == "completed"


def test_a_function_without_a_name_is_not_stored(tmp_path: Path) -> None:
    mine = trained_by(lambda params, data: None)
    with pytest.raises(InvalidInput, match=r"<lambda>\(\) has no name .* my_training\.py"):
        hanse.run(**FLAT, algorithm=fed_avg(client=mine), store=tmp_path / "store.db")
    assert not (tmp_path / "store.db").exists() or "lambda" not in (tmp_path / "store.db").read_text(
        "latin-1"
    )


# -- JAX -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loop_in_jax(dtype: str) -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def init(key: Any) -> Any:
        return {"layer": {"w": jnp.zeros((6, 3)), "b": jnp.zeros(3)}}

    def apply(params: Any, x: Any) -> Any:
        return x @ params["layer"]["w"] + params["layer"]["b"]

    def loss(params: Any, x: Any, y: Any) -> Any:
        scores = x @ params["layer.w"] + params["layer.b"]
        return -jax.nn.log_softmax(scores)[jnp.arange(len(y)), y].mean()

    def train(params: Any, data: Any, memory: Any) -> Any:
        velocity = memory.get("velocity") or {name: jnp.zeros_like(w) for name, w in params.items()}
        assert all(isinstance(v, jax.Array) and str(v.dtype) == dtype for v in velocity.values())
        value, slopes = jax.value_and_grad(loss)(params, data.x, data.y)
        velocity = {name: 0.5 * velocity[name] + slope for name, slope in slopes.items()}
        memory["velocity"] = velocity
        return {name: w - 0.5 * velocity[name] for name, w in params.items()}, None, {"loss": value}

    result = hanse.run(
        data=DATA,
        model=jax_model(init, apply, dtype=dtype),
        algorithm=fed_avg(fraction=1.0, client=trained_by(train, metrics=("loss",))),
        rounds=3,
    )
    assert result.params["layer.w"].dtype == dtype
    first, last = result.records[1].metrics, result.records[-1].metrics
    assert first["train_loss"] == pytest.approx(np.log(3), abs=1e-6)
    assert last["train_loss"] < first["train_loss"]


# -- PyTorch ---------------------------------------------------------------------------------------


NET: dict[str, Any] = {"data": DATA, "model": mlp((5,), engine=torch_engine()), "rounds": 2}


def adamw(module: Any, data: Any, config: Any, key: Key, memory: Any) -> Any:
    """AdamW with a schedule, whose moments last from round to round."""
    import torch

    optimiser = torch.optim.AdamW(module.parameters(), lr=config["lr"], weight_decay=0.1)
    if "optimiser" in memory:
        optimiser.load_state_dict(memory["optimiser"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config["epochs"])
    examples = torch.utils.data.TensorDataset(torch.from_numpy(data.x), torch.from_numpy(data.y))
    loader = torch.utils.data.DataLoader(examples, batch_size=config["batch_size"], shuffle=True)
    losses = []
    for _ in range(config["epochs"]):
        for x, y in loader:
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(x), y)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        scheduler.step()
    memory["optimiser"] = optimiser.state_dict()
    memory["rounds"] = memory.get("rounds", 0) + 1
    return None, None, {"loss": torch.stack(losses).mean(), "rounds": memory["rounds"]}


ADAMW = trained_by(adamw, {"lr": 0.02, "epochs": 2, "batch_size": 8}, metrics=("loss", "rounds"))


def test_adamw_with_a_schedule_equals_the_same_loop_by_hand() -> None:
    """To the bit: 2 rounds of 3 clients, whose steps and whose mean are computed here, too."""
    torch = pytest.importorskip("torch")
    seen: list[tuple[Key, int]] = []

    def loop(module: Any, x: Any, y: Any, seed: int, lr: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(module.parameters(), lr=lr)
        scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=1, gamma=0.5)
        examples = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        for _ in range(3):
            for rows, labels in torch.utils.data.DataLoader(examples, 8, shuffle=True, generator=generator):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(module(rows), labels).backward()
                optimiser.step()
            scheduler.step()

    def train(module: Any, data: Any, config: Any, key: Key) -> None:
        seen.append((key, len(data)))
        loop(module, data.x, data.y, int(key.rng().integers(2**63)), config["lr"])

    client = trained_by(train, {"lr": 0.05})
    result = hanse.run(**NET, algorithm=fed_avg(fraction=1.0, client=client))
    tried, done = seen[:2], seen[2:]
    assert tried[0] == tried[1]
    assert len({key for key, _ in done}) == 6

    learner = NET["model"].bind((6,), 3)
    params = dict(learner.init(hanse.core.Keys.from_seed(0).public.fold_in("model")))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    names = dict(zip([name for name, _ in module.named_parameters()], params, strict=True))
    for round in range(2):
        updates = []
        for key, size in done[3 * round : 3 * round + 3]:
            data = next(part for part in CLIENTS if len(part) == size)
            shaped = module.state_dict()
            module.load_state_dict(
                {name: torch.tensor(params[ours]).reshape(shaped[name].shape) for name, ours in names.items()}
            )
            loop(module, data.x, data.y, int(key.rng().integers(2**63)), 0.05)
            trained = {ours: module.state_dict()[name].numpy().copy() for name, ours in names.items()}
            updates.append(Part({n: trained[n] - params[n] for n in params}, float(size)))
        step = reduce(mean(), updates).values
        params = {name: w + step[name] for name, w in params.items()}
    torch.set_num_threads(threads)
    assert digest(params) == digest(dict(result.params))


def test_state_of_an_optimiser_lasts_from_round_to_round() -> None:
    pytest.importorskip("torch")
    forgetful = trained_by(
        lambda module, data, config, key: adamw(module, data, config, key, {}),
        ADAMW.config,
        metrics=ADAMW.metrics,
    )
    kept = hanse.run(**NET, algorithm=fed_avg(fraction=1.0, client=ADAMW))
    lost = hanse.run(**NET, algorithm=fed_avg(fraction=1.0, client=forgetful))
    assert [record.metrics.get("train_rounds") for record in kept.records] == [None, 1.0, 2.0]
    assert kept.findings == lost.findings == ()
    one, other = kept.records[1].metrics, lost.records[1].metrics
    assert one["train_loss"] == other["train_loss"]
    assert kept.params_sha256 != lost.params_sha256


def test_pytorch_repeats_itself_in_workers_and_beside_other_draws() -> None:
    torch = pytest.importorskip("torch")
    algorithm = fed_avg(fraction=1.0, client=ADAMW)
    one = hanse.run(**NET, algorithm=algorithm)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    two = hanse.run(**NET, algorithm=algorithm, execution=sequential(num_workers=2))
    hanse.run(**NET, algorithm=algorithm)
    assert one.params_sha256 == two.params_sha256
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("precise", [False, True])
def test_the_module_is_lent_as_it_is_trained(precise: bool) -> None:
    torch = pytest.importorskip("torch")
    lent: list[Any] = []

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, x: Any) -> Any:
            return self.layer(self.drop(self.norm(x)))

    def train(module: Any, data: Any) -> Any:
        assert type(module) is Net
        assert module not in lent
        lent.append(module)
        assert module.training
        assert module.norm.training
        assert torch.get_num_threads() == 1
        assert all(p.grad is None and p.requires_grad for p in module.parameters())
        assert data.x.dtype == (np.float64 if precise else np.float32)
        assert data.y.dtype == np.int64
        torch.nn.functional.cross_entropy(
            module(torch.from_numpy(data.x)), torch.from_numpy(data.y)
        ).backward()
        with torch.no_grad():
            module.layer.bias += 1.0
        module.eval()
        module.layer.weight.requires_grad_(False)

    learner = torch_module(lambda: Net().double() if precise else Net()).bind((6,), 3)
    params = dict(learner.init(Key.from_seed(0)))
    mine = trained_by(train)
    for _ in range(2):
        update, *_ = mine.train(learner, params, CLIENTS[0], {}, Key.from_seed(1))
        np.testing.assert_allclose(update["layer.bias"], 1.0, atol=1e-6)
        np.testing.assert_array_equal(update["layer.weight"], 0.0)
        expected = 0.1 * CLIENTS[0].x.mean(axis=0)
        np.testing.assert_allclose(update["norm.running_mean"], expected, atol=1e-6)
    assert set(learner.gradient(params, CLIENTS[0])) == set(params)


def test_buffers_that_are_not_sent_start_anew() -> None:
    torch = pytest.importorskip("torch")

    def train(module: Any, data: Any) -> Any:
        before = float(module[0].running_mean.abs().sum())
        module(torch.from_numpy(data.x))
        return None, None, {"before": before}

    model = torch_module(
        lambda: torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)), buffers=local_buffers()
    )
    learner = model.bind((6,), 3)
    params = learner.init(Key.from_seed(0))
    mine = trained_by(train, metrics=("before",))
    for _ in range(2):
        update, _, metrics, _ = mine.train(learner, params, CLIENTS[0], {}, Key.from_seed(1))
        assert set(update) == {"0.weight", "0.bias", "1.weight", "1.bias"}
        assert metrics["before"] == 0.0


@pytest.mark.parametrize("form", ["state_dict", "module", "average"])
def test_another_module_may_be_returned(form: str) -> None:
    """Such as a moving average of the weights."""
    torch = pytest.importorskip("torch")

    def train(module: Any, data: Any) -> Any:
        average = torch.optim.swa_utils.AveragedModel(module)
        with torch.no_grad():
            module[1].weight += 2.0
        average.update_parameters(module)
        found = average.module if form != "average" else average
        return (
            {n: t for n, t in found.state_dict().items() if "num_" not in n}
            if form == "state_dict"
            else found
        )

    model = torch_module(
        lambda: torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)),
        buffers=averaged_buffers(),
    )
    learner = model.bind((6,), 3)
    params = learner.init(Key.from_seed(0))
    given = learner, params, CLIENTS[0], {}, Key.from_seed(1)
    if form == "average":
        with pytest.raises(InvalidInput, match=r"returned a module without '0\.weight'.*\.module"):
            trained_by(train).train(*given)
        return
    update, *_ = trained_by(train).train(*given)
    np.testing.assert_allclose(update["1.weight"], 2.0, atol=1e-6)


@pytest.mark.parametrize("spoil", ["half", "layer", "error", "frozen", "thawed"])
def test_a_module_that_was_spoilt_is_made_anew(spoil: str) -> None:
    """What one client's training does to the module reaches no other client."""
    torch = pytest.importorskip("torch")

    def make() -> Any:
        net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 3))
        for p in net[0].parameters():
            torch.nn.init.constant_(p, 0.25)
            p.requires_grad_(False)
        return net

    def train(module: Any, data: Any) -> Any:
        if spoil == "half":
            module.half()
        if spoil == "layer":
            module[1] = torch.nn.Linear(4, 3)
        if spoil in ("error", "thawed"):
            module[0].requires_grad_(True)
        if spoil in ("error", "frozen"):
            with torch.no_grad():
                module[0].weight += 1.0
        if spoil == "error":
            raise RuntimeError("out of luck")

    learner = torch_module(make).bind((6,), 3)
    params = learner.init(Key.from_seed(0))
    before = learner.predict(params, CLIENTS[0].x)
    given = learner, params, CLIENTS[0], {}, Key.from_seed(1)
    if spoil == "error":
        with pytest.raises(RuntimeError, match="out of luck"):
            trained_by(train).train(*given)
    elif spoil == "frozen":
        with pytest.raises(InvalidInput, match=r"changed '0.weight', which is frozen"):
            trained_by(train).train(*given)
    else:
        trained_by(train).train(*given)
    np.testing.assert_array_equal(learner.predict(params, CLIENTS[0].x), before)
    update, *_ = trained_by(lambda module, data: None).train(*given)
    assert set(update) == {"1.weight", "1.bias"}
    assert not any(tensor.any() for tensor in update.values())


@pytest.mark.parametrize("spoil", ["data", "attribute", "hook", "buffer"])
@pytest.mark.parametrize("copied", [False, True])
def test_nothing_but_the_update_leaves_a_loan(spoil: str, copied: bool) -> None:
    torch = pytest.importorskip("torch")

    def make() -> Any:
        net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 3))
        torch.nn.init.constant_(net[0].weight, 0.25).requires_grad_(False)
        if not copied:
            net.gate = lambda x: net[1](x)  # a copy would share it
        return net

    def train(module: Any, data: Any) -> None:
        assert not hasattr(module, "gain")
        assert not module[1]._forward_hooks
        assert "more" not in dict(module.named_buffers())
        if not copied:
            x = torch.ones(2, 4)
            with torch.no_grad():
                module[1].bias += 1.0
                assert torch.equal(module.gate(x), module[1](x))
        if spoil == "data":
            module[0].weight.data.add_(1)
        if spoil == "attribute":
            module.gain = 3
        if spoil == "hook":
            module[1].register_forward_hook(lambda *given: given[-1] * 2)
        if spoil == "buffer":
            module.register_buffer("more", torch.ones(1))

    learner = torch_module(make).bind((6,), 3)
    params = learner.init(Key.from_seed(0))
    before = learner.predict(params, CLIENTS[0].x)
    given = learner, params, CLIENTS[0], {}, Key.from_seed(1)
    for _ in range(2):
        if spoil == "data":
            with pytest.raises(InvalidInput, match=r"changed '0.weight', which is frozen"):
                trained_by(train).train(*given)
        else:
            trained_by(train).train(*given)
        np.testing.assert_array_equal(learner.predict(params, CLIENTS[0].x), before)


# -- scripts and settings --------------------------------------------------------------------------

SCRIPT = """
import sys
import numpy as np
import hanse
from hanse.algorithms import fed_avg, trained_by
from hanse.data import arrays, iid
from hanse.learners import softmax

def train(params, data, config, key):
    params["bias"] += config["step"] * key.rng().normal(size=params["bias"].shape)

if __name__ == "__main__":
    x = np.random.default_rng(0).normal(size=(60, 3))
    result = hanse.run(
        data=arrays(x, (x[:, 0] > 0).astype(int)),
        partition=iid(6),
        model=softmax(),
        algorithm=fed_avg(fraction=1.0, client=trained_by(train, {"step": 0.1})),
        rounds=2,
    )
    print(result.status, result.params_sha256)
"""


def test_a_function_of_a_script(tmp_path: Path) -> None:
    (tmp_path / "my_script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", "my_script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed ")
