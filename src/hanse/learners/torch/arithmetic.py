"""The conditions under which PyTorch computes: one thread, a seeded generator, and on a GPU the same bits."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from hanse.core import Key

__all__ = ["compute_exactly", "draw_from"]

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The variable that NVIDIA's library reads once, before its first product; without it, it may not repeat."""


@contextmanager
def draw_from(key: Key, device: Any = None) -> Iterator[None]:
    """Seeds PyTorch's own generators from a key meanwhile, and restores them afterwards."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=(device,) if on_gpu else ()):
        seed = int.from_bytes(key.digest[:8], "little")
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def compute_exactly(device: Any) -> Iterator[None]:
    """Computes in one thread, and on a GPU in float32 and by operations that repeat their bits.

    Sums over threads round differently.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if device.type == "cpu":
            yield
            return
        with ExitStack() as stack:
            _repeat(stack)
            yield
    finally:
        torch.set_num_threads(threads)


def _repeat(stack: ExitStack) -> None:
    """Chooses operations that repeat their bits; where there are none, PyTorch warns."""
    os.environ.setdefault(WORKSPACE, ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    stack.callback(torch.use_deterministic_algorithms, before, warn_only=only_warns)
    torch.use_deterministic_algorithms(True, warn_only=True)
    stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False))
