"""One reading of a datagram that comes in pieces: which bytes are there, and where it ends.

Where pieces overlap either the byte that came first stands (`insert`) or the one that came last (`lay`); a reading is
made by one of the two throughout. The pieces are sorted, not empty and do not overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

PIECE_OVERHEAD: Final = 128  # what CPython spends on a small bytes object and its places in two lists


class Patchwork:
    """`have` bytes of `total`, which is -1 until the last fragment has come."""

    __slots__ = ("have", "next_header", "pieces", "starts", "total")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.pieces: list[bytes] = []
        self.have = 0
        self.total = -1
        self.next_header = -1  # of the fragment at offset 0, the only one that counts (RFC 8200 section 4.5)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.have == self.total

    @property
    def cost(self) -> int:
        """Bytes of memory, about."""
        return self.have + len(self.pieces) * PIECE_OVERHEAD

    def joined(self) -> bytes:
        """The bytes that are there, one after the other."""
        return b"".join(self.pieces)

    def copy(self) -> Patchwork:
        """Another one that says the same so far."""
        other = Patchwork()
        other.starts = list(self.starts)
        other.pieces = list(self.pieces)
        other.have = self.have
        other.total = self.total
        other.next_header = self.next_header
        return other

    def fits(self, stop: int, more: bool) -> bool:
        """Whether a fragment that ends at `stop` agrees with the length, as far as known; the last one tells it."""
        if self.total >= 0:
            return stop <= self.total if more else stop == self.total
        if more:
            return True
        if self.starts and self.starts[-1] + len(self.pieces[-1]) > stop:
            return False
        self.total = stop
        return True

    def insert(self, start: int, body: bytes) -> bool:
        """Put in what is new of `body`. False: it disagrees with what is there."""
        starts, pieces = self.starts, self.pieces
        stop = start + len(body)
        at = bisect_right(starts, start)
        if at and starts[at - 1] + len(pieces[at - 1]) > start:
            at -= 1
        if at == len(starts) or starts[at] >= stop:  # no overlap, the usual case
            self._place(at, start, body)
            return True
        conflict = False
        position = start
        while at < len(starts) and starts[at] < stop:
            held, held_start = pieces[at], starts[at]
            low, high = max(held_start, start), min(held_start + len(held), stop)
            conflict |= held[low - held_start : high - held_start] != body[low - start : high - start]
            if position < low:
                self._place(at, position, body[position - start : low - start])
                at += 1
            position = high
            at += 1
        if position < stop:
            self._place(at, position, body[position - start :])
        return not conflict

    def lay(self, start: int, more: bool, body: bytes, next_header: int) -> None:
        """Put `body` in the place of what is there. The end is where the fragment that came last has it."""
        stop = start + len(body)
        if not more:
            self.total = stop
        elif 0 <= self.total < stop:
            self.total = -1
        if start == 0:
            self.next_header = next_header
        starts: list[int] = []
        pieces: list[bytes] = []
        for at, piece in zip(self.starts, self.pieces, strict=True):
            if at < start:
                starts.append(at)
                pieces.append(piece[: start - at])
            if more and at + len(piece) > stop:
                starts.append(max(at, stop))
                pieces.append(piece[max(0, stop - at) :])
        at = bisect_right(starts, start)
        starts.insert(at, start)
        pieces.insert(at, body)
        self.starts, self.pieces = starts, pieces
        self.have = sum(len(piece) for piece in pieces)

    def _place(self, at: int, start: int, body: bytes) -> None:
        self.starts.insert(at, start)
        self.pieces.insert(at, body)
        self.have += len(body)
