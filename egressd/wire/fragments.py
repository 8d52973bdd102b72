"""IP reassembly, IPv4 (RFC 791 section 3.2) and IPv6 (RFC 8200 section 4.5), in a table that traffic cannot make grow.

Overlap: in IPv4 the byte that came first wins, and a disagreement is counted; in IPv6 any overlap but an exact
duplicate gives up the whole datagram (RFC 5722 section 4). Time is the packets' own, in microseconds; it may jump.

Invariants: the pieces of a datagram are sorted, not empty and do not overlap; `held_bytes` is the sum of all `size`s;
every key in `_table` is in exactly one source's keys, and the other way round.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

MAX_DATAGRAMS: Final = 1024  # as many as a busy gateway has half-done at once, ten times over
MAX_BYTES: Final = 4 << 20  # for everything held, with PIECE_OVERHEAD for each piece
MAX_SOURCE_DATAGRAMS: Final = 128  # an eighth: no single source address pushes out the others
MAX_SOURCE_BYTES: Final = 1 << 20  # a quarter: room for sixteen datagrams of the greatest size
MAX_PIECES: Final = (
    512  # a 64 KiB datagram in the 576-byte fragments of RFC 791 has 119; 8-byte fragments are an attack
)
MAX_DATAGRAM_BYTES: Final = 65535  # a 16-bit length
TIMEOUT_US: Final = 30_000_000  # Linux's ipfrag_time; RFC 8200 section 4.5 says 60 s
PIECE_OVERHEAD: Final = 128  # what CPython spends on a small bytes object and its places in two lists


class _Datagram:
    __slots__ = ("dead", "first_us", "have", "next_header", "pieces", "size", "source", "starts", "total")

    def __init__(self, source: bytes, ts_us: int) -> None:
        self.source = source
        self.first_us = ts_us
        self.starts: list[int] = []
        self.pieces: list[bytes] = []
        self.have = 0  # payload bytes held
        self.size = 0  # what it costs
        self.total = -1  # known when the last fragment has come
        self.next_header = -1  # of the fragment at offset 0, the only one that counts (RFC 8200 section 4.5)
        self.dead = False  # kept, empty, so that later fragments do not begin it anew


class _Source:
    __slots__ = ("keys", "size")

    def __init__(self) -> None:
        self.keys: dict[bytes, None] = {}
        self.size = 0


class Fragments:
    """The table of unfinished datagrams. `counts` is shared with the owner and gets `fragment_evicted`,
    `fragment_expired`, `fragment_refused` (breaks the rules of fragmentation) and `overlap_conflict`."""

    __slots__ = ("_datagrams", "_max_bytes", "_sources", "_table", "_timeout_us", "counts", "held_bytes", "next_header")

    def __init__(
        self,
        counts: dict[str, int],
        max_datagrams: int = MAX_DATAGRAMS,
        max_bytes: int = MAX_BYTES,
        timeout_us: int = TIMEOUT_US,
    ) -> None:
        self.counts = counts
        self.held_bytes = 0
        self.next_header = -1  # of the datagram that `add` returned last
        self._datagrams = max_datagrams
        self._max_bytes = max_bytes
        self._timeout_us = timeout_us
        self._table: dict[bytes, _Datagram] = {}  # in order of arrival: the first is the oldest
        self._sources: dict[bytes, _Source] = {}

    def __len__(self) -> int:
        return len(self._table)

    def add(
        self, key: bytes, source: bytes, next_header: int, start: int, more: bool, body: bytes, ts_us: int, strict: bool
    ) -> bytes | None:
        """Take one fragment; return the datagram's payload when that completes it, else None.

        `key` names the datagram, `source` whose share it uses; `start` is the fragment's offset in bytes; `strict`
        gives up the datagram at an overlap (IPv6).
        """
        stop = start + len(body)
        if stop > MAX_DATAGRAM_BYTES or not body or (more and len(body) & 7):
            self._count("fragment_refused")
            return None
        datagram = self._table.get(key)
        if datagram is not None and abs(ts_us - datagram.first_us) > self._timeout_us:
            self._drop(key, "fragment_expired")
            datagram = None
        if datagram is None:
            datagram = self._begin(key, source, ts_us)
        if datagram.dead:
            return None
        before = datagram.size
        if not _fits(datagram, stop, more):
            self._count("fragment_refused")
            if strict:
                self._kill(datagram)
            return None
        if not self._insert(datagram, start, body, strict):
            self._kill(datagram)
            return None
        if start == 0 and datagram.next_header < 0:
            datagram.next_header = next_header
        self.held_bytes += datagram.size - before
        self._sources[source].size += datagram.size - before
        if datagram.have == datagram.total:
            self.next_header = datagram.next_header
            whole = b"".join(datagram.pieces)
            self._drop(key, "")
            return whole
        if len(datagram.pieces) > MAX_PIECES:
            self._count("fragment_refused")
            self._kill(datagram)
        self._make_room(source)
        return None

    def _begin(self, key: bytes, source: bytes, ts_us: int) -> _Datagram:
        while self._table:  # arrival order, so the walk ends at the first that is young enough
            oldest = next(iter(self._table))
            if abs(ts_us - self._table[oldest].first_us) <= self._timeout_us:
                break
            self._drop(oldest, "fragment_expired")
        datagram = _Datagram(source, ts_us)
        self._table[key] = datagram
        owner = self._sources.get(source)
        if owner is None:
            owner = self._sources[source] = _Source()
        owner.keys[key] = None
        return datagram

    def _insert(self, datagram: _Datagram, start: int, body: bytes, strict: bool) -> bool:
        """Put in what is new of `body`. False: the fragment is refused, and an IPv6 datagram with it."""
        starts, pieces = datagram.starts, datagram.pieces
        stop = start + len(body)
        at = bisect_right(starts, start)
        if at and starts[at - 1] + len(pieces[at - 1]) > start:
            at -= 1
        if at == len(starts) or starts[at] >= stop:  # no overlap, the usual case
            _place(datagram, at, start, body)
            return True
        if strict:
            if starts[at] == start and pieces[at] == body:  # a duplicate is the network's doing (RFC 8200 section 4.5)
                return True
            self._count("overlap_conflict")
            return False
        conflict = False
        position = start
        while at < len(starts) and starts[at] < stop:
            held, held_start = pieces[at], starts[at]
            low, high = max(held_start, start), min(held_start + len(held), stop)
            conflict |= held[low - held_start : high - held_start] != body[low - start : high - start]
            if position < low:
                _place(datagram, at, position, body[position - start : low - start])
                at += 1
            position = high
            at += 1
        if position < stop:
            _place(datagram, at, position, body[position - start :])
        if conflict:
            self._count("overlap_conflict")
        return True

    def _make_room(self, source: bytes) -> None:
        owner = self._sources[source]
        while len(owner.keys) > MAX_SOURCE_DATAGRAMS or owner.size > MAX_SOURCE_BYTES:
            self._drop(next(iter(owner.keys)), "fragment_evicted")
        while len(self._table) > self._datagrams or self.held_bytes > self._max_bytes:
            self._drop(next(iter(self._table)), "fragment_evicted")

    def _kill(self, datagram: _Datagram) -> None:
        """Forget the bytes but remember that the datagram is not to be had."""
        self._sources[datagram.source].size -= datagram.size
        self.held_bytes -= datagram.size
        datagram.starts, datagram.pieces = [], []
        datagram.size = 0
        datagram.dead = True

    def _drop(self, key: bytes, reason: str) -> None:
        datagram = self._table.pop(key)
        self.held_bytes -= datagram.size
        owner = self._sources[datagram.source]
        owner.size -= datagram.size
        del owner.keys[key]
        if not owner.keys:
            del self._sources[datagram.source]
        if reason:
            self._count(reason)

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def _place(datagram: _Datagram, at: int, start: int, body: bytes) -> None:
    datagram.starts.insert(at, start)
    datagram.pieces.insert(at, body)
    datagram.have += len(body)
    datagram.size += len(body) + PIECE_OVERHEAD


def _fits(datagram: _Datagram, stop: int, more: bool) -> bool:
    """Whether a fragment ending at `stop` agrees with the datagram's length, as far as known; the last one tells it."""
    if datagram.total >= 0:
        return stop <= datagram.total if more else stop == datagram.total
    if more:
        return True
    if datagram.starts and datagram.starts[-1] + len(datagram.pieces[-1]) > stop:
        return False
    datagram.total = stop
    return True
