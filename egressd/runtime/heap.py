"""Large tables of a packet process lie outside the C library's heap, and go back to the system when they are left.

A dictionary doubles as it fills and leaves its old place behind. glibc at first takes what is so large from the system
by itself; but once some of it was given back, it takes the next of that size from its heap (mallopt(3), "dynamic mmap
threshold"), between small things, and the holes there stay. A fixed threshold keeps the two apart: 4 MB less when all
tables turn over, for three mappings a generation.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

LARGE_BYTES: Final = 128 << 10  # where glibc begins, too
_M_MMAP_THRESHOLD: Final = -3  # malloc.h


def keep_large_apart() -> bool:
    """Do so from now on. False where the C library is another one than glibc."""
    with suppress(AttributeError):
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
    return False
