"""Engines that compute neural networks, chosen as values: JAX or PyTorch. Each is an extra.

A network has the same parameters on either engine, by name, shape and initial values, so a model that
was trained on one can continue, or be measured, on the other.
"""

import warnings
from dataclasses import KW_ONLY
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

from hanse.core import InvalidInput, Learner, value

__all__ = [
    "Engine",
    "Precision",
    "bfloat16",
    "check_precision",
    "full",
    "jax_engine",
    "load_engine",
    "tf32",
    "torch_engine",
]

NAMES = {"jax": "JAX", "torch": "PyTorch"}
"""Engines by the module that is imported, which is also the name of the extra."""


def load_engine(engine: str, asked_by: str, instead: str = "") -> Any:
    """Imports our own module for an engine.

    Args:
      engine: "jax" or "torch".
      asked_by: what needs it; starts the message.
      instead: ends the message.

    Raises: InvalidInput: if it is not installed, naming the extra.
    """
    if find_spec(engine) is None:
        raise InvalidInput(
            f"{asked_by} computes with {NAMES[engine]}, which is not installed; "
            f'run: pip install "hanse[{engine}]"{instead}'
        )
    return import_module(f"hanse.learners.{engine}")


class Engine:
    """A library that computes networks. It is imported when a network is bound, not before."""

    module: ClassVar[str]

    def learner(self, network: Any, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        """Binds a network to examples. Raises: InvalidInput: if the engine is not installed."""
        learner: Learner = self.load(network).bind_network(network, feature_shape, num_classes)
        return learner

    def load(self, network: Any) -> Any:
        """Imports our own module for this engine. Raises: InvalidInput: if the engine is not installed."""
        other = next(name for name in NAMES if name != self.module)
        instead = f", or write engine={other}_engine()" if find_spec(other) is not None else ""
        return load_engine(self.module, f"{type(network).__name__}()", instead)


class Precision:
    """The type of numbers in which local training computes products. Parameters keep their dtype."""


@value
class full(Precision):
    """The precision of the parameters."""


@value
class bfloat16(Precision):
    """The precision of bfloat16 (8 bits of mantissa); parameters and losses stay in float32.

    PyTorch keeps what needs more digits in float32, and JAX computes the whole network in bfloat16. With
    PyTorch it is about twice as fast for convolutional and recurrent networks on a processor with units for
    it (avx512_bf16, amx_bf16); on others it is slower, and a warning says so. Only local training uses it:
    losses, metrics, gradients and Hessians are measured in full precision.
    """


@value
class tf32(Precision):
    """The precision of TensorFloat-32 (10 bits of mantissa) on an NVIDIA GPU, which is several times as fast.

    Elsewhere it is float32, and a warning says so. Only local training uses it.
    """


def check_precision(precision: Precision, dtype: str, *, on_gpu: bool) -> None:
    """Checks that the parameters are float32, and warns where there is no TF32.

    Raises: InvalidInput: if they are not.
    """
    if isinstance(precision, full):
        return
    if dtype != "float32":
        name = type(precision).__name__
        raise InvalidInput(f'precision is {name}() with parameters of {dtype}; write dtype="float32"')
    if isinstance(precision, tf32) and not on_gpu:
        warnings.warn("no GPU is used here, so that tf32() trains in float32", stacklevel=4)


@value
class jax_engine(Engine):
    """JAX: a client's whole local training is one compiled call, which is fastest for dense networks.

    >>> jax_engine(precision=tf32())
    jax_engine(precision=tf32())

    Args:
      precision: of local training, `full()`, `tf32()` or `bfloat16()`.
    """

    module = "jax"
    _: KW_ONLY
    precision: Precision = full()


@value
class torch_engine(Engine):
    """PyTorch: step by step, with oneDNN's kernels, which are fastest for convolutions on a CPU.

    >>> torch_engine(precision=bfloat16())
    torch_engine(precision=bfloat16())

    Args:
      precision: of local training, `full()`, `tf32()` or `bfloat16()`.
    """

    module = "torch"
    _: KW_ONLY
    precision: Precision = full()
