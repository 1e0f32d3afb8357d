import numpy as np
import pytest

from hanse.core import InvalidInput, Keys, Part, Spec, Total
from hanse.transforms import per_round, subsample

KEYS = Keys.from_seed(1)


def test_kept_entries_are_scaled_and_the_others_zero():
    x = {"w": np.arange(1.0, 13.0).reshape(3, 4), "b": np.array(5.0)}
    stage = subsample(0.25)(Spec.of(x))
    sent, _ = stage.encode(None, Part(x, 2.0), {}, KEYS)
    stage.out.check(sent.values)
    back = stage.open(None, sent, KEYS.public)
    assert back.weight == 2.0
    kept = back.values["w"] != 0
    assert kept.sum() == 3
    np.testing.assert_array_equal(back.values["w"][kept], 4 * x["w"][kept])
    assert back.values["b"] == 5.0


def test_drawn_per_round_all_send_the_same_positions():
    x = {"w": np.arange(100.0)}
    stage = subsample(0.1, drawn=per_round())(Spec.of(x))
    plan = stage.plan(None, KEYS.public)
    sent = [stage.encode(plan, Part(x), {}, KEYS.fold_in(client))[0].values["w"] for client in range(2)]
    np.testing.assert_array_equal(*sent)
    total, _ = stage.decode(None, plan, Total({"w": sent[0]}, 1.0, 1), KEYS.secret)
    np.testing.assert_allclose(total.values["w"][sent[0].astype(int)], 10 * sent[0])


def test_what_holds_no_numbers_travels_whole():
    x = {"w": np.arange(10.0), "steps": np.array([3, 4])}
    stage = subsample(0.5)(Spec.of(x))
    sent, _ = stage.encode(None, Part(x), {}, KEYS)
    stage.out.check(sent.values)
    np.testing.assert_array_equal(stage.open(None, sent, KEYS.public).values["steps"], x["steps"])


def test_bounds_stay():
    assert subsample(0.5)(Spec.of({"w": np.zeros(8)}, l2_bound=2.0)).out.l2_bound == 2.0


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_a_fraction_that_can_not_be_is_refused(fraction):
    with pytest.raises(InvalidInput, match="above 0 and at most 1"):
        subsample(fraction)
