"""The precision of local training on PyTorch."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from hanse.learners.engines import Precision, bfloat16, check_precision, full, tf32

__all__ = ["PRECISIONS", "check_on_device", "multiply_in", "units_for_bfloat16"]

PRECISIONS: Mapping[type[Precision], Callable[[str], AbstractContextManager[Any]]] = {
    full: lambda device: nullcontext(),
    tf32: lambda device: nullcontext(),
    bfloat16: lambda device: torch.autocast(device, torch.bfloat16),
}
"""The context in which a loss is computed on a kind of device, by precision; its gradient follows."""


@contextmanager
def multiply_in(precision: Precision, device: Any) -> Iterator[None]:
    """Lets a GPU multiply in TF32 during local training, where that was chosen."""
    if device.type != "cuda" or not isinstance(precision, tf32):
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=True):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def check_on_device(precision: Precision, dtype: str, device: Any) -> None:
    """Checks the dtype of parameters, and warns of a device that gains nothing.

    Raises: InvalidInput: if the parameters are not float32.
    """
    check_precision(precision, dtype, on_gpu=device.type == "cuda")
    if isinstance(precision, bfloat16) and device.type == "cpu" and not units_for_bfloat16():
        warnings.warn(
            "this processor has no units for bfloat16 (avx512_bf16 or amx_bf16), so that it is slower than "
            "float32: write precision=full()",
            stacklevel=3,
        )


def units_for_bfloat16() -> bool:
    """Returns whether this processor multiplies bfloat16 faster than float32, as far as PyTorch knows."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before PyTorch 2.12: unknown
        return True
    can: Mapping[str, Any] = torch.cpu.get_capabilities()
    return any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
