"""Counting different things in a few bits: linear counting (Whang, Vander-Zanden and Taylor, ACM TODS 1990)."""

from __future__ import annotations

from math import log
from typing import Final

MARKS: Final = 60  # bits of a small sketch: fits a machine integer


def marks(sketch: int, bits: int = MARKS) -> int:
    """How many different values have set bits in a sketch; four times `bits` when all are set."""
    free = bits - sketch.bit_count()
    return round(-bits * log(free / bits)) if free > 0 else 4 * bits
