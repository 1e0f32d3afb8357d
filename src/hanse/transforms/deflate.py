"""Lossless coding, as a last stage."""

import zlib
from dataclasses import replace

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    Key,
    Keys,
    Memory,
    MessageError,
    Part,
    Plan,
    Spec,
    Stage,
    TensorSpec,
    Transform,
    value,
)
from hanse.transforms.numbers import Fixed, fix_shapes

__all__ = ["deflate"]

_FASTEST_MEMORY = 9


@value
class deflate(Transform):
    """Codes frequent bytes in fewer bits, and runs of equal bytes in fewer still. Nothing is lost.

    The bytes of larger numbers are first sorted by significance. Only Huffman codes and runs are used
    (zlib's Z_RLE): updates have skewed frequencies but no repeated phrases, so this is several times faster
    and the result no larger.

    Runs at: client (encode), server (open).
    Reveals: every contribution to the server.
    Spec: any of fixed shapes -> coded, one array "packed" whose length the message states; sealed stays,
      because this may follow calibrated noise.
    Raises: CompositionError: if shapes are not fixed, as after another `deflate()`.
    References: Deutsch, "DEFLATE compressed data format specification", RFC 1951, 1996.

    >>> stage = deflate()(Spec.of({"w": np.zeros(1000, np.float32)}))
    >>> keys = Keys.from_seed(0)
    >>> sent, _ = stage.encode(None, Part({"w": np.zeros(1000, np.float32)}), {}, keys)
    >>> sent.values["packed"].nbytes < 30, stage.open(None, sent, keys.public).values["w"].shape
    (True, (1000,))
    """

    @property
    def effect(self) -> str:
        return "compressed without loss"

    def __call__(self, spec: Spec) -> Stage:
        if any(isinstance(dim, str) for tensor in spec.tensors.values() for dim in tensor.shape):
            raise CompositionError(f"{self} needs tensors of fixed shapes: leave all but the last one out")
        tensors = fix_shapes(self, spec.tensors)
        num_bytes = spec.num_bytes or 0
        largest = num_bytes + num_bytes // 1000 + 64

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            coder = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, _FASTEST_MEMORY, zlib.Z_RLE)
            pieces = [coder.compress(_planes(part.values[name])) for name in tensors]
            packed = np.frombuffer(b"".join([*pieces, coder.flush()]), np.uint8)
            return replace(part, values={"packed": packed}), memory

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            packed = part.values["packed"]
            if packed.size > largest:
                raise MessageError(f"{packed.size} packed bytes; {num_bytes} bytes never take so many")
            values = _tensors(_inflate(packed.tobytes(), num_bytes), tensors)
            spec.check(values)
            return replace(part, values=values)

        packed = {"packed": TensorSpec(("packed bytes",), "uint8")}
        out = Spec(packed, kind="coded", summable=False, sealed=spec.sealed, max_bytes=largest)
        return Stage(out, encode=encode, open=open, lossless=True)


def _planes(tensor: Array) -> bytes:
    """Returns a tensor's bytes, sorted by significance."""
    flat = np.ascontiguousarray(tensor).reshape(-1)
    return flat.view(np.uint8).reshape(-1, tensor.itemsize).T.tobytes()


def _inflate(packed: bytes, num_bytes: int) -> bytes:
    """Unpacks exactly this many bytes, and never makes more.

    Raises: MessageError: if these are not the bytes that were packed.
    """
    coder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = coder.decompress(packed, num_bytes + 1)
    except zlib.error as error:
        raise MessageError(f"not packed by deflate(): {error}") from None
    if len(data) != num_bytes or not coder.eof or coder.unused_data:
        raise MessageError(f"packed bytes that are not exactly {num_bytes} bytes when unpacked")
    return data


def _tensors(data: bytes, tensors: dict[str, Fixed]) -> dict[str, Array]:
    values: dict[str, Array] = {}
    start = 0
    for name, tensor in tensors.items():
        width = np.dtype(tensor.dtype).itemsize
        end = start + width * tensor.size
        planes = np.frombuffer(data[start:end], np.uint8).reshape(width, tensor.size)
        values[name] = np.ascontiguousarray(planes.T).reshape(-1).view(tensor.dtype).reshape(tensor.shape)
        start = end
    return values
