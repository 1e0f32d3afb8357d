import subprocess
import sys

import numpy as np
import pytest

from hanse.core import InvalidInput, Key
from hanse.core.exchange import find_classes, pack, unpack
from hanse.learners import Model, engines
from hanse.learners.engines import Engine, jax_engine, torch_engine
from hanse.learners.networks import Network, char_lstm, cnn, mlp
from hanse.learners.own import averaged_buffers, jax_model, local_buffers, torch_module

KEY = Key.from_seed(3)


def sizes(network: Network, feature_shape: tuple[int, ...], num_classes: int | None) -> dict[str, object]:
    return {name: v.shape for name, v in network.bound(feature_shape, num_classes).init(KEY).items()}


def num_parameters(network: Network, feature_shape: tuple[int, ...], num_classes: int | None) -> int:
    return sum(value.size for value in network.bound(feature_shape, num_classes).init(KEY).values())


def test_the_first_papers_networks_have_its_number_of_parameters() -> None:
    assert num_parameters(mlp(), (28, 28), 10) == 199_210
    assert num_parameters(cnn(), (28, 28), 10) == 1_663_370


def test_parameters_have_the_names_and_layouts_of_pytorch() -> None:
    assert sizes(mlp((5,)), (3,), 2) == {
        "hidden1.weight": (5, 3),
        "hidden1.bias": (5,),
        "output.weight": (2, 5),
        "output.bias": (2,),
    }
    assert sizes(cnn((2, 3), kernel=3, hidden=4), (8, 9, 3), None) == {
        "conv1.weight": (2, 3, 3, 3),
        "conv1.bias": (2,),
        "conv2.weight": (3, 2, 3, 3),
        "conv2.bias": (3,),
        "hidden.weight": (4, 12),
        "hidden.bias": (4,),
        "output.weight": (1, 4),
        "output.bias": (1,),
    }
    assert sizes(char_lstm(6, embedding=2, hidden=3, layers=1), (7,), None) == {
        "embedding.weight": (6, 2),
        "lstm.weight_ih_l0": (12, 2),
        "lstm.weight_hh_l0": (12, 3),
        "lstm.bias_ih_l0": (12,),
        "lstm.bias_hh_l0": (12,),
        "output.weight": (6, 3),
        "output.bias": (6,),
    }


def test_initial_values_follow_the_number_of_inputs() -> None:
    start = mlp((400,)).bound((100,), 10).init(KEY)
    for name, fan_in in (("hidden1.weight", 100), ("output.weight", 400)):
        bound = fan_in**-0.5
        assert np.abs(start[name]).max() <= bound
        assert start[name].std() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert start[name].dtype == np.float32
    other = mlp((400,)).bound((100,), 10).init(KEY.fold_in("other"))
    assert (other["hidden1.weight"] != start["hidden1.weight"]).mean() > 0.99


@pytest.mark.parametrize("network", [mlp, cnn, char_lstm])
@pytest.mark.parametrize("engine", [jax_engine(), torch_engine()])
def test_networks_are_values(network: type[Network], engine: Engine) -> None:
    chosen = network(engine=engine, l2=0.1, dtype="float64")
    assert unpack(pack(chosen)) == chosen
    assert find_classes(Model)[network.__name__] is network  # type: ignore[type-abstract]
    assert type(engine).__name__ in find_classes(Engine)


def test_importing_learners_imports_no_engine() -> None:
    program = (
        "import sys, hanse, hanse.learners, hanse.learners.networks, hanse.learners.own;"
        "import numpy as np; from hanse.core import Examples, Key;"
        "learner = hanse.learners.softmax().bind((2,), 2);"
        "learner.gradient(learner.init(Key.from_seed(0)), Examples(np.eye(2), np.arange(2)));"
        "sys.exit(bool({'jax', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("model", "installed", "message"),
    [
        (mlp(), (), r'mlp\(\) computes with JAX, .* run: pip install "hanse\[jax\]"$'),
        (mlp(), ("torch",), r'"hanse\[jax\]", or write engine=torch_engine\(\)$'),
        (cnn(), ("jax",), r'PyTorch, .*"hanse\[torch\]", or write engine=jax_engine\(\)$'),
        (jax_model(lambda key: {}, lambda params, x: x), (), r'jax_model\(\) .*"hanse\[jax\]"$'),
        (torch_module(lambda: None), (), r'torch_module\(\) .*"hanse\[torch\]"$'),
    ],
)
def test_an_engine_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, model: Model, installed: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in installed else None)
    with pytest.raises(InvalidInput, match=message):
        model.bind((28, 28), 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp(l2=-1.0), "l2 is -1.0"),
        (lambda: mlp(dtype="float23"), "did you mean 'float32'"),
        (lambda: mlp((10, 0)), r"hidden\[1\] is 0"),
        (lambda: cnn(kernel=4), "write an odd number, such as 5"),
        (lambda: cnn((0, 1)), r"channels\[0\] is 0"),
        (lambda: char_lstm(0), "num_characters is 0"),
        (lambda: jax_model(len, len, l2=float("nan")), "l2 is nan"),
        (lambda: jax_model(len, len, dtype="int"), "dtype is 'int'"),
        (lambda: torch_module(len, l2=-0.5), "l2 is -0.5"),
        (lambda: mlp().bound((), 10) and mlp().bound((0,), 10), r"shape \(0,\)"),
        (lambda: mlp().bound((3,), 1), "the labels have 1"),
        (lambda: cnn().bound((10,), 10), r"\(10,\) are not images"),
        (lambda: cnn().bound((2, 3, 4, 5), 10), "not images"),
        (lambda: cnn().bound((3, 28), 10), "3 x 28"),
        (lambda: char_lstm().bound((3, 4), None), r"rows of characters, \(n, length\)"),
    ],
)
def test_what_can_not_be_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidInput, match=message):
        make()


def test_square_grey_images_may_be_flat() -> None:
    assert sizes(cnn(), (64,), 10) == sizes(cnn(), (8, 8), 10) == sizes(cnn(), (8, 8, 1), 10)


def test_what_becomes_of_buffers_is_a_value() -> None:
    assert unpack(pack(averaged_buffers())) == averaged_buffers()
    assert torch_module(list).buffers == averaged_buffers() != local_buffers()
