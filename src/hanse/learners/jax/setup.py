"""Setup of JAX: its precision, its threads, and the folder of compiled programs."""

import hashlib
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax

from hanse.learners.memory import keep_freed_memory

__all__ = ["precision", "prepare"]


def precision(dtype: str) -> AbstractContextManager[Any]:
    """Returns a context in which JAX computes in this dtype; it uses 64 bits only on request."""
    if dtype != "float64":
        return nullcontext()
    switch = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    double: AbstractContextManager[Any] = switch(True)
    return double


def prepare() -> None:
    """Starts JAX as simulations need it, and keeps settings that the user made."""
    keep_freed_memory()
    _cache_programs()
    _start_with_one_thread()


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
