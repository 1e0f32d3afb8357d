import numpy as np
import pytest

from hanse.core import InvalidInput, Keys, MessageError, Part, Spec
from hanse.transforms import none, per_block, sign

KEYS = Keys.from_seed(1)


def exchange(values, transform=sign()):
    stage = transform(Spec.of(values))
    sent, memory = stage.encode(None, Part(values, 3.0), {}, KEYS)
    stage.out.check(sent.values)
    opened = stage.open(None, sent, KEYS.public)
    assert opened.weight == 3.0
    return opened.values, memory


def test_signs_come_back_with_the_mean_magnitude_of_each_tensor():
    x = {"w": np.array([[1.0, -2.0], [0.0, 5.0]]), "b": np.array([-1.0]), "s": np.array(-3.0)}
    back, memory = exchange(x)
    np.testing.assert_array_equal(back["w"], [[2, -2], [2, 2]])
    np.testing.assert_array_equal(back["b"], [-1])
    np.testing.assert_array_equal(back["s"], -3)
    np.testing.assert_array_equal(memory["residual"]["w"], [[-1, 0], [-2, 3]])


def test_the_error_is_that_of_the_paper():
    x = np.random.default_rng(1).normal(size=1000)
    back, _ = exchange({"w": x})
    left = 1 - np.abs(x).sum() ** 2 / (x.size * np.square(x).sum())
    assert np.square(back["w"] - x).sum() == pytest.approx(left * np.square(x).sum())


@pytest.mark.parametrize(
    ("dtypes", "of_scales"), [(["float16"], "float32"), (["float32", "float64"], "float64")]
)
def test_magnitudes_are_means_in_the_dtype_that_holds_all_tensors(dtypes, of_scales):
    rng = np.random.default_rng(2)
    x = {dtype: rng.normal(size=999).astype(dtype) for dtype in dtypes}
    stage = sign(residual=none())(Spec.of(x))
    sent, _ = stage.encode(None, Part(x), {}, KEYS)
    assert sent.values["scales"].dtype == of_scales
    assert sent.values["scales"].tolist() == [np.abs(v).mean(dtype=of_scales) for v in x.values()]


def test_blocks_of_one_entry_lose_nothing():
    x = {"w": np.random.default_rng(3).normal(size=7)}
    np.testing.assert_array_equal(exchange(x, sign(per_block(1)))[0]["w"], x["w"])
    with pytest.raises(InvalidInput, match=r"per_block\(0\): write at least 1 entry"):
        per_block(0)


def test_blocks_have_magnitudes_of_their_own():
    back, memory = exchange({"w": np.array([1.0, -1.0, 8.0, -8.0, 3.0])}, sign(per_block(2), none()))
    np.testing.assert_array_equal(back["w"], [1, -1, 8, -8, 3])
    assert memory == {}


def test_tensors_of_nothing_and_of_zeros():
    back, _ = exchange({"none": np.zeros((0, 3), np.float32), "zero": np.zeros(5, np.float32)})
    assert back["none"].shape == (0, 3)
    np.testing.assert_array_equal(back["zero"], np.zeros(5))


def test_a_negative_scale_is_refused():
    stage = sign()(Spec.of({"w": np.zeros(8)}))
    values = {"signs": np.zeros(1, np.uint8), "scales": np.array([-1.0])}
    stage.out.check(values)
    with pytest.raises(MessageError, match="mean of magnitudes"):
        stage.open(None, Part(values), KEYS.public)
