"""How long things took, by size: what can be added up over processes, sent to another one, and asked for a quantile."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from egressd.units import SECOND_US

# Upper bounds in seconds: the kernel is told within 0.2 to 0.4 ms where all is well, and should be within a
# second whatever happens.
BOUNDS_S: Final = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)


class Histogram:
    """Counts of durations by size, in one list of ints that processes can send each other: a cell for each of
    BOUNDS_S, one for what is longer, and last the sum of all in microseconds."""

    __slots__ = ("cells",)

    def __init__(self, cells: Sequence[int] = ()) -> None:
        """`cells` are another histogram's. ValueError when they cannot be."""
        self.cells = [0] * (len(BOUNDS_S) + 2)
        if cells:
            self.merge(cells)

    def observe(self, seconds: float) -> None:
        """Count one duration. A negative one (clocks of two processors) counts as 0."""
        if not seconds > 0.0:
            seconds = 0.0
        self.cells[bisect_left(BOUNDS_S, seconds)] += 1
        self.cells[-1] += int(min(seconds, 1e9) * SECOND_US)

    def merge(self, cells: Sequence[int]) -> None:
        """Add another's cells. ValueError when they are not a histogram's."""
        if len(cells) != len(self.cells) or min(cells) < 0:
            raise ValueError("not the cells of a histogram")
        self.cells = [mine + theirs for mine, theirs in zip(self.cells, cells, strict=True)]

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.cells[:-1])

    @property
    def sum_s(self) -> float:
        """All of them together, in seconds."""
        return self.cells[-1] / SECOND_US

    def quantile(self, p: float) -> float | None:
        """The duration in seconds that a share `p` (0..1) of all does not exceed, by interpolation within its cell as
        Prometheus does it; of those beyond the last bound no more is known than the bound. None when nothing was
        counted."""
        total = self.count
        if not total:
            return None
        rank = min(1.0, max(0.0, p)) * total
        below = 0
        lower = 0.0
        for upper, here in zip(BOUNDS_S, self.cells, strict=False):
            if here and below + here >= rank:
                return lower + (upper - lower) * max(0.0, rank - below) / here
            below += here
            lower = upper
        return BOUNDS_S[-1]
