"""Valid messages of every shape, and malicious changes to them."""

import json
import random
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "transforms"))

import numpy as np
from test_contract import CHAINS, MODEL, WITH_INTEGERS

from hanse.core import Key, Keys, MessageError, Part, PartSpec, Reducer, Spec, TensorSpec, Work, mean, value
from hanse.core import sum as sum_
from hanse.core.exchange import Coordinator, Dispatch, Message, Packed, TreeFold, find_classes, pack, unpack
from hanse.transforms import clip

KEYS = Keys.from_seed(1)


@value
class nothing(Work[Any, Any]):
    """A work that is only named in a dispatch."""

    trains_within: ClassVar[frozenset[str]] = frozenset({"update"})

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Keys) -> Any:
        raise NotImplementedError


@value
class hidden(Reducer[Any]):
    """A reducer that must not see single updates."""

    hides: ClassVar[bool] = True

    def accepts(self, spec: Spec) -> None: ...

    def lift(self, part: Part) -> Any:
        raise AssertionError("a hidden part reached the server")

    merge = result = lift


@dataclass(frozen=True)
class Shape:
    """A ticket, and a valid answer to it."""

    name: str
    coordinator: Coordinator
    ticket: int
    valid: bytes

    def give(self, data: Packed) -> None:
        """Give bytes, or a file, to the decoder; an accepted message must suit the ticket and the fold.

        Raises: MessageError: as the decoder should; anything else is a finding.
        """
        message = self.coordinator.receive(self.ticket, data)
        payload, sent = self.coordinator.payload(self.ticket), unpack(data, Message)
        assert message.parts.keys() == sent.parts.keys() == payload.chains.keys()
        for name, part in message.parts.items():
            assert (part is None) == (sent.parts[name] is None)
            if part is None:
                continue
            chain = payload.chains[name]
            try:
                chain.out.check(sent.parts[name].values)
                chain.folded.check(part.values)
            except MessageError as error:
                raise AssertionError(f"it took what does not suit: {error}") from error
            fold: TreeFold[Any] = TreeFold(payload.uplink[name].into)
            fold.lift(0, part)
            total = fold.result()
            assert total is not None
            assert total.count == 1


def shapes() -> list[Shape]:
    """Return messages of each chain of the transforms' contract, of several parts, with own dimensions."""
    table = Spec({"n": TensorSpec(("nodes", 2), "int64"), "at": TensorSpec(("nodes",), "float32")}, "table")
    every: dict[str, dict[str, tuple[PartSpec, Any]]] = {
        "several parts": {
            "update": (PartSpec(Spec.of(MODEL)), MODEL),
            "seen": (PartSpec(Spec.of({"n": np.zeros(())}), into=sum_()), {"n": np.ones(())}),
            "kept": (PartSpec(Spec.of(MODEL), into=hidden()), None),
        },
        "a table": {
            "update": (
                PartSpec(table, into=sum_()),
                {"n": np.ones((3, 2), np.int64), "at": np.zeros(3, np.float32)},
            )
        },
    }
    for uplink in CHAINS:
        model = MODEL if any(isinstance(transform, clip) for transform in uplink) else WITH_INTEGERS
        part_spec = PartSpec(Spec.of(model), uplink, mean())
        every[" ".join(map(str, uplink))] = {"update": (part_spec, model)}
    return [_shape(name, parts) for name, parts in every.items()]


def _shape(name: str, parts: dict[str, tuple[PartSpec, Any]]) -> Shape:
    coordinator = Coordinator(1, Key.from_seed(1))
    part_specs = {part: part_spec for part, (part_spec, _) in parts.items()}
    ticket = coordinator.dispatch(Dispatch(nothing(), (0,), {}, part_specs, Key.from_seed(2))).tickets[0]
    payload = coordinator.payload(ticket)
    rng = np.random.default_rng(0)
    sent: dict[str, Part | None] = {}
    for part, (_, values) in parts.items():
        chain = payload.chains[part]
        if values is None:
            sent[part] = None
            continue
        if chain.stages and chain.stages[0].within is not None:
            values = {n: np.zeros(t.shape, t.dtype) for n, t in chain.stages[0].out.tensors.items()}
        if chain.stages:
            values = {n: np.asarray(rng.normal(size=v.shape), v.dtype) for n, v in values.items()}
        keys = Keys(coordinator.task(ticket).key, Key.from_seed(3)).fold_in(part)
        sent[part], _ = chain.encode(payload.plans[part], Part(values, 2.0), {}, keys)
    shape = Shape(name, coordinator, ticket, pack(Message(ticket, sent)))
    shape.give(shape.valid)
    return shape


# -- mutations -------------------------------------------------------------------------------------

DTYPES = [
    "BOOL",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "F4",
    "I16",
    "U16",
    "F16",
    "BF16",
    "I32",
    "U32",
    "F32",
    "C64",
    "F64",
    "I64",
    "U64",
    "c64",
    "V8",
    "O",
]
NUMBERS = [0, 1, -1, 2, 7, 255, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40, 1.5]
WORDS = [b'"$"', b"null", b"{}", b"[]", b"-1", b"1e999", b'"Part"', b'"key"', b"9" * 30, b"\\ud800", b"\x00"]
COLLIDING = 2**61 - 1


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the values of a message."""
    (length,) = struct.unpack("<Q", data[:8])
    head: dict[str, Any] = json.loads(data[8 : 8 + length])
    return head, data[8 + length :]


def joined(head: Any, body: bytes) -> bytes:
    """Return the message of a header and values."""
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + body


def scattered(data: bytes, dice: random.Random) -> bytes:
    """Change, remove, double or insert some bytes."""
    body = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(body)) if body else 0
        match dice.randrange(6):
            case 0 if body:
                body[at] = dice.randrange(256)
            case 1 if body:
                body[at] ^= 1 << dice.randrange(8)
            case 2:
                del body[at : at + dice.randrange(1, 32)]
            case 3:
                body[at:at] = dice.randbytes(dice.randrange(1, 16))
            case 4:
                body[at:at] = body[at : at + dice.randrange(1, 64)]
            case _:
                word = dice.choice(WORDS)
                body[at : at + len(word)] = word
    return bytes(body)


def _tensors(head: dict[str, Any]) -> list[str]:
    return [name for name in head if name != "__metadata__"]


def announced(data: bytes, dice: random.Random) -> bytes:
    """Change dtypes, shapes and offsets in the header; remove, double or add tensors."""
    head, body = split(data)
    for _ in range(dice.randint(1, 2)):
        names = _tensors(head)
        if not names:
            return joined(head, body)
        one, other = head[dice.choice(names)], head[dice.choice(names)]
        match dice.randrange(9):
            case 0:
                one["dtype"] = dice.choice([*DTYPES, None, 1, "", other["dtype"]])
            case 1:
                one["shape"] = [dice.choice(NUMBERS) for _ in range(dice.randrange(5))]
            case 2 if isinstance(one["shape"], list) and one["shape"]:
                one["shape"][dice.randrange(len(one["shape"]))] = dice.choice(NUMBERS)
            case 3:
                one["data_offsets"] = [
                    dice.choice([*NUMBERS, len(body)]) for _ in range(dice.choice([2, 2, 1, 3]))
                ]
            case 4:
                one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
            case 5:
                one["shape"], other["shape"] = other["shape"], one["shape"]
            case 6:
                del head[dice.choice(names)]
            case 7:
                head[dice.choice(["update", "", "x" * 300, "\u00e9", names[0] + "'"])] = dict(one)
            case _:
                one["dtype"], one["shape"] = "U8", [sum(one["data_offsets"]) % (len(body) + 1)]
    return joined(head, body)


def junk(dice: random.Random, depth: int = 0) -> Any:
    """Return any skeleton."""
    match dice.randrange(12 if depth < 3 else 4):
        case 0:
            return dice.choice([None, True, "", "update", "a" * 300, "\x00", 1e308, *NUMBERS])
        case 1:
            return {"$": "float", "is": dice.choice(["nan", "inf", "-0", "1e400", "x", 5, None, "1_0"])}
        case 2:
            return {"$": "bytes", "hex": dice.choice(["", "00", "0", "zz", 7, "ab" * 100])}
        case 3:
            return {"$": "tensor", "at": dice.choice(["w", "", 1, None, [], "parts/update/values/bias"])}
        case 4 | 5:
            return [junk(dice, depth + 1) for _ in range(dice.randrange(6))]
        case 6:
            keys = [number * dice.choice([1, COLLIDING]) for number in range(dice.randrange(40))]
            items = [[dice.choice([key, junk(dice, depth + 1)]), 1] for key in keys]
            return {"$": "map", "items": dice.choice([items, junk(dice, depth + 1)])}
        case 7:
            inner: Any = 1
            for _ in range(dice.choice([10, 63, 64, 65, 70, 400])):
                inner = [inner] if dice.random() < 0.9 else {"a": inner}
            return inner
        case 8 | 9:
            kind = dice.choice([*find_classes(object), "tensor", "map", "nobody", 1, None])
            names = [
                "size",
                "fraction",
                "ticket",
                "parts",
                "values",
                "weight",
                "path",
                "bits",
                "shape",
                "dtype",
            ]
            return {
                "$": kind,
                **{dice.choice(names): junk(dice, depth + 1) for _ in range(dice.randrange(4))},
            }
        case _:
            return {dice.choice(["$", "a", "update", "values"]): junk(dice, depth + 1) for _ in range(3)}


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in JSON, as its container and the key in it."""
    items = enumerate(node) if isinstance(node, list) else node.items() if isinstance(node, dict) else ()
    for key, inner in list(items):
        yield node, key
        yield from _places(inner)


def reshaped(data: bytes, dice: random.Random) -> bytes:
    """Change the skeleton: the value that the tensors belong to."""
    head, body = split(data)
    skeleton = json.loads(head["__metadata__"]["hanse"])
    for _ in range(dice.randint(1, 2)):
        places = list(_places(skeleton))
        if not places:
            break
        holder, key = dice.choice(places)
        match dice.randrange(7):
            case 0 if isinstance(holder, dict):
                holder[dice.choice(["$", "weight", "ticket", "x", ""])] = holder.pop(key)
            case 1:
                del holder[key]
            case 2:
                other_holder, other = dice.choice(places)
                if other_holder is not holder and isinstance(other_holder[other], str | int | float):
                    holder[key] = other_holder[other]
            case 3:
                holder[key] = dice.choice(
                    [0, -1, 1e12, True, None, "1", 10**400, {"$": "float", "is": "nan"}]
                )
            case _:
                holder[key] = junk(dice)
    metadata: Any = json.dumps(skeleton)
    if dice.random() < 0.03:
        metadata = dice.choice([None, 1, "", "[" * 5000, "9" * 5000, "nul", skeleton])
    head["__metadata__"] = {"hanse": metadata} | ({"more": "x"} if dice.random() < 0.02 else {})
    if dice.random() < 0.02:
        head["__metadata__"] = dice.choice([None, [], "hanse", {}])
    return joined(head, body)


def lengthened(data: bytes, dice: random.Random) -> bytes:
    """Change a length: that of the header as announced, or that of the whole."""
    (length,) = struct.unpack("<Q", data[:8])
    match dice.randrange(4):
        case 0:
            return data[: dice.randrange(len(data))]
        case 1:
            return data + dice.randbytes(dice.choice([1, 8, 100, 5000]))
        case 2:
            near = length + dice.randint(-9, 9)
            said = dice.choice([0, 1, near, len(data), len(data) - 8, 2**31, 2**63, 2**64 - 1])
            return struct.pack("<Q", said % 2**64) + data[8:]
        case _:
            gap = b" " * dice.randrange(1, 3000)
            return struct.pack("<Q", length + len(gap)) + data[8 : 8 + length] + gap + data[8 + length :]


def revalued(data: bytes, dice: random.Random) -> bytes:
    """Change values to NaN and infinity of every width, all ones, noise, or bytes of something else."""
    head, body = split(data)
    values = bytearray(body)
    patterns = [
        *(np.array(v, d).tobytes() for v in (np.nan, np.inf, -np.inf) for d in ("f2", "f4", "f8")),
        b"\x80\x7f" * 2,
        b"\xff" * 16,
        bytes(16),
        dice.randbytes(dice.randrange(1, 40)),
    ]
    for _ in range(dice.randint(1, 3)):
        if values:
            at = dice.randrange(len(values))
            pattern = dice.choice(patterns)
            values[at : at + len(pattern)] = pattern[: len(values) - at]
    return joined(head, bytes(values))


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    scattered,
    announced,
    reshaped,
    reshaped,
    lengthened,
    revalued,
]


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Return a message with one error, rarely with two."""
    try:
        data = dice.choice(MUTATIONS)(data, dice)
        while dice.random() < 0.15:
            data = dice.choice(MUTATIONS)(data, dice)
    except (ValueError, KeyError, TypeError, struct.error, RecursionError, IndexError):
        pass  # the message is already too broken for this change
    return data
