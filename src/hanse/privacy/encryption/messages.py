"""Messages of encrypted sums: keys, ciphertexts with their codes, and what the server makes of them."""

from typing import Any, ClassVar

import numpy as np

from hanse.core import Array, Part, PartSpec, Reducer, Spec, Tensors, TensorSpec, Total, each, stack, value
from hanse.privacy.encryption.bfv import bfv
from hanse.privacy.encryption.evidence import HOUSE_BYTES, NUM_FUNCTIONS
from hanse.privacy.secure_sums import TOLD_BYTES

__all__ = [
    "HOUSE_BYTES",
    "MOST_UNUSED",
    "NAMES",
    "NAME_BYTES",
    "add_residues",
    "describe_keys",
    "describe_message",
    "join_primes",
    "pad",
    "part_by_prime",
    "unpad",
]

NAME_BYTES = HOUSE_BYTES + 16 + TOLD_BYTES
"""The bytes of the name of a message in a sum: the first name its house, the last are a digest of what that
house was told."""

MOST_UNUSED = 16
"""The most key pairs that a holder vouches for that it never used: the last ones."""

NAMES = PartSpec(Spec({"name": TensorSpec((NAME_BYTES,), "uint8")}, kind="coded"), into=stack())


def describe_keys(scheme: bfv) -> PartSpec:
    """Describes what a key holder sends: its public key, the names of unused ones, and that it vouches."""
    tensors = {
        "public": TensorSpec((scheme.public_bytes,), "uint8"),
        "unused": TensorSpec((MOST_UNUSED, 32), "uint8"),
        "vouch": TensorSpec((32,), "uint8"),
    }
    return PartSpec(Spec(tensors, kind="coded"), into=each())


def pad(data: bytes, length: int) -> Array:
    """Writes bytes into an array of a fixed length, which says how many there are."""
    found = np.zeros(length, np.uint8)
    found[: 4 + len(data)] = np.frombuffer(len(data).to_bytes(4, "little") + data, np.uint8)
    return found


def unpad(padded: Array) -> bytes:
    """Reads bytes that `pad` wrote."""
    data = padded.tobytes()
    return data[4 : 4 + int.from_bytes(data[:4], "little")]


def part_by_prime(residues: Array, codes: Array) -> Tensors:
    """Parts residues and codes by prime, because the numbers of one tensor are added modulo one prime."""
    found: dict[str, Array] = {}
    for i in range(residues.shape[2]):
        found[f"residues/{i}"] = np.ascontiguousarray(residues[:, :, i])
        found[f"codes/{i}"] = codes[:, i].copy()
    return found


def join_primes(tensors: Tensors) -> tuple[Array, Array]:
    """Joins what `part_by_prime` parted."""
    primes = range(len(tensors) // 2)
    residues = np.stack([tensors[f"residues/{i}"] for i in primes], 2)
    return residues, np.stack([tensors[f"codes/{i}"] for i in primes], 1)


def describe_message(scheme: bfv, num_values: int) -> Spec:
    """Describes what a client sends: its ciphertexts, and their codes."""
    blocks = scheme.count_blocks(num_values)
    tensors: dict[str, TensorSpec] = {}
    for i in range(scheme.num_primes):
        tensors[f"residues/{i}"] = TensorSpec((blocks, 2, scheme.degree), "uint64")
        tensors[f"codes/{i}"] = TensorSpec((NUM_FUNCTIONS,), "uint64")
    return Spec(tensors, kind="coded")


@value
class add_residues(Reducer[tuple[dict[str, Array], int]]):
    """The sum of residues, each tensor modulo the prime that its name ends with."""

    scheme: bfv
    elementwise: ClassVar[bool] = True
    is_setting: ClassVar[bool] = False

    @property
    def disclosure(self) -> str:
        return "a sum of ciphertexts, which the server can't read"

    def accepts(self, spec: Spec) -> None:
        """Accepts what `encrypt_pending` emits."""

    def lift(self, part: Part) -> tuple[dict[str, Array], int]:
        return {name: values % self._prime(name) for name, values in part.values.items()}, 1

    def merge(
        self, left: tuple[dict[str, Array], int], right: tuple[dict[str, Array], int]
    ) -> tuple[dict[str, Array], int]:
        for name, total in left[0].items():
            total += right[0][name]
            np.subtract(total, self._prime(name), out=total, where=total >= self._prime(name))
        return left[0], left[1] + right[1]

    def result(self, accumulator: tuple[dict[str, Array], int]) -> Total:
        return Total(accumulator[0], float(accumulator[1]), accumulator[1])

    def _prime(self, name: str) -> Any:
        return np.uint64(self.scheme.primes[int(name.rpartition("/")[2])])
