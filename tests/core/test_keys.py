import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.keys import Key, Keys

steps = st.one_of(st.text(max_size=8), st.integers())
paths = st.lists(steps, max_size=4).map(tuple)
seeds = st.integers(-(2**70), 2**70)
ROOT = Key.from_seed(7)


@given(paths, paths)
def test_folding_a_path_is_folding_its_steps(first, second):
    assert ROOT.fold_in(*first, *second) == ROOT.fold_in(*first).fold_in(*second)


@given(paths, paths)
def test_keys_are_equal_only_where_their_paths_are(first, second):
    same = [(type(step), step) for step in first] == [(type(step), step) for step in second]
    assert (ROOT.fold_in(*first) == ROOT.fold_in(*second)) == same


@pytest.mark.parametrize(
    ("first", "second"),
    [((3,), ("3",)), (("i3",), (3,)), (("ab",), ("a", "b")), (("",), ()), ((1, 2), (12,)), ((-1,), (1,))],
)
def test_paths_that_look_alike_are_told_apart(first, second):
    assert ROOT.fold_in(*first) != ROOT.fold_in(*second)


@given(seeds, seeds)
def test_seeds_of_any_size_and_sign_give_their_own_key(first, second):
    assert (Key.from_seed(first) == Key.from_seed(second)) == (first == second)


def test_no_two_of_many_keys_collide():
    keys = {ROOT.fold_in(a, b).digest for a in range(100) for b in range(100)}
    keys |= {ROOT.fold_in(str(a), b).digest for a in range(100) for b in range(100)}
    assert len(keys) == 20_000


def test_numbers_of_numpy_fold_by_their_value():
    assert ROOT.fold_in(np.int64(3)) == ROOT.fold_in(3)


def test_the_same_key_draws_the_same_and_leaves_nothing_behind():
    first, again = ROOT.rng(), ROOT.rng()
    np.testing.assert_array_equal(first.random(100), again.random(100))
    np.testing.assert_array_equal(ROOT.rng().permutation(50), ROOT.rng().permutation(50))


@pytest.mark.parametrize("byte", range(32))
def test_every_byte_of_a_key_counts(byte):
    digest = bytearray(ROOT.digest)
    digest[byte] ^= 1
    assert ROOT.rng().bytes(16) != Key(bytes(digest)).rng().bytes(16)


def test_what_a_seed_draws_never_changes():
    """A run is resumed, and a paper reproduced, years later."""
    assert Key.from_seed(7).fold_in("round", 3).digest.hex() == (
        "ad175793b6e48a8ac90f80aa2b512130670f015ee83a7aeea4d1bbe0a19fce01"
    )
    assert Key.from_seed(7).rng().bit_generator.random_raw(2).tolist() == [
        6209098517395512832,
        1909489894662794066,
    ]


def _chi2(values, bins):
    counts = np.histogram(values, bins=bins, range=(0, 1))[0]
    expected = len(values) / bins
    return float(np.square(counts - expected).sum() / expected)


def test_siblings_draw_uniformly_and_independently():
    draws = np.array([ROOT.fold_in("client", i).rng().random(4) for i in range(4000)])
    # 15 degrees of freedom: 45 is exceeded once in 13,000 fair trials.
    assert all(_chi2(draws[:, column], 16) < 45 for column in range(4))
    correlation = np.corrcoef(np.hstack([draws[:-1], draws[1:]]).T)
    assert np.abs(correlation - np.eye(8)).max() < 0.08


def test_a_parent_and_its_child_draw_independently():
    parents = [ROOT.fold_in(i) for i in range(4000)]
    pairs = np.array([[p.rng().random(), p.fold_in("child").rng().random()] for p in parents])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.08


def test_both_roots_of_a_seed_are_reproducible_and_differ():
    keys = Keys.from_seed(5)
    assert keys == Keys.from_seed(5)
    assert len({keys.public, keys.secret, Key.from_seed(5)}) == 3


@given(paths)
def test_both_keys_are_folded_alike(path):
    keys = Keys.from_seed(5).fold_in(*path)
    assert keys == Keys(Keys.from_seed(5).public.fold_in(*path), Keys.from_seed(5).secret.fold_in(*path))


def test_the_secret_of_a_deployment_does_not_follow_from_the_seed():
    many = [Keys.for_deployment(5) for _ in range(50)]
    assert {keys.public for keys in many} == {Keys.from_seed(5).public}
    assert len({keys.secret for keys in many}) == 50
    assert Keys.from_seed(5).secret not in {keys.secret for keys in many}


def test_entropy_gives_keys_that_nobody_has_seen():
    keys = [Key.from_entropy() for _ in range(100)]
    assert len(set(keys)) == 100
    assert {len(key.digest) for key in keys} == {32}
