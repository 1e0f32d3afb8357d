"""Setup of JAX: its precision, its threads, and the folder of compiled programs."""

import hashlib
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from hanse.learners.engines import Precision, full, tf32
from hanse.learners.memory import keep_freed_memory

__all__ = ["DETERMINISTIC", "is_deterministic", "on_processor", "precision", "prepare"]

DETERMINISTIC = "--xla_gpu_deterministic_ops"
"""The flag of XLA by which a GPU repeats its bits, and chooses its operations without measuring them."""


@cache
def on_processor() -> bool:
    """Returns whether JAX computes on a processor, and not on a GPU."""
    return bool(jax.default_backend() == "cpu")


def precision(dtype: str, of: Precision = full()) -> AbstractContextManager[Any]:
    """Returns a context in which JAX computes in this dtype; it uses 64 bits only on request.

    A GPU would multiply float32 in TF32 by itself. Processors know no other products.
    """
    if dtype != "float64":
        if on_processor():
            return nullcontext()
        products = "tensorfloat32" if isinstance(of, tf32) else "float32"
        exact: AbstractContextManager[Any] = jax.default_matmul_precision(products)
        return exact
    switch = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    double: AbstractContextManager[Any] = switch(True)
    return double


def prepare() -> None:
    """Starts JAX as simulations need it, and keeps settings that the user made."""
    keep_freed_memory()
    _cache_programs()
    _make_deterministic()
    _start_with_one_thread()


_started_before = False
"""Whether somebody started the backend before it could be given the flag."""


def _make_deterministic() -> None:
    """Sets the flag by which a GPU repeats its bits, unless the user did or the backend has started."""
    global _started_before
    flags = os.environ.get("XLA_FLAGS", "")
    if find_spec("jax_plugins") is None or DETERMINISTIC in flags:  # none but a processor; or it is set
        return
    if getattr(jax._src.xla_bridge, "backends_are_initialized", bool)():
        _started_before = True
        return
    os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}=true".strip()  # workers inherit it


def is_deterministic() -> bool:
    """Returns whether two runs of a compiled program give the same bits."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag.startswith(DETERMINISTIC)]
    is_set = bool(flags) and flags[-1].partition("=")[2].lower() in ("", "true", "1")
    return on_processor() or (is_set and not _started_before)


def _start_with_one_thread() -> None:
    """Starts the backend, which reads the number of threads once. One gives the same bits everywhere."""
    given = os.environ.get("NPROC")
    os.environ.setdefault("NPROC", "1")
    jax.devices()
    if given is None:
        del os.environ["NPROC"]


def _cache_programs() -> None:
    """Keeps compiled programs in the user's cache folder, by processor, since they are made for it."""
    if jax.config.jax_compilation_cache_dir is not None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "hanse" / "jax" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> str:
    """Returns a name for the capabilities of this processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:12]}"
