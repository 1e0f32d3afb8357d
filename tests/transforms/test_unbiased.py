"""Sketches are unbiased, and vary no more than was published. All keys are fixed."""

import numpy as np
import pytest

from hanse.core import Chain, Keys, Part, Spec, Total
from hanse.transforms import cast, deflate, per_block, per_client, per_round, quantize, rotate, subsample

NUM = 10_000
KEYS = Keys.from_seed(3)
RNG = np.random.default_rng(7)
MESSAGE = {
    "matrix": RNG.normal(size=(3, 4)).astype(np.float32),
    "kernel": RNG.standard_t(2, size=(2, 2, 1, 3)),
    "tiny": (RNG.normal(size=6) * 1e-30).astype(np.float32),
    "huge": (RNG.normal(size=6) * 1e30).astype(np.float32),
    "spike": np.eye(1, 9, 4, dtype=np.float32)[0] * 100,
    "shifted": (1000 + RNG.random(5)).astype(np.float32),
    "constant": np.full(7, -0.3),
    "zeros": np.zeros((2, 3), np.float32),
    "scalar": np.array(2.5),
}


def encodings(uplink, values, num=NUM):
    """What the server makes of many encodings, with a key each: (num, size) by name, in float64."""
    chain = Chain.bind(Spec.of(values), uplink)
    rows = {name: np.empty((num, v.size)) for name, v in values.items()}
    for i in range(num):
        keys = KEYS.fold_in(i)
        plans = chain.plan(chain.init(), keys.public.fold_in("plan"))
        sent, _ = chain.encode(plans, Part(values), {}, keys)
        total = Total(chain.open(plans, sent, keys.public).values, 1.0, 1)
        total, _ = chain.decode(chain.init(), plans, total, keys.secret)
        for name, row in rows.items():
            row[i] = total.values[name].reshape(-1)
    return rows


def check_means(rows, values, slack):
    """Empirical Bernstein bounds (Maurer and Pontil 2009, theorem 4), Bonferroni-corrected.

    All of them hold but once in a thousand such tests. `slack` is what floating point may round.
    """
    num_coordinates = sum(v.size for v in values.values())
    likely = np.log(2 * 2 * num_coordinates / 0.001)
    for name, row in rows.items():
        x = values[name].reshape(-1).astype(np.float64)
        width = 2 * np.abs(row - x).max()
        bound = np.sqrt(2 * row.var(0) * likely / len(row)) + 7 * width * likely / (3 * len(row))
        bound += slack * np.abs(x).max()
        assert (np.abs(row.mean(0) - x) <= bound).all(), name


ONE = {"spike": MESSAGE["spike"]}
MANY = 10
"""So many copies of one tensor travel in a message, under names of their own; each is drawn apart."""


@pytest.mark.parametrize(
    ("uplink", "values"),
    [
        ((quantize(2),), MESSAGE),
        ((quantize(5, per_block(4)), deflate()), ONE),
        ((subsample(0.25),), MESSAGE),
        ((subsample(0.5, drawn=per_round()), quantize(3)), ONE),
        ((rotate(drawn=per_client()), quantize(1)), ONE),
        ((subsample(0.5), rotate(), quantize(2)), ONE),
    ],
    ids=lambda given: str(given) if isinstance(given, tuple) else f"{len(given)} tensors",
)
def test_the_mean_of_ten_thousand_encodings_is_what_was_encoded(uplink, values):
    if values is not ONE:
        rows = encodings(uplink, values)
    else:
        copies = {f"{name}{i}": value for name, value in values.items() for i in range(MANY)}
        drawn = encodings(uplink, copies, NUM // MANY)
        rows = {name: np.concatenate([drawn[f"{name}{i}"] for i in range(MANY)]) for name in values}
    check_means(rows, values, slack=1e-6)


BATCH = np.concatenate([RNG.standard_t(3, 60), [40.0, 0.0, 0.0, -0.0]])
"""Repeated in blocks of its size, one message holds ten thousand encodings of it."""


def quantized(x, bits, transforms=()):
    values = {"w": np.tile(x, NUM)}
    chain = Chain.bind(Spec.of(values), (*transforms, quantize(bits, per_block(x.size))))
    plans = chain.plan(chain.init(), KEYS.public)
    sent, _ = chain.encode(plans, Part(values), {}, KEYS)
    return chain.open(plans, sent, KEYS.public).values["w"].reshape(NUM, x.size)


@pytest.mark.parametrize("bits", range(1, 9))
def test_quantize_is_unbiased_and_varies_as_its_levels_say(bits):
    rows = quantized(BATCH, bits)
    check_means({"w": rows}, {"w": BATCH}, slack=1e-6)
    step = (BATCH.max() - BATCH.min()) / (2**bits - 1)
    part = (BATCH - BATCH.min()) / step % 1.0
    exact = part * (1 - part) * step**2
    error = np.square(rows - BATCH).sum(1)
    assert error.mean() == pytest.approx(exact.sum(), rel=0.03)
    # Suresh et al. 2017, theorem 2, for one client: d / (2 (k - 1)²) |x|².
    assert error.mean() <= BATCH.size / (2 * (2**bits - 1) ** 2) * np.square(BATCH).sum()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_rotated_the_error_grows_only_with_the_logarithm(bits):
    d, levels = 256, 2**bits - 1
    spikes = np.zeros(d)
    spikes[[3, 100]] = 50.0, -1.0
    values = {"w": spikes}
    rows = encodings((rotate(block=d, drawn=per_client()), quantize(bits)), values, 1000)["w"]
    error = np.square(rows - spikes).sum(1).mean()
    # Suresh et al. 2017, theorem 3, for one client.
    assert error <= (2 * np.log(d) + 2) / levels**2 * np.square(spikes).sum()


def test_rotation_matters_where_few_entries_are_large():
    d = 4096
    x = np.random.default_rng(1).normal(size=d) * 0.01
    x[:4] = 10.0, -10.0, 7.0, 5.0
    errors = [
        np.square(encodings(uplink, {"w": x}, 20)["w"] - x).sum(1).mean() / np.square(x).sum()
        for uplink in ((quantize(2),), (rotate(), quantize(2)))
    ]
    assert errors[0] > 100 * errors[1]


@pytest.mark.parametrize("fraction", [0.0625, 0.25, 0.5])
def test_subsampling_varies_as_published(fraction):
    x = RNG.normal(size=48)
    rows = encodings((subsample(fraction),), {"w": x}, 4000)["w"]
    d_k = x.size / np.ceil(fraction * x.size)
    error = np.square(rows - x).sum(1)
    assert error.mean() == pytest.approx((d_k - 1) * np.square(x).sum(), rel=0.05)


def test_the_mean_over_clients_varies_less_if_each_draws_its_own():
    x = RNG.normal(size=64)
    apart = encodings((subsample(0.25),), {"w": x}, 1000)["w"]
    mean_of_ten = apart.reshape(100, 10, -1).mean(1)
    assert np.square(mean_of_ten - x).sum(1).mean() < 0.15 * np.square(apart - x).sum(1).mean()


def test_casting_is_not_unbiased_but_close():
    x = RNG.normal(size=1000)
    row = encodings((cast("bfloat16"),), {"w": x}, 1)["w"][0]
    assert 0 < np.abs(row - x).max() < 2**-8 * np.abs(x).max()
