"""Formats other than CSV."""

import gzip
import io
import struct
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from real_data import real

from hanse.core import Array, InvalidInput, Key
from hanse.core.exchange import find_classes, pack, unpack
from hanse.data import (
    Dataset,
    by_key,
    custom,
    hugging_face,
    idx,
    libsvm,
    mnist,
    npz,
    parquet,
    partition_data,
    scikit_learn,
    text,
)
from hanse.data.idx import FILES, read_idx

X, Y = np.arange(24.0).reshape(12, 2), np.arange(12) % 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


READERS = [
    custom("a.b:c"),
    hugging_face("owner/name", label="y"),
    idx("images", "labels"),
    libsvm("a9a"),
    mnist("folder"),
    npz("a.npz"),
    parquet("a.parquet", label="y"),
    scikit_learn(),
    text("play.txt"),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: type(reader).__name__)
def test_readers_are_registered_values_that_read_when_they_load(reader: Dataset) -> None:
    assert find_classes(Dataset)[type(reader).__name__] is type(reader)
    assert unpack(pack(reader)) == reader


@pytest.mark.parametrize(
    "make", [idx("a", "b"), libsvm("a"), npz("a"), text("a"), scikit_learn(), parquet("a")]
)
def test_a_share_leaves_something_to_train_on(make: Any) -> None:
    fields = {name: getattr(make, name) for name in make.__dataclass_fields__ if name != "_"}
    with pytest.raises(InvalidInput, match="test_fraction is 1"):
        type(make)(**fields | {"test_fraction": 1})


# .npz


def test_arrays_are_found_by_name() -> None:
    np.savez_compressed("a.npz", scans=X, diagnosis=Y, test_scans=X[:4], test_diagnosis=Y[:4])
    data = npz("a.npz", x="scans", y="diagnosis").load()
    assert data.test is not None
    assert (len(data.train), len(data.test), data.num_classes) == (12, 4, 3)
    np.testing.assert_array_equal(data.train.x, X)


def test_arrays_may_hold_words_and_keys() -> None:
    np.savez("a.npz", x=X, y=np.array(["b", "a", "c"])[Y], who=np.arange(12) // 4)
    data = npz("a.npz", key="who").load()
    assert data.test is not None
    assert data.test_keys is not None
    assert (data.classes, len(data.train), len(data.test)) == (("a", "b", "c"), 10, 2)
    assert partition_data(data, by_key(), Key.from_seed(0)).names == ("0", "1", "2")
    assert npz("a.npz", test_fraction=0).load().train.y.tolist() == [1, 0, 2] * 4


def test_unusable_archives_are_named() -> None:
    np.savez("a.npz", x=X, labels=Y, z=np.array([{}], object))
    with pytest.raises(InvalidInput, match=r"not an archive of plain arrays .*numpy.savez_compressed"):
        npz("a.npz").load()
    np.savez("a.npz", x=X, labels=Y)
    with pytest.raises(InvalidInput, match=r"a.npz has no array 'y'; known: labels, x; write y = "):
        npz("a.npz").load()
    np.savez("a.npz", x=np.where(X == 5, np.nan, X), y=Y)
    with pytest.raises(InvalidInput, match=r"a.npz: train: the feature in row 2, column 1 is nan"):
        npz("a.npz").load()
    Path("a.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidInput, match="not an archive of plain arrays"):
        npz("a.npz").load()


MANY = {
    "reals": X,
    "by columns": np.asfortranarray(X),
    "other bytes": X.astype(">f4"),
    "whole": np.arange(5000, dtype=np.uint16).reshape(50, 10, 10),
    "flags": Y > 1,
    "words": np.array(["", "été", "longer"]),
    "days": np.array(["2026-01-01"], "M8[D]"),
    "alone": np.array(3.5),
    "none": np.zeros((0, 4)),
    "nothing": np.array([""], "U0"),
    "table": np.zeros(3, [("a", "f8"), ("b", "U4")]),
    "été": np.zeros(3, [("été", "f8")]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("gzipped", [False, True])
def test_arrays_are_those_that_numpy_reads(save: Any, gzipped: bool) -> None:
    save("a.npz", **MANY)
    with ZipFile("a.npz", "a") as archive:
        archive.writestr("a note.txt", "that is no array")
    if gzipped:
        Path("a.npz").write_bytes(gzip.compress(Path("a.npz").read_bytes()))
    found = npz("a.npz").read_arrays()
    assert found.keys() == MANY.keys()
    for name, array in MANY.items():
        assert (found[name].dtype, found[name].flags.f_contiguous) == (array.dtype, array.flags.f_contiguous)
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_with_one_wrong_byte_is_refused(save: Any) -> None:
    save("a.npz", x=np.random.default_rng(0).random((40, 3)), y=np.arange(40) % 2)
    whole = Path("a.npz").read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        wrong = bytearray(whole)
        wrong[place] ^= 0x10
        Path("a.npz").write_bytes(wrong)
        try:
            found = npz("a.npz").read_arrays()
        except InvalidInput:
            refused += 1
        else:  # a date, a flag or a name
            assert all((array.tobytes() in whole) or save is not np.savez for array in found.values())
    assert refused > 0.8 * len(whole) / 7
    Path("a.npz").write_bytes(whole[:-100])
    with pytest.raises(InvalidInput, match="not an archive of plain arrays"):
        npz("a.npz").load()


# idx


def write_idx(name: str, array: Array, code: int = 8, *, pack: bool = False) -> str:
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    Path(name).write_bytes(gzip.compress(data) if pack else data)
    return name


IMAGES = np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2)
LABELS = Y.astype(np.uint8)


def test_idx_arrays_are_what_was_written() -> None:
    for code, dtype in ((8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")):
        array = np.arange(-6, 6).astype(dtype).reshape(3, 4)
        found = read_idx(write_idx("a", array, code, pack=code % 2 == 0))
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


def test_images_are_scaled() -> None:
    data = idx(write_idx("images", IMAGES, pack=True), write_idx("labels", LABELS), test_fraction=0.25).load()
    assert data.test is not None
    assert (data.feature_shape, data.num_classes, len(data.test)) == ((2, 2), 3, 3)
    assert data.train.x.dtype == np.float32
    assert max(data.train.x.max(), data.test.x.max()) == np.float32(47) / np.float32(255)


def test_mnist_is_four_files(folder: Path) -> None:
    for i, name in enumerate(FILES):
        write_idx(name + ".gz" * (i % 2), IMAGES if "images" in name else LABELS, pack=i % 2 == 1)
    data = mnist(str(folder)).load()
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (12, 12)
    Path(FILES[2]).unlink()
    with pytest.raises(InvalidInput, match=r"holds no t10k-images-idx3-ubyte.gz \(or unpacked\)"):
        mnist(str(folder)).load()
    with pytest.raises(InvalidInput, match="no folder 'nowhere'"):
        mnist("nowhere").load()


def test_unusable_idx_files_are_named() -> None:
    images, labels = write_idx("images", IMAGES), write_idx("labels", LABELS)
    with pytest.raises(InvalidInput, match=r"images holds an array of shape .*; name a file of labels"):
        idx(images, images).load()
    with pytest.raises(InvalidInput, match="name the files of one set"):
        idx(images, write_idx("few", LABELS[:5])).load()
    with pytest.raises(InvalidInput, match="test_images and test_labels is given alone"):
        idx(images, labels, test_images=images)
    Path("cut").write_bytes(Path(images).read_bytes()[:-1])
    with pytest.raises(InvalidInput, match="cut is cut off or damaged: 63 bytes, and its header says 64"):
        read_idx("cut")
    Path("other").write_bytes(b"PNG")
    with pytest.raises(InvalidInput, match="other is not an idx file: it starts with 50 4e 47"):
        read_idx("other")


def test_mnist_is_read_as_published() -> None:
    data = mnist(real("mnist")).load()
    assert data.test is not None
    assert (data.train.x.shape, len(data.test), data.num_classes) == ((60000, 28, 28), 10000, 10)
    assert data.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.train.x.mean() == pytest.approx(0.1307, abs=1e-4)


# libsvm


def lines(text: str, name: str = "a") -> str:
    Path(name).write_text(text)
    return name


def test_sparse_lines_become_dense_rows() -> None:
    text = "+1 1:0.5 3:2  # a remark\n\n-1\n+1 2:-1e1\n"
    data = libsvm(lines(text), test_fraction=0).load()
    np.testing.assert_array_equal(data.train.x, np.array([[0.5, 0, 2], [0, 0, 0], [0, -10, 0]], np.float32))
    assert (data.train.y.tolist(), data.classes) == ([1, 0, 1], ("-1", "1"))


def test_a_test_file_may_have_more_features() -> None:
    data = libsvm(lines("1 1:1\n2 2:1\n"), test=lines("2 4:1\n", "b")).load()
    assert data.test is not None
    assert (data.train.x.shape, data.test.x.tolist(), data.test.y.tolist()) == ((2, 4), [[0, 0, 0, 1]], [1])


def test_parties_agree_on_features_and_classes() -> None:
    data = libsvm(lines("1 1:1\n1 2:1\n"), num_features=5, classes=("-1", "1"), test_fraction=0).load()
    assert (data.train.x.shape, data.train.y.tolist(), data.num_classes) == ((2, 5), [1, 1], 2)


def test_labels_may_be_targets() -> None:
    data = libsvm(lines("1.5 1:1\n2 2:1\n"), regression=True, test_fraction=0).load()
    assert (data.train.y.tolist(), data.num_classes) == ([1.5, 2], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a is empty"),
        ("1 1:1\nyes 1:1\n", "a, line 2: the label is 'yes'; a line is a number and pairs"),
        ("1 1:1\n0 1:x\n", "a, line 2: feature 1 is 'x'"),
        ("1 0:1\n", "a, line 1: feature 0 after feature 0; write them in order, from 1"),
        ("1 3:1 2:1\n", "feature 2 after feature 3"),
        ("1 3\n", "'3' is not a pair feature:value"),
        ("1 qid:3 1:1\n", "'qid:3' ranks examples in groups"),
        ("1 1:1\n1 2:1\n", "a: the label is '1' in every row"),
        ("1 1:1\n2 99999999999:1\n", "2 examples of 99999999999 features, which are 800 GB"),
    ],
)
def test_unusable_lines_are_named(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        libsvm(lines(text)).load()


def test_a_feature_beyond_the_number_is_named() -> None:
    with pytest.raises(InvalidInput, match="a has a feature 7, and num_features is 5; write 7 or more"):
        libsvm(lines("1 7:1\n2 1:1\n"), num_features=5).load()


def test_a9a_is_read_as_scikit_learn_reads_it() -> None:
    from sklearn.datasets import load_svmlight_file

    data = libsvm(real("libsvm/a9a.gz"), test=real("libsvm/a9a.t.gz"), num_features=123).load()
    x, y = load_svmlight_file(real("libsvm/a9a.gz"))
    np.testing.assert_array_equal(data.train.x, x.toarray())
    np.testing.assert_array_equal(data.train.y, y > 0)


# Text

PLAY = """\
Enter two.

Romeo:
abcdefg
hij

JULIET:
0123456789

Romeo:
klé€

who goes on

JULIET:

Nurse:
x
"""


def test_speakers_are_keys_and_their_characters_sequences() -> None:
    data = text(lines(PLAY), length=4, test_fraction=0).load()
    assert data.keys is not None
    assert data.keys.tolist() == ["JULIET"] * 2 + ["Romeo"] * 7
    spoken = ["".join(map(chr, row)) for row in data.train.x]
    assert spoken == ["0123", "4567", "abcd", "efg\n", "hij\n", "kle\x7f", "\nwho", " goe", "s on"]
    following = ["".join(map(chr, row)) for row in data.train.y]
    assert following[:3] == ["1234", "5678", "bcde"]
    assert (data.train.x.dtype.kind, data.num_classes) == ("i", None)


def test_the_end_of_what_is_said_is_for_testing() -> None:
    data = text(lines(PLAY), length=4, test_fraction=0.5).load()
    shared = partition_data(data, by_key(), Key.from_seed(0))
    assert shared.names == ("JULIET", "Romeo")
    assert [list(shared.sizes()), list(shared.test_sizes())] == [[1, 4], [1, 3]]
    assert "".join(map(chr, shared.role("test/0").x[0])) == "4567"


def test_texts_without_speakers_are_refused() -> None:
    with pytest.raises(
        InvalidInput, match='a: no speaker was found; a speech starts with a line such as "HAM'
    ):
        text(lines("All happy families are alike.\n")).load()
    with pytest.raises(InvalidInput, match="no speaker has more than 29 characters; write length=28 or less"):
        text(lines(PLAY)).load()
    with pytest.raises(InvalidInput, match="length is 0"):
        text("a", length=0)


def test_shakespeare_has_256_roles() -> None:
    data = text(real("shakespeare/tinyshakespeare.txt")).load()
    shared = partition_data(data, by_key(), Key.from_seed(0))
    assert (shared.num_clients, data.feature_shape) == (256, (80,))
    assert data.train.x.max() < 127


# One's own function

MINE = """
import numpy as np
from hanse.core import Examples
from hanse.data import TrainTest, arrays, csv, digits

x, y = np.eye(4), np.array([0, 1, 0, 1])
limit = 3

def pair(): return x, y
def four(): return x.tolist(), y, x[:2], y[:2]
def examples(): return Examples(x, y)
def whole(): return TrainTest(Examples(x, y), num_classes=2)
def dataset(): return arrays(x, y)
def nothing(): return None
def broken(): import pandas_is_not_here
"""


@pytest.mark.parametrize("name", ["pair", "four", "examples", "whole", "dataset"])
def test_a_function_may_return_what_is_at_hand(name: str) -> None:
    lines(MINE, "mine.py")
    data = custom(f"mine.py:{name}").load()
    assert (data.num_classes, data.test is None) == (2, name in ("examples", "whole"))
    if name in ("pair", "dataset"):  # as of files, a fifth is held out
        assert data.test is not None
        rows = np.concatenate([data.train.x, data.test.x])
        np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(np.eye(4), axis=0))
        assert len(data.test) == 1
    else:
        np.testing.assert_array_equal(data.train.x, np.eye(4))


def test_a_function_may_be_in_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    (folder / "wards").mkdir()
    lines(MINE, "wards/loading.py")
    assert custom("wards.loading:pair").load().num_classes == 2
    sys.modules.pop("wards.loading")


def test_unusable_functions_are_named() -> None:
    lines(MINE, "mine.py")
    with pytest.raises(InvalidInput, match=r"function is 'mine.py'; write \"package.module:function\""):
        custom("mine.py")
    with pytest.raises(InvalidInput, match=r"mine.py has no function 'pairs'; did you mean 'pair'"):
        custom("mine.py:pairs").load()
    with pytest.raises(InvalidInput, match=r"mine.py has no function 'limit'"):
        custom("mine.py:limit").load()
    with pytest.raises(InvalidInput, match=r"mine.py:nothing returns a NoneType; let it return"):
        custom("mine.py:nothing").load()
    with pytest.raises(InvalidInput, match=r"no file 'yours.py'"):
        custom("yours.py:pair").load()
    with pytest.raises(InvalidInput, match=r"no module 'yours' .* write its path: \"yours/data.py:func"):
        custom("yours.data:pair").load()
    with pytest.raises(ModuleNotFoundError, match="pandas_is_not_here"):
        custom("mine.py:broken").load()


# Other libraries


def test_scikit_learn_brings_data_sets() -> None:
    for which in ("iris", "wine", "breast_cancer", "digits", "diabetes"):
        data = scikit_learn(which).load()  # type: ignore[arg-type, unused-ignore]
        assert data.test is not None
        assert (data.num_classes is None) == (which == "diabetes")
        assert len(data.classes) == (data.num_classes or 0)
    with pytest.raises(InvalidInput, match="which is 'irs'; did you mean 'iris'"):
        scikit_learn("irs")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reader", "module", "message"),
    [
        (parquet("a.parquet", label="y"), "pyarrow", r"parquet\(\) needs .*pip install 'hanse\[parquet\]'"),
        (hugging_face("a", label="y"), "datasets", r"hugging_face\(\) needs .*'hanse\[huggingface\]'"),
        (scikit_learn(), "sklearn.datasets", r"scikit_learn\(\) needs .*pip install 'hanse\[sklearn\]'"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    reader: Dataset, module: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidInput, match=message):
        reader.load()


def write_parquet(**columns: Any) -> str:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow.parquet import write_table  # type: ignore[import-untyped]

    write_table(arrow.table(columns), "a.parquet")
    return "a.parquet"


def test_parquet_columns_are_numbers_and_words() -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    path = write_parquet(
        age=[31, None, 28],
        tall=[True, False, None],
        job=arrow.array(["cook", None, "cook"]).dictionary_encode(),
        empty=arrow.nulls(3),
        when=arrow.array([b"\0", b"\1", b"\2"], arrow.binary()),
        hospital=[7, 8, 7],
        died=["no", "yes", "no"],
    )
    data = parquet(path, label="died", key="hospital", drop=("when",), test_fraction=0).load()
    assert data.keys is not None
    assert (data.keys.tolist(), data.classes, data.train.y.tolist()) == (
        ["7", "8", "7"],
        ("no", "yes"),
        [0, 1, 0],
    )
    x = data.train.x
    assert x.dtype.names == ("age", "tall", "job", "empty")
    np.testing.assert_array_equal(x["age"], [31, np.nan, 28])
    np.testing.assert_array_equal(x["tall"], [1, 0, np.nan])
    assert x["job"].tolist() == ["cook", "", "cook"]
    with pytest.raises(InvalidInput, match=r"a.parquet: column 'when' holds binary, .*; drop it"):
        parquet(path, label="died").load()


def test_parquet_rows_are_named() -> None:
    path = write_parquet(x=[1.0, 2], y=["a", None])
    with pytest.raises(InvalidInput, match=r"a.parquet, row 2: column 'y' is empty"):
        parquet(path, label="y").load()
    with pytest.raises(InvalidInput, match="no column 'z' for label"):
        parquet(path, label="z").load()
    with pytest.raises(InvalidInput, match="is no Parquet file"):
        parquet(lines("x,y\n1,2\n"), label="y").load()


def test_parquet_may_hold_embeddings() -> None:
    path = write_parquet(e=[[1, 2.5], [3, 4]], y=[0, 1], z=[0, 0])
    data = parquet(path, label="y", drop=("z",), test_fraction=0).load()
    np.testing.assert_array_equal(data.train.x, np.array([[1, 2.5], [3, 4]], np.float32))
    with pytest.raises(InvalidInput, match=r"column 'e' holds arrays, .* drop = \['z'\]"):
        parquet(path, label="y").load()
    with pytest.raises(InvalidInput, match="of different lengths"):
        parquet(write_parquet(e=[[1], [3, 4]], y=[0, 1]), label="y").load()


def saved_data_set() -> str:
    library = pytest.importorskip("datasets", reason="needs the extra huggingface")
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    features = library.Features(
        {
            "image": library.Image(),
            "label": library.ClassLabel(names=["shirt", "bag"]),
            "age": library.Value("int32"),
            "who": library.Value("string"),
        }
    )
    rows = {
        "image": [image.fromarray(np.full((3, 3), i, np.uint8)) for i in range(6)],
        "label": [0, 1] * 3,
        "age": [1, 2, None, 4, 5, 6],
        "who": ["a", "b"] * 3,
    }
    split = library.Dataset.from_dict(rows, features=features)
    library.DatasetDict({"train": split, "test": split.select([0, 1])}).save_to_disk("saved")
    return "saved"


def test_hugging_face_images_are_arrays() -> None:
    data = hugging_face(saved_data_set(), label="label", key="who", drop=("age",), test="test").load()
    assert data.test is not None
    assert (data.feature_shape, data.classes, data.train.y.tolist()) == ((3, 3), ("shirt", "bag"), [0, 1] * 3)
    assert data.train.x[5, 0, 0] == np.float32(5) / np.float32(255)
    assert len(data.test) == 2


def test_hugging_face_columns_are_a_table() -> None:
    data = hugging_face(saved_data_set(), label="label", drop=("image",), test_fraction=0).load()
    assert data.train.x.dtype.names == ("age", "who")
    assert np.isnan(data.train.x["age"][2])


def save_column(given: list[Any], kind: Any) -> str:
    """Saves a data set with a column of this kind, and returns its folder."""
    library = pytest.importorskip("datasets", reason="needs the extra huggingface")
    split = library.Dataset.from_dict({"given": given, "y": [i % 2 for i in range(len(given))]})
    library.DatasetDict({"train": split.cast_column("given", kind)}).save_to_disk("column")
    return "column"


def save_classes(given: list[Any]) -> str:
    library = pytest.importorskip("datasets", reason="needs the extra huggingface")
    return save_column(given, library.ClassLabel(names=["neg", "pos"]))


@pytest.mark.parametrize("as_label", [True, False])
def test_hugging_face_classes_are_names(as_label: bool) -> None:
    saved = save_classes([1, 0, 1, 0])
    data = hugging_face(saved, label="given" if as_label else "y", test_fraction=0).load()
    if as_label:
        assert (data.train.y.tolist(), data.classes) == ([1, 0, 1, 0], ("neg", "pos"))
    else:
        assert data.train.x["given"].tolist() == ["pos", "neg", "pos", "neg"]


@pytest.mark.parametrize("missing", [None, -1])
def test_hugging_face_classes_may_be_missing_but_not_in_a_label(missing: int | None) -> None:
    saved = save_classes([1, 0, missing, 0])
    data = hugging_face(saved, label="y", test_fraction=0).load()
    assert data.train.x["given"].tolist() == ["pos", "neg", "", "neg"]
    with pytest.raises(InvalidInput, match=r"column \(train\), row 3: column 'given' is empty"):
        hugging_face(saved, label="given").load()


@pytest.mark.parametrize("wrong", [-2, -100, 2, 5])
@pytest.mark.parametrize("label", ["y", "given"])
def test_hugging_face_classes_beyond_their_names_are_refused(wrong: int, label: str) -> None:
    saved = save_classes([1, 0, wrong, 0])
    message = rf"column \(train\), row 3: column 'given' is {wrong}; its 2 classes are the integers 0 to 1"
    with pytest.raises(InvalidInput, match=message):
        hugging_face(saved, label=label).load()


GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 51  # 0, 0.2, ..., 1
COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], 2)
BRIGHT = GREY.astype(np.float64) / 255


def palette(image: Any) -> Any:
    """An image of six colours by their numbers, which differ from any brightness."""
    numbered = image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "L").convert("P")
    numbered.putpalette(COLOURS.reshape(-1).tolist())
    return numbered


def transparent(image: Any) -> Any:
    numbered = palette(image)
    file = io.BytesIO()
    numbered.save(file, "PNG", transparency=2)
    return {"bytes": file.getvalue(), "path": None}


MODES: dict[str, tuple[Any, Any]] = {
    "8 bits": (lambda image: image.fromarray(GREY), BRIGHT),
    "1 bit": (lambda image: image.fromarray(GREY > 100), (GREY > 100).astype(float)),
    "16 bits": (lambda image: image.fromarray(GREY.astype(np.uint16) * 257), BRIGHT),
    "floats": (lambda image: image.fromarray(np.float32(BRIGHT * 3)), BRIGHT * 3),
    "colours": (lambda image: image.fromarray(COLOURS), COLOURS / 255),
    "palette": (palette, COLOURS / 255),
    "transparent palette": (transparent, np.dstack([COLOURS / 255, [[1, 1, 0], [1, 1, 1]]])),
    "grey and alpha": (
        lambda image: image.fromarray(GREY).convert("LA"),
        np.dstack([BRIGHT, BRIGHT * 0 + 1]),
    ),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize(("make", "bright"), MODES.values(), ids=MODES.keys())
def test_hugging_face_images_are_black_at_0_and_white_at_1(make: Any, bright: Array) -> None:
    library = pytest.importorskip("datasets", reason="needs the extra huggingface")
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    saved = save_column([library.Image().encode_example(make(image))] * 3, library.Image())
    x = hugging_face(saved, label="y", test_fraction=0).load().train.x
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, np.stack([bright] * 3), atol=1e-6)


def test_hugging_face_images_that_can_not_be_used_are_named() -> None:
    library = pytest.importorskip("datasets", reason="needs the extra huggingface")
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    grey = image.fromarray(GREY)
    for wrong, message in (
        (None, "is empty"),
        (image.fromarray(GREY.astype(np.int32) * 1000), "mode 'I', whose numbers are no brightness"),
        (image.fromarray(COLOURS).convert("CMYK"), "mode 'CMYK'"),
        (image.fromarray(COLOURS), r"shape \(2, 3, 3\), row 1 one of \(2, 3\)"),
        ({"bytes": b"no image", "path": None}, "holds no image that can be read"),
    ):
        encoded = [library.Image().encode_example(item) for item in (grey, grey)]
        encoded.append(None if wrong is None else library.Image().encode_example(wrong))
        saved = save_column(encoded, library.Image())
        with pytest.raises(InvalidInput, match=rf"row 3: column 'given' .*{message}"):
            hugging_face(saved, label="y", test_fraction=0).load()


def test_unknown_splits_are_named() -> None:
    path = saved_data_set()
    with pytest.raises(InvalidInput, match="saved has no split 'tests'; did you mean 'test'"):
        hugging_face(path, label="label", drop=("image",), test="tests").load()
    with pytest.raises(InvalidInput, match="no column 'lable' for label; did you mean 'label'"):
        hugging_face(path, label="lable", drop=("image",)).load()
