"""Readers hold out validation examples, or read them from files and arrays of their own."""

from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet as arrow

from hanse.core import InvalidInput, Key
from hanse.data import Dataset, TrainTest, csv, iid, libsvm, npz, parquet, partition_data, scikit_learn, text

RNG = np.random.default_rng(0)
NUMBER, WORD, ILL = np.arange(40.0), RNG.choice(["a", "b"], 40), np.arange(40) % 2


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("all", slice(40)), ("train", slice(30)), ("choose", slice(30, 40))):
        columns = {"number": NUMBER[rows], "word": WORD[rows], "ill": ILL[rows]}
        arrow.write_table(pyarrow.table(columns), f"{name}.parquet")
        cells = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        Path(f"{name}.csv").write_text("\n".join([",".join(columns), *cells]))
        lines = [f"{b} 1:{a}" for a, b in zip(NUMBER[rows], ILL[rows], strict=True)]
        Path(f"{name}.txt").write_text("\n".join(lines))
    x, y = NUMBER[:, None], ILL
    np.savez("all.npz", x=x, y=y)
    np.savez("parts.npz", x=x[:30], y=y[:30], validation_x=x[30:], validation_y=y[30:])


def numbers(x: np.ndarray) -> list[float]:
    return (x["number"] if x.dtype.names else x[:, 0]).tolist()  # type: ignore[no-any-return]


def parts(data: TrainTest) -> list[list[float]]:
    return [[] if part is None else numbers(part.x) for part in (data.train, data.test, data.validation)]


HELD_OUT = [
    csv("all.csv", label="ill", validation_fraction=0.1),
    parquet("all.parquet", label="ill", validation_fraction=0.1),
    libsvm("all.txt", validation_fraction=0.1),
    npz("all.npz", validation_fraction=0.1),
]
NAMED = [
    csv("train.csv", label="ill", validation="choose.csv"),
    parquet("train.parquet", label="ill", validation="choose.parquet"),
    libsvm("train.txt", validation="choose.txt"),
    npz("parts.npz"),
]


@pytest.mark.parametrize("data", HELD_OUT, ids=repr)
def test_a_share_of_the_rows_is_held_out_beside_the_test_rows(data: Dataset) -> None:
    train, test, validation = parts(data.load())
    assert (len(train), len(test), len(validation)) == (28, 8, 4)
    assert sorted(train + test + validation) == NUMBER.tolist()


@pytest.mark.parametrize("data", NAMED, ids=repr)
def test_a_file_of_validation_rows_is_read_like_the_training_file(data: Dataset) -> None:
    loaded = data.load()
    train, test, validation = parts(loaded)
    assert validation == NUMBER[30:].tolist()
    assert (len(train), len(test)) == (24, 6)
    assert loaded.validation is not None
    assert loaded.validation.y.tolist() == ILL[30:].tolist()


def test_a_validation_label_that_the_training_rows_lack_is_refused() -> None:
    Path("choose.csv").write_text("number,word,ill\n1,a,2\n")
    with pytest.raises(InvalidInput, match=r"choose.csv, line 2: column 'ill' is '2', which is not a class"):
        csv("train.csv", label="ill", validation="choose.csv").load()


def test_speakers_and_data_of_scikit_learn_are_held_out_too() -> None:
    Path("play.txt").write_text("A:\n" + "abcdefghij" * 10 + "\n")
    plain, held = (text("play.txt", length=4, validation_fraction=share).load() for share in (0.0, 0.2))
    assert plain.test is not None
    assert held.test is not None
    assert held.validation is not None
    np.testing.assert_array_equal(plain.test.x, held.test.x)
    np.testing.assert_array_equal(plain.train.x, np.concatenate([held.train.x, held.validation.x]))
    iris = scikit_learn("iris", validation_fraction=0.1).load()
    assert iris.validation is not None
    assert (len(iris.train), len(iris.validation)) == (105, 15)


def test_a_population_gives_them_to_the_role_of_that_name() -> None:
    data = partition_data(HELD_OUT[3].load(), iid(4), Key.from_seed(0))
    doubled = data.map(lambda examples: type(examples)(examples.x * 2, examples.y))
    np.testing.assert_array_equal(doubled.role("validation").x, data.role("validation").x * 2)
    assert data.holding_out(0.3, Key.from_seed(1)).validation is data.validation
    none = partition_data(npz("all.npz").load(), iid(4), Key.from_seed(0))
    with pytest.raises(InvalidInput, match="role 'validation' holds no examples"):
        none.role("validation")
    assert none.fingerprint != data.fingerprint
