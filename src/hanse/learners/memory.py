"""Memory that engines on a processor free and allocate again in each step."""

import ctypes
import os
from functools import cache

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST_KEPT_BYTES = 256 << 20
LARGEST_KEPT_BYTES = 32 << 20
SET_BY_HAND = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> None:
    """Lets glibc keep up to 256 MB of freed memory, which the next step allocates again.

    By default it returns them to the system, and an LSTM's step then spends a quarter of its time on page
    faults. It does nothing where the user has set glibc by hand, or where there is another allocator.
    """
    if any(name in os.environ for name in SET_BY_HAND):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    mallopt(M_TRIM_THRESHOLD, MOST_KEPT_BYTES)
