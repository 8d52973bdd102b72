"""IP reassembly, IPv4 (RFC 791 section 3.2) and IPv6 (RFC 8200 section 4.5), in a table that traffic cannot make grow.

Overlap: the byte that came first wins. Where fragments disagree, about bytes or about the end, that is counted, and the
datagram is read a second time with what came last (its *rival*): receivers differ in which they take, or take none (RFC
5722), and who sends a harmless fragment with so short a time to live that it arrives nowhere sends the real one after
it. Time is the packets' own, in microseconds; it may jump.

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
MAX_READ_DATAGRAMS: Final = 256  # that are whole, and kept in case another copy of a fragment comes after that
MAX_READ_BYTES: Final = 1 << 20
MAX_READINGS: Final = 4  # of what came last, each time that a fragment changes it
PIECE_OVERHEAD: Final = 128  # what CPython spends on a small bytes object and its places in two lists


class _Datagram:
    __slots__ = (
        "dead",
        "first_us",
        "have",
        "next_header",
        "pieces",
        "readings",
        "rival",
        "size",
        "source",
        "starts",
        "total",
    )

    def __init__(self, source: bytes, ts_us: int) -> None:
        self.source = source
        self.first_us = ts_us
        self.starts: list[int] = []
        self.pieces: list[bytes] = []
        self.have = 0  # payload bytes held
        self.size = 0  # what it costs, with its rival
        self.total = -1  # known when the last fragment has come
        self.next_header = -1  # of the fragment at offset 0, the only one that counts (RFC 8200 section 4.5)
        self.dead = False  # kept, empty, so that later fragments do not begin it anew
        self.rival: _Datagram | None = None  # the same with the bytes that came last, once some disagree
        self.readings: list[int] = []  # hashes of what was read of it, once there is a rival


class _Source:
    __slots__ = ("keys", "size")

    def __init__(self) -> None:
        self.keys: dict[bytes, None] = {}
        self.size = 0


class Fragments:
    """The table of unfinished datagrams. `counts` is shared with the owner and gets `fragment_evicted`,
    `fragment_expired`, `fragment_refused` (breaks the rules of fragmentation) and `overlap_conflict`.

    `rival`, `rival_header`: after `add`, another reading of the same datagram, b"" if there is none, as nearly always.
    """

    __slots__ = (
        "_datagrams",
        "_max_bytes",
        "_read",
        "_read_bytes",
        "_sources",
        "_table",
        "_timeout_us",
        "counts",
        "held_bytes",
        "next_header",
        "rival",
        "rival_header",
    )

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
        self.rival = b""
        self.rival_header = -1
        self._datagrams = max_datagrams
        self._max_bytes = max_bytes
        self._timeout_us = timeout_us
        self._table: dict[bytes, _Datagram] = {}  # in order of arrival: the first is the oldest
        self._sources: dict[bytes, _Source] = {}
        self._read: dict[bytes, tuple[bytes, int, int]] = {}  # payload, next header, time; in order of time
        self._read_bytes = 0

    def __len__(self) -> int:
        return len(self._table)

    def add(
        self, key: bytes, source: bytes, next_header: int, start: int, more: bool, body: bytes, ts_us: int
    ) -> bytes | None:
        """Take one fragment; return the datagram's payload when that completes it, else None.

        `key` names the datagram, `source` whose share it uses; `start` is the fragment's offset in bytes.
        """
        self.rival = b""
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
            if key in self._read:
                self._begin_again(datagram, key)
        if datagram.dead:
            return None
        before = datagram.size
        if not _fits(datagram, stop, more):
            self._count("fragment_refused")
            agrees = False
        else:
            agrees = self._insert(datagram, start, body)
            if start == 0 and datagram.next_header < 0:
                datagram.next_header = next_header
        if not agrees and datagram.rival is None:
            datagram.rival = _copy(datagram)
        if datagram.rival is not None:
            _lay(datagram.rival, start, more, body, next_header)
            datagram.size = _cost(datagram) + _cost(datagram.rival)
        self.held_bytes += datagram.size - before
        self._sources[source].size += datagram.size - before
        whole: bytes | None = None
        if datagram.have == datagram.total:
            self.next_header = datagram.next_header
            whole = b"".join(datagram.pieces)
            if datagram.rival is None:
                self._drop(key, "")
                self._keep(key, whole, ts_us)
                return whole
            self._clear(datagram)
            datagram.readings.append(hash(whole))
        if datagram.rival is not None:
            self._read_rival(datagram, datagram.rival)
        if len(datagram.pieces) > MAX_PIECES or (datagram.rival and len(datagram.rival.pieces) > MAX_PIECES):
            self._count("fragment_refused")
            self._kill(datagram)
        self._make_room(source)
        return whole

    def _read_rival(self, datagram: _Datagram, rival: _Datagram) -> None:
        """What came last, if it is whole, and not as it was read before."""
        if rival.have == rival.total and len(datagram.readings) < MAX_READINGS:
            reading = b"".join(rival.pieces)
            known = hash(reading)
            if known not in datagram.readings:
                datagram.readings.append(known)
                self.rival = reading
                self.rival_header = rival.next_header

    def _keep(self, key: bytes, whole: bytes, ts_us: int) -> None:
        """A datagram was read, and nothing disagreed so far."""
        before = self._read.pop(key, None)
        if before is not None:
            self._read_bytes -= len(before[0])
        self._read[key] = (whole, self.next_header, ts_us)
        self._read_bytes += len(whole)
        while self._read_bytes > MAX_READ_BYTES or len(self._read) > MAX_READ_DATAGRAMS:
            self._read_bytes -= len(self._read.pop(next(iter(self._read)))[0])

    def _begin_again(self, datagram: _Datagram, key: bytes) -> None:
        """Another fragment of a datagram that was read: of a copy of it, or of another datagram."""
        whole, next_header, read_us = self._read[key]
        if abs(datagram.first_us - read_us) <= self._timeout_us:
            rival = datagram.rival = _Datagram(datagram.source, datagram.first_us)
            rival.starts, rival.pieces = [0], [whole]
            rival.have = rival.total = len(whole)
            rival.next_header = next_header
            datagram.readings.append(hash(whole))

    def _clear(self, datagram: _Datagram) -> None:
        """It was read: what comes now begins the first reading anew, and goes on with the other."""
        freed = _cost(datagram)
        datagram.starts, datagram.pieces = [], []
        datagram.have = 0
        datagram.total = datagram.next_header = -1
        datagram.size -= freed
        self.held_bytes -= freed
        self._sources[datagram.source].size -= freed

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

    def _insert(self, datagram: _Datagram, start: int, body: bytes) -> bool:
        """Put in what is new of `body`. False: it disagrees with what is there."""
        starts, pieces = datagram.starts, datagram.pieces
        stop = start + len(body)
        at = bisect_right(starts, start)
        if at and starts[at - 1] + len(pieces[at - 1]) > start:
            at -= 1
        if at == len(starts) or starts[at] >= stop:  # no overlap, the usual case
            _place(datagram, at, start, body)
            return True
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
        return not conflict

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
        datagram.rival = None
        datagram.readings = []
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


def _cost(datagram: _Datagram) -> int:
    """Of a datagram without its rival."""
    return datagram.have + len(datagram.pieces) * PIECE_OVERHEAD


def _copy(datagram: _Datagram) -> _Datagram:
    """A rival that says the same so far."""
    rival = _Datagram(datagram.source, datagram.first_us)
    rival.starts = list(datagram.starts)
    rival.pieces = list(datagram.pieces)
    rival.have = datagram.have
    rival.total = datagram.total
    rival.next_header = datagram.next_header
    return rival


def _lay(rival: _Datagram, start: int, more: bool, body: bytes, next_header: int) -> None:
    """Put `body` in the place of what is there. The end is where the fragment that came last has it."""
    stop = start + len(body)
    if not more:
        rival.total = stop
    elif 0 <= rival.total < stop:
        rival.total = -1
    if start == 0:
        rival.next_header = next_header
    starts: list[int] = []
    pieces: list[bytes] = []
    for at, piece in zip(rival.starts, rival.pieces, strict=True):
        if more or at < start:
            if at < start:
                starts.append(at)
                pieces.append(piece[: start - at])
            if at + len(piece) > stop and more:
                starts.append(max(at, stop))
                pieces.append(piece[max(0, stop - at) :])
    at = bisect_right(starts, start)
    starts.insert(at, start)
    pieces.insert(at, body)
    rival.starts, rival.pieces = starts, pieces
    rival.have = sum(len(piece) for piece in pieces)


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
