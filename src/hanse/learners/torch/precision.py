"""The precision of local training on PyTorch."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from hanse.core import InvalidInput
from hanse.learners.engines import Precision, bfloat16, full

__all__ = ["PRECISIONS", "check_bfloat16", "units_for_bfloat16"]

PRECISIONS: Mapping[type[Precision], Callable[[], AbstractContextManager[Any]]] = {
    full: nullcontext,
    bfloat16: lambda: torch.autocast("cpu", torch.bfloat16),
}
"""The context in which a loss is computed, by precision; its gradient follows."""


def check_bfloat16(dtype: str) -> None:
    """Checks the dtype of parameters, and warns of a slow processor. Raises: InvalidInput: if not float32."""
    if dtype != "float32":
        raise InvalidInput(f'precision is bfloat16() with parameters of {dtype}; write dtype="float32"')
    if not units_for_bfloat16():
        warnings.warn(
            "this processor has no units for bfloat16 (avx512_bf16 or amx_bf16), so that it is slower than "
            "float32: write precision=full()",
            stacklevel=2,
        )


def units_for_bfloat16() -> bool:
    """Returns whether this processor multiplies bfloat16 faster than float32, as far as PyTorch knows."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before PyTorch 2.12: unknown
        return True
    can: Mapping[str, Any] = torch.cpu.get_capabilities()
    return any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
