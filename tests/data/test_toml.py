"""What a settings file says for each data set, partition and preprocessing."""

import tomllib
from typing import Any

import pytest

from hanse.config import WrongSetting, build, to_plain
from hanse.core.exchange import find_classes
from hanse.data import (
    Dataset,
    Partition,
    by_key,
    csv,
    custom,
    dirichlet,
    feature_noise,
    feature_shards,
    hugging_face,
    idx,
    iid,
    labels_per_client,
    libsvm,
    log_normal,
    mnist,
    npz,
    parquet,
    party_files,
    power_law,
    quantity,
    regions,
    scikit_learn,
    text,
)
from hanse.preprocessing import Preprocessing, tabular
from hanse.preprocessing.moments import two_sums, unscaled
from hanse.preprocessing.vocabularies import own_category

DATA = {
    """
    name = "csv"
    path = "stays.csv"
    label = "died"
    key = "hospital"
    drop = ["patient_id"]
    categorical = ["ward"]
    missing = ["?", "unknown"]
    test = "later.csv"
    """: csv(
        "stays.csv",
        label="died",
        key="hospital",
        drop=("patient_id",),
        categorical=("ward",),
        missing=("?", "unknown"),
        test="later.csv",
    ),
    """
    name = "csv"
    path = "survival.csv"
    target = ["time", "event"]
    decimal = ","
    columns = ["age", "time", "event"]
    test_fraction = 0.3
    """: csv(
        "survival.csv",
        target=("time", "event"),
        decimal=",",
        columns=("age", "time", "event"),
        test_fraction=0.3,
    ),
    """
    name = "party_files"
    path = "stays"
    label = "died"
    key = "house"
    parties.north = {name = "csv", path = "n.csv", censored = "half", dates = {seen = "%d.%m.%Y"}}
    parties.west = {name = "parquet", path = "w.parquet"}
    """: party_files(
        "stays",
        label="died",
        key="house",
        parties={
            "north": csv("n.csv", censored="half", dates={"seen": "%d.%m.%Y"}),
            "west": parquet("w.parquet"),
        },
    ),
    """
    name = "parquet"
    path = "stays.parquet"
    target = "days"
    key = "hospital"
    """: parquet("stays.parquet", target="days", key="hospital"),
    """
    name = "npz"
    path = "scans.npz"
    y = "diagnosis"
    key = "hospital"
    """: npz("scans.npz", y="diagnosis", key="hospital"),
    """
    name = "mnist"
    folder = "mnist"
    """: mnist("mnist"),
    """
    name = "idx"
    images = "emnist-train-images-idx3-ubyte.gz"
    labels = "emnist-train-labels-idx1-ubyte.gz"
    """: idx("emnist-train-images-idx3-ubyte.gz", "emnist-train-labels-idx1-ubyte.gz"),
    """
    name = "libsvm"
    path = "a9a.gz"
    test = "a9a.t.gz"
    """: libsvm("a9a.gz", test="a9a.t.gz"),
    """
    name = "text"
    path = "shakespeare.txt"
    length = 80
    """: text("shakespeare.txt"),
    """
    name = "hugging_face"
    path = "ylecun/mnist"
    label = "label"
    test = "test"
    """: hugging_face("ylecun/mnist", label="label", test="test"),
    """
    name = "scikit_learn"
    which = "wine"
    """: scikit_learn("wine"),
    """
    name = "custom"
    function = "my_data.py:load"
    """: custom("my_data.py:load"),
}

PARTITIONS = {
    'name = "by_key"': by_key(),
    'name = "labels_per_client"\nnum_clients = 100\nnum_labels = 2': labels_per_client(100, 2),
    'name = "quantity"\nnum_clients = 100\nsizes = {name = "power_law", exponent = 1.2}': quantity(
        100, power_law(1.2)
    ),
    'name = "quantity"\nnum_clients = 100\nsizes = "log_normal"': quantity(100, log_normal()),
    'name = "feature_shards"\nnum_clients = 10\nfeature = "age"': feature_shards(10, "age"),
    'name = "feature_shards"\nnum_clients = 10\nfeature = 3': feature_shards(10, 3),
    """
    name = "feature_noise"
    variance = 0.2
    shares = {name = "iid", num_clients = 10}
    """: feature_noise(iid(10), 0.2),
    """
    name = "regions"
    across = {name = "dirichlet", num_clients = 5, alpha = 0.1}
    within = {name = "iid", num_clients = 20}
    """: regions(dirichlet(5, 0.1), iid(20)),
}

PREPROCESSINGS = {
    'name = "tabular"': tabular(),
    """
    name = "tabular"
    numbers = "unscaled"
    missing = "own_category"
    max_categories = 20
    statistics = {name = "two_sums", into = "sum"}
    """: tabular(unscaled(), own_category(), 20, statistics=two_sums()),
}

CASES = [
    (kind, text, due)
    for kind, cases in ((Dataset, DATA), (Partition, PARTITIONS), (Preprocessing, PREPROCESSINGS))
    for text, due in cases.items()
]


@pytest.mark.parametrize(("kind", "text", "due"), CASES, ids=lambda case: type(case).__name__)
def test_a_table_says_a_value(kind: type, text: str, due: Any) -> None:
    assert build(kind, tomllib.loads(text), "it") == due
    assert build(kind, to_plain(due), "it") == due


def test_all_can_be_said() -> None:
    named = {type(due) for _, _, due in CASES}
    for kind in (Dataset, Partition, Preprocessing):
        ours = {cls for cls in find_classes(kind).values() if cls.__module__.startswith("hanse.")}
        assert {cls.__name__ for cls in ours - named} <= {"arrays", "digits", "iid", "dirichlet", "shards"}


def test_what_is_wrong_is_said_of_the_setting() -> None:
    with pytest.raises(WrongSetting, match=r"data.path is missing; csv needs path"):
        build(Dataset, {"name": "csv"}, "data")
    with pytest.raises(WrongSetting, match="data: label is 'a' and target is 'b'; give one"):
        build(Dataset, {"name": "csv", "path": "x", "label": "a", "target": "b"}, "data")
