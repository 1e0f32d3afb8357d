import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from hanse.core import layout
from hanse.core.errors import MessageError
from hanse.core.exchange.party import Message
from hanse.core.layout import DTYPES, Mapped, Stored
from hanse.core.values import digest, pack, unpack
from hanse.core.work import Part

TENSORS = {
    **{name: np.arange(5).astype(name) for name in reversed(DTYPES.values())},
    **{'é"\\\n\x01\x7f中': np.ones((2, 3), np.float32), "b/c": np.array(2.5), "a": np.zeros((3, 0, 2))},
}


@pytest.fixture
def mapped_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAPPED_BYTES", 0)


def stored(path: Path, obj: object) -> Stored:
    path.write_bytes(pack(obj))
    return Stored(path)


@pytest.mark.parametrize("skeleton", ["", '{"é":"\\u2028 "}', '{"a":1}'])
def test_the_bytes_are_those_of_the_safetensors_library(skeleton):
    ours = b"".join(layout.lay_out(skeleton, TENSORS))
    assert ours == safetensors.numpy.save(TENSORS, {"hanse": skeleton})
    back = safetensors.numpy.load(ours)
    assert {name: array.tobytes() for name, array in back.items()} == {
        name: array.tobytes() for name, array in TENSORS.items()
    }


def test_mapped_tensors_are_pickled_by_the_path_of_their_file(tmp_path, mapped_always):
    mapped = unpack(stored(tmp_path / "t", {"w": np.arange(10_000.0)}))
    _ = mapped["w"]  # mapped now, which can't be pickled
    sent = pickle.dumps(mapped)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent)["w"], np.arange(10_000.0))


def test_pieces_are_not_copied():
    array = np.ones(1000)
    (_, piece) = layout.lay_out("", {"w": array})
    assert np.shares_memory(np.frombuffer(piece), array)


def written(about: str, values: bytes = b"") -> bytes:
    head = f'{{"__metadata__":{{"hanse":"null"}}{about and ","}{about}}}'.encode()
    return struct.pack("<Q", len(head)) + head + values


TWO_BYTES = '{"dtype":"U8","shape":[2],"data_offsets":[%d,%d]}'
NO_BYTES = '{"dtype":"U8","shape":[0],"data_offsets":[%d,%d]}'


@pytest.mark.parametrize(
    ("about", "num_bytes"),
    [
        ('"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', 5),
        ('"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', 3),
        ('"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}', 5),
        ('"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}', 4),
        ('"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":"1","data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4.0]}', 4),
        ('"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}', 4),
        ('"a":{"dtype":"F32","shape":[1]}', 4),
        ('"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}', 4),
        ('"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}', 4),
        ('"a":[1]', 0),
        ('"a":{"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]}', 0),
        ('"a":{"dtype":"F32","shape":[0,99999999999999999999],"data_offsets":[0,0]}', 0),
        (f'"a":{{"dtype":"U8","shape":[{",".join("1" * 99)}],"data_offsets":[0,1]}}', 1),
        *(
            (f'"a":{TWO_BYTES % (0, 2)},"b":{TWO_BYTES % (begin, begin + 2)}', begin + 2)
            for begin in (0, 1, 3)
        ),
    ],
)
def test_places_that_do_not_tile_the_bytes_are_refused(about, num_bytes):
    with pytest.raises((MessageError, ValueError, KeyError, TypeError)):
        layout.read_layout(written(about, bytes(num_bytes)), None)
    with pytest.raises(MessageError):
        unpack(written(about, bytes(num_bytes)))


def test_places_that_tile_the_bytes_are_read_in_any_order():
    data = written(f'"b":{TWO_BYTES % (2, 4)},"none":{NO_BYTES % (4, 4)},"a":{TWO_BYTES % (0, 2)}', b"1234")
    _, tensors = layout.read_layout(data, None)
    assert {name: array.tobytes() for name, array in tensors.items()} == {
        "a": b"12",
        "b": b"34",
        "none": b"",
    }


@pytest.mark.parametrize(
    "dims", ["0,4611686018427387904,8", ",".join("1" * 65), "9223372036854775807,0", "[0]"]
)
@pytest.mark.usefixtures("mapped_always")
def test_a_shape_that_no_array_can_have_is_refused_at_once(dims, tmp_path):
    """And not when a mapped tensor is looked at."""
    data = written(
        f'"a":{{"dtype":"F32","shape":[{dims}],"data_offsets":[0,{4 * ("0" not in dims)}]}}', b"0000"
    )
    (tmp_path / "x").write_bytes(data)
    for packed in (data, Stored(tmp_path / "x")):
        with pytest.raises(MessageError, match="has shape"):
            unpack(packed)


def test_headers_are_utf8():
    head = '{"__metadata__":{"hanse":"null"}}'.encode("utf-16")
    with pytest.raises(MessageError):
        unpack(struct.pack("<Q", len(head)) + head)


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mapped_always")
def test_a_file_unpacks_to_the_same_value(tmp_path):
    obj = {"named": TENSORS, "other": (np.arange(3), 1.5, {"a": np.ones(2), "n": 3}), "none": {}}
    back = unpack(stored(tmp_path / "x", obj))
    assert digest(back) == digest(obj)
    assert pack(back) == pack(obj)
    assert isinstance(back["named"], Mapped)
    with pytest.raises(ValueError, match="read-only"):
        back["named"]["b/c"][...] = 1.0


@pytest.mark.usefixtures("mapped_always")
def test_a_file_is_bounded_and_checked_as_bytes_are(tmp_path):
    message = Message(3, {"update": Part({"w": np.ones(4)})})
    file = stored(tmp_path / "x", message)
    assert len(file) == len(pack(message))
    with pytest.raises(MessageError, match="at most 7 are allowed"):
        unpack(file, Message, max_head_bytes=7)
    with pytest.raises(MessageError, match="not allowed here"):
        unpack(file, Message, only=(Message,))
    (tmp_path / "cut").write_bytes(pack(message)[:-1])
    with pytest.raises(MessageError):
        unpack(Stored(tmp_path / "cut"))
    (tmp_path / "empty").touch()
    with pytest.raises(MessageError):
        unpack(Stored(tmp_path / "empty"))


def num_mapped(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux tells what is mapped")
@pytest.mark.usefixtures("mapped_always")
def test_a_file_is_mapped_once_and_only_while_something_of_it_is_held(tmp_path):
    path = tmp_path / "x"
    layers = unpack(stored(path, {str(layer): np.full(5, layer) for layer in range(50)}))
    assert num_mapped(path) == 0
    held = dict(layers)
    assert num_mapped(path) == 1
    path.unlink()
    assert [array[0] for array in held.values()] == list(range(50))
    del held
    assert num_mapped(path) == 0
