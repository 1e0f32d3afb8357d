"""Preprocessing learned from many clients equals that learned from their pooled rows."""

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_data import real
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support import KEYS, Quadratic

from hanse.algorithms import fed_avg
from hanse.algorithms.works import evaluate
from hanse.core import (
    Array,
    CompositionError,
    Examples,
    InvalidInput,
    Key,
    Learner,
    Part,
    PartSpec,
    Spec,
    TensorSpec,
    gather,
    reduce,
    stack,
)
from hanse.core.exchange import Progress, digest, drive, pack, training, unpack
from hanse.data import FederatedData, by_key, csv, digits, dirichlet, from_clients, own_test, partition_data
from hanse.learners import logistic
from hanse.preprocessing.moments import (
    Moments,
    Statistics,
    merged_moments,
    moments,
    standardised,
    two_sums,
    unscaled,
)
from hanse.preprocessing.program import Encoder, Preprocessing, tabular
from hanse.preprocessing.schema import Schema
from hanse.preprocessing.vocabularies import Vocabulary, most_frequent, own_category, tally
from hanse.simulation import Devices, InProcess, Simulation
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive

COLUMNS = [("age", np.float64), ("year", np.float64), ("flat", np.float64), ("job", "U9"), ("ward", "U3")]
SIZES = [1, 1, 40, 7, 200, 3]


def made(number: int, size: int) -> Examples:
    """Make clients that differ; client 3 has no age at all, client 1 no job; here and there is a gap."""
    rng = Key.from_seed(1).fold_in(number).rng()
    x = np.empty(size, COLUMNS)
    x["age"] = rng.normal(40 + 5 * number, 10, size)
    x["year"] = rng.normal(2020, 1, size)
    x["flat"] = 0.1
    x["job"] = rng.choice(["cook", "nurse", "nurse", "Zoë", f"only {number}"], size)
    x["ward"] = rng.choice(["a", "b"], size)
    if size > 5:
        x["age"][rng.random(size) < 0.2] = np.nan
        x["job"][rng.random(size) < 0.3] = ""
    if number == 3:
        x["age"] = np.nan
    if number == 1:
        x["job"] = ""
    return Examples(x, rng.integers(2, size=size))


CLIENTS = [made(number, size) for number, size in enumerate(SIZES)]
DATA = from_clients(CLIENTS, test=made(9, 30), num_classes=2)
POOLED = np.concatenate([examples.x for examples in CLIENTS])
NUMBERS = np.column_stack([POOLED[name] for name in ("age", "year", "flat")])
SCHEMA = Schema.of(POOLED)


def learned(recipe: Preprocessing, data: FederatedData = DATA, learner: Any = None) -> Encoder:
    clients = InProcess(learner or Quadratic(), data, KEYS)
    program = recipe.program(Schema.of(data.client(0).x), KEYS.public)
    return drive(program, Simulation(clients, data.num_clients, KEYS))


def conversed(recipe: Preprocessing, data: FederatedData = DATA) -> Encoder:
    async def run() -> Encoder:
        async with ClientTasks(Quadratic(), data, KEYS) as clients:
            runtime = ConcurrentSimulation(clients, data.num_clients, KEYS)
            return await adrive(recipe.program(Schema.of(data.client(0).x), KEYS.public), runtime)

    return asyncio.run(run())


def close_to(found: Array, due: Array) -> None:
    np.testing.assert_allclose(found, due, rtol=1e-12, atol=1e-12)


EXACT = tabular(dtype="float64")
each_statistics = pytest.mark.parametrize("statistics", [merged_moments(), two_sums()], ids=repr)


# Numbers


@each_statistics
def test_numbers_are_those_of_the_pooled_scaler(statistics: Any) -> None:
    scaler = StandardScaler().fit(NUMBERS)
    encoder = learned(tabular(statistics=statistics))
    close_to(encoder.shift, scaler.mean_)
    close_to(encoder.scale, scaler.scale_)
    close_to(encoder.fill, SimpleImputer().fit(NUMBERS).statistics_)
    rows = learned(tabular(statistics=statistics, dtype="float64"))(Examples(POOLED, POOLED["age"])).x[:, :3]
    close_to(rows, np.nan_to_num(scaler.transform(NUMBERS)))


@each_statistics
def test_a_large_mean_costs_no_digits(statistics: Any) -> None:
    rng = Key.from_seed(3).rng()
    x = rng.normal(2020, 1, (20_000, 3))
    data = from_clients(
        [Examples(part, np.zeros(len(part))) for part in np.split(x, [1, 2, 3, 50, 5000, 5001, 12_000])]
    )
    encoder = learned(tabular(statistics=statistics), data)
    exact = x.astype(np.longdouble)
    close_to(encoder.shift, exact.mean(axis=0).astype(float))
    close_to(encoder.scale, exact.std(axis=0).astype(float))


def test_thousands_of_clients_with_one_example_each_are_as_exact() -> None:
    x = Key.from_seed(4).rng().normal(2020, 1, (5000, 1))
    data = from_clients([Examples(row[None], np.zeros(1)) for row in x])
    encoder = learned(tabular(), data)
    close_to(encoder.scale, x.astype(np.longdouble).std(axis=0).astype(float))


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40),
    cut=st.integers(1, 39),
)
def test_merging_is_pooling(values: list[float], cut: int) -> None:
    column = np.array(values)[:, None]
    cut = 1 + cut % (len(values) - 1)
    parts = [Part(vars(Moments.of(part))) for part in (column[:cut], column[cut:])]
    merged = reduce(moments(), parts).values
    whole = Moments.of(column)
    scale = 1e-12 * (1 + np.abs(column).max())
    np.testing.assert_allclose(merged["mean"], whole.mean, rtol=1e-12, atol=scale)
    np.testing.assert_allclose(merged["m2"], whole.m2, rtol=1e-11, atol=scale**2 * len(values))


def test_the_second_exchange_of_sums_asks_those_who_answered_the_first() -> None:
    """A client that comes too late for the mean must not count in the deviations from it."""
    asked: list[Any] = []

    class Absent(Devices):
        def duration_s(self, party: Any, key: Key) -> float | None:
            asked.append(party)
            return None if party == 4 and asked.count(4) == 1 else 1.0

    backend = InProcess(Quadratic(), DATA, KEYS)
    runtime = Simulation(backend, DATA.num_clients, KEYS, Absent())
    numbers = Schema(SCHEMA.numbers)
    encoder = drive(tabular(statistics=two_sums()).program(numbers, KEYS.public), runtime)
    assert sorted(asked[len(SIZES) :]) == [0, 1, 2, 3, 5]
    others = np.concatenate([CLIENTS[k].x for k in (0, 1, 2, 3, 5)])
    scaler = StandardScaler().fit(np.column_stack([others[name] for name in ("age", "year", "flat")]))
    close_to(encoder.shift, scaler.mean_)
    close_to(encoder.scale, scaler.scale_)


def test_a_column_without_any_value_becomes_zero() -> None:
    x = np.full(4, np.nan, [("age", float)])
    data = from_clients([Examples(x, np.zeros(4))] * 2)
    encoder = learned(tabular(), data)
    assert encoder(data.client(0)).x.tolist() == [[0.0]] * 4


def test_constant_columns_are_moved_and_not_blown_up() -> None:
    assert learned(EXACT).scale[2] == 1
    assert set(learned(EXACT)(DATA.role("server")).x[:, 2]) == {0.0}
    almost = Moments.of(np.array([[2020.1], [2020.1 + 3e-13]] * 50))
    assert almost.m2 > 0
    assert almost.std == 1


def test_numbers_may_stay_as_they_are() -> None:
    found = learned(tabular(unscaled(), dtype="float64"))(Examples(POOLED, POOLED["age"])).x[:, :3]
    close_to(found, SimpleImputer().fit_transform(NUMBERS))


@pytest.mark.parametrize("statistics", [merged_moments(), two_sums()])
def test_deviations_may_be_those_of_a_sample(statistics: Statistics) -> None:
    encoder = learned(tabular(standardised(ddof=1), statistics=statistics, dtype="float64"))
    close_to(encoder.scale[:2], np.nanstd(NUMBERS, axis=0, ddof=1)[:2])
    assert encoder.scale[2] == 1  # a constant column
    assert np.abs(encoder.scale / learned(EXACT).scale - 1)[:2].min() > 1e-4


def test_one_number_has_no_sample_deviation_and_is_only_moved() -> None:
    shift, scale = standardised(ddof=1).shift_and_scale(Moments.of(np.array([[7.0]])))
    assert (shift.tolist(), scale.tolist()) == ([7.0], [1.0])
    with pytest.raises(InvalidInput, match="ddof is 2; write 0 to divide by n, or 1 to divide by n - 1"):
        standardised(ddof=2)


def test_images_keep_their_shape() -> None:
    data = partition_data(digits().load(), dirichlet(10, 0.5), KEYS.public)
    images = data.map(lambda e: Examples(e.x.reshape(-1, 8, 8), e.y))
    encoded = images.map(learned(EXACT, images))
    x = digits().load().train.x
    due = StandardScaler().fit(x.astype(np.float64)).transform(data.client(4).x.astype(np.float64))
    close_to(encoded.client(4).x, due.reshape(-1, 8, 8))


# Categories


def test_words_are_those_of_the_pooled_encoder() -> None:
    encoder = learned(EXACT)
    words = np.column_stack([POOLED["job"], POOLED["ward"]]).astype(object)
    filled = SimpleImputer(missing_values="", strategy="most_frequent").fit_transform(words)
    pooled = OneHotEncoder(sparse_output=False).fit(filled)
    assert [v.categories for v in encoder.vocabularies] == [tuple(c) for c in pooled.categories_]
    found = encoder(Examples(POOLED, POOLED["age"])).x[:, 3:]
    np.testing.assert_array_equal(found, pooled.transform(filled))


def test_the_first_category_may_be_left_out() -> None:
    encoder = learned(tabular(drop_first=True, dtype="float64"))
    words = np.column_stack([POOLED["job"], POOLED["ward"]]).astype(object)
    filled = SimpleImputer(missing_values="", strategy="most_frequent").fit_transform(words)
    pooled = OneHotEncoder(sparse_output=False, drop="first").fit(filled)
    found = encoder(Examples(POOLED, POOLED["age"])).x[:, 3:]
    np.testing.assert_array_equal(found, pooled.transform(filled))
    theirs = pooled.get_feature_names_out(["job", "ward"]).tolist()
    assert [name.replace("=", "_", 1) for name in encoder.names[3:]] == theirs


def test_a_place_for_others_or_for_gaps_stays_when_the_first_is_left_out() -> None:
    some = Vocabulary(("a", "b"), has_other=True, gap=3, drop_first=True)
    assert some.names("x") == ("x=b", "x=(other)", "x=(missing)")
    code = some.encode(np.array(["a", "b", "c", ""]))
    assert code.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    alone = Vocabulary(("a",), drop_first=True)
    assert (alone.num_columns, alone.encode(np.array(["a", ""])).shape) == (0, (2, 0))
    assert Vocabulary((), drop_first=True).num_columns == 0


def test_unknown_words_have_no_place() -> None:
    encoder = learned(EXACT)
    row = POOLED[:1].copy()
    row["job"] = "pilot"
    assert encoder(Examples(row, np.zeros(1))).x[0, 3:-2].tolist() == [0.0] * len(
        encoder.vocabularies[0].categories
    )


def test_a_cap_keeps_the_most_frequent_and_gathers_the_others() -> None:
    counts = Counter(POOLED["job"].tolist())
    del counts[""]
    encoder = learned(tabular(max_categories=3))
    assert encoder.vocabularies[0].categories == tuple(sorted(word for word, _ in counts.most_common(3)))
    job = encoder(Examples(POOLED, POOLED["age"])).x[:, 3:7]
    assert encoder.names[3:7] == ("job=Zoë", "job=cook", "job=nurse", "job=(other)")
    assert job.sum(axis=1).tolist() == [1] * len(POOLED)
    assert job[:, 3].sum() == sum(n for word, n in counts.items() if word.startswith("only"))


def test_equally_frequent_words_are_taken_by_name() -> None:
    counts = {"b": 2, "a": 2, "c": 2, "d": 1, "": 9}
    found = Vocabulary.of(counts, most_frequent(), max_categories=2, min_count=1)
    assert found == Vocabulary(("a", "b"), has_other=True, gap=0)
    assert Vocabulary.of(counts, most_frequent(), max_categories=9, min_count=2).categories == ("a", "b", "c")


def test_gaps_may_be_a_category() -> None:
    encoder = learned(tabular(missing=own_category()))
    assert encoder.names[-3:] == ("job=(missing)", "ward=a", "ward=b")
    job = encoder(Examples(POOLED, POOLED["age"])).x[:, 3:-2]
    np.testing.assert_array_equal(job[:, -1], POOLED["job"] == "")
    assert job.sum(axis=1).tolist() == [1] * len(POOLED)


def test_a_column_of_gaps_alone_has_no_code() -> None:
    data = from_clients([Examples(np.zeros(3, [("age", float), ("job", "U3")]), np.zeros(3))])
    assert learned(tabular(), data)(data.client(0)).x.shape == (3, 1)
    assert learned(tabular(missing=own_category()), data).names == ("age", "job=(missing)")


def test_a_hostile_table_is_read_as_some_table() -> None:
    values = {
        "bytes": np.frombuffer(b"\xff\xfeab", np.uint8),
        "ends": np.array([99, -5, 3]),
        "columns": np.array([7, -1, 0]),
        "counts": np.array([-4, 2, 2**62]),
    }
    total = reduce(tally(), [Part(values), Part(values)])
    assert total.count == 2
    assert total.values["counts"].min() >= 0


# Both, on every runtime

RECIPES = [tabular(), tabular(unscaled(), own_category(), 3), tabular(statistics=two_sums(), fraction=0.5)]


@pytest.mark.parametrize("recipe", RECIPES, ids=["default", "capped", "sums of some"])
def test_both_runtimes_learn_the_same_bits(recipe: tabular) -> None:
    assert digest(conversed(recipe)) == digest(learned(recipe))


def test_an_encoder_is_a_value() -> None:
    encoder = learned(tabular(max_categories=3))
    again = unpack(pack(encoder), Encoder)
    np.testing.assert_array_equal(again(DATA.client(2)).x, encoder(DATA.client(2)).x)
    assert unpack(pack(RECIPES[1])) == RECIPES[1]


def test_server_and_clients_see_the_same_features() -> None:
    encoder = learned(tabular())
    encoded = DATA.map(encoder)
    assert encoded.feature_shape == (len(encoder.names),)
    whole = encoder(Examples(POOLED, POOLED["age"])).x
    np.testing.assert_array_equal(np.concatenate([encoded.client(k).x for k in range(6)]), whole)
    assert encoded.role("server").x.dtype == np.float32


def test_nobody_sends_more_than_statistics() -> None:
    clients = InProcess(Quadratic(), DATA, KEYS)
    runtime = Simulation(clients, DATA.num_clients, KEYS)
    drive(tabular().program(SCHEMA, KEYS.public), runtime)
    assert runtime.coordinator.usage.counted == 2 * len(SIZES)
    assert 0 < runtime.coordinator.usage.bytes_up < 12 * 2000


# Errors


def test_other_columns_are_named() -> None:
    encoder = learned(tabular())
    other = np.zeros(2, [("agee", float), *COLUMNS[1:]])
    with pytest.raises(InvalidInput, match="no column 'age', which all parties need; did you mean 'agee'"):
        encoder(Examples(other, np.zeros(2)))
    as_words = np.zeros(2, [("age", "U3"), *COLUMNS[1:]])
    as_words["age"] = ["", "old"]
    with pytest.raises(InvalidInput, match="column 'age' holds numbers elsewhere, and 'old' here; give it"):
        encoder(Examples(as_words, np.zeros(2)))
    as_numbers = np.zeros(2, [*COLUMNS[:3], ("job", float), COLUMNS[4]])
    with pytest.raises(InvalidInput, match=r"column 'job' holds categories elsewhere, and .* here; give it"):
        encoder(Examples(as_numbers, np.zeros(2)))
    with pytest.raises(InvalidInput, match="2 features a row without names, but 3 are needed"):
        Encoder(Schema(("0", "1", "2")), *np.zeros((3, 3)))(Examples(np.zeros((4, 2)), np.zeros(4)))


def test_a_client_with_other_columns_is_named() -> None:
    other = Examples(np.zeros(2, [("agee", float), *COLUMNS[1:]]), np.zeros(2, int))
    data = from_clients([CLIENTS[0], other], num_classes=2)
    with pytest.raises(InvalidInput, match="no column 'age'") as raised:
        learned(tabular(), data)
    assert "while 1 performed column_moments" in raised.value.__notes__[0]


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidInput, match="max_categories is 0"):
        tabular(max_categories=0)
    with pytest.raises(InvalidInput, match="min_count is -1"):
        tabular(min_count=-1)
    with pytest.raises(InvalidInput, match=r"dtype is 'float16'; did you mean 'float64'"):
        tabular(dtype="float16")


def test_reducers_take_what_they_are_for() -> None:
    with pytest.raises(
        CompositionError, match=r"moments\(\) merges count, mean and m2, but these are real: w"
    ):
        moments().accepts(Spec({"w": TensorSpec((3,), "float64")}))
    with pytest.raises(CompositionError, match=r"tally\(\) adds up tables of counts, but these are real: w"):
        tally().accepts(Spec({"w": TensorSpec((3,), "float64")}))


# Adult, by occupation, from CSV

ADULT = (
    "age workclass fnlwgt education education_num marital_status occupation relationship race sex "
    "capital_gain capital_loss hours_per_week native_country income"
)


def per_client(learner: Learner, data: FederatedData, params: Any) -> Array:
    """Measure each client's accuracy on its own test examples."""
    names = (*learner.metrics, "count")
    part_spec = PartSpec(Spec({name: TensorSpec((), "float64") for name in names}), into=stack())
    parties = tuple(own_test(number) for number in data.find_test_clients())
    program = gather(evaluate(), parties, {"params": params}, KEYS.public, metrics=part_spec)
    total = drive(program, Simulation(InProcess(learner, data, KEYS), data.num_clients, KEYS))[
        "metrics"
    ].values
    return np.asarray(total["correct"] / total["count"])


def test_adult_by_occupation_from_csv_to_a_model() -> None:
    data = csv(
        real("adult/adult.data.gz"),
        label="income",
        key="occupation",
        drop=("fnlwgt",),
        columns=tuple(ADULT.split()),
        comment="|",
        strip=".",
        test=real("adult/adult.test.gz"),
    )
    table = partition_data(data.load(), by_key(), KEYS.public)
    encoder = learned(tabular(), table)
    shared = table.map(encoder)
    assert shared.num_classes == 2
    assert len(encoder.names) == shared.feature_shape[0] == 5 + 85

    learner = logistic().bind(shared.feature_shape, shared.num_classes)
    algorithm = fed_avg(lr=0.05, fraction=1.0, batch_size=50)
    begin = Progress(0, algorithm.init(learner.init(KEYS.public), KEYS.public))
    runtime = Simulation(InProcess(learner, shared, KEYS), shared.num_clients, KEYS)
    params = drive(training(algorithm, begin, KEYS.public, rounds=5), runtime).state.params

    test = shared.role("server")
    measured = learner.evaluate(params, test)
    assert measured["correct"] / measured["count"] > 0.82
    accuracies = per_client(learner, shared, params)
    sizes = shared.test_sizes()
    assert len(accuracies) == 15
    assert (accuracies * sizes).sum() / sizes.sum() == pytest.approx(measured["correct"] / measured["count"])
    assert np.sort(accuracies)[:2].mean() < accuracies.mean()
    assert standardised() == tabular().numbers
