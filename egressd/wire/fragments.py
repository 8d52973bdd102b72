"""IP reassembly, IPv4 (RFC 791 section 3.2) and IPv6 (RFC 8200 section 4.5), in a table that traffic cannot make grow.

Overlap: the byte that came first wins. Where fragments disagree, about bytes or about the end, that is counted, and the
datagram is read a second time with what came last (its *rival*): receivers differ in which they take, or take none (RFC
5722), and who sends a harmless fragment with so short a time to live that it arrives nowhere sends the real one after
it. Time is the packets' own, in microseconds; it may jump.

Invariants: `held_bytes` is the sum of all `size`s; every key in `_table` is in exactly one source's keys, and the other
way round.
"""

from __future__ import annotations

from typing import Final

from egressd.wire.patchwork import Patchwork

MAX_DATAGRAMS: Final = 1024  # as many as a busy gateway has half-done at once, ten times over
MAX_BYTES: Final = 4 << 20  # for everything held, with PIECE_OVERHEAD for each piece
# An eighth: no single source address, or IPv6 network of 64 bits (a host has as many addresses there as it likes),
# pushes out the others.
MAX_SOURCE_DATAGRAMS: Final = 128
MAX_SOURCE_BYTES: Final = 1 << 20  # a quarter: room for sixteen datagrams of the greatest size
MAX_PIECES: Final = (
    512  # a 64 KiB datagram in the 576-byte fragments of RFC 791 has 119; 8-byte fragments are an attack
)
MAX_DATAGRAM_BYTES: Final = 65535  # a 16-bit length
TIMEOUT_US: Final = 30_000_000  # Linux's ipfrag_time; RFC 8200 section 4.5 says 60 s
MAX_READ_DATAGRAMS: Final = 256  # that are whole, and kept in case another copy of a fragment comes after that
MAX_READ_BYTES: Final = 1 << 20
MAX_READINGS: Final = 4  # of what came last, each time that a fragment changes it


class _Datagram:
    __slots__ = ("dead", "first", "first_us", "readings", "rival", "size", "source")

    def __init__(self, source: bytes, ts_us: int) -> None:
        self.source = source
        self.first_us = ts_us
        self.first = Patchwork()  # of the bytes that came first
        self.rival: Patchwork | None = None  # of those that came last, once some disagree
        self.size = 0  # what both cost
        self.dead = False  # kept, empty, so that later fragments do not begin it anew
        self.readings: list[int] = []  # hashes of what was read of it, once there is a rival

    def has_too_many(self) -> bool:
        """Whether it comes in more pieces than anybody sends who means well."""
        return len(self.first.pieces) > MAX_PIECES or (self.rival is not None and len(self.rival.pieces) > MAX_PIECES)


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
        if len(source) == 16:
            source = source[:8]
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
        self._put(datagram, start, more, body, next_header)
        whole = self._read_first(datagram, key, ts_us)
        if datagram.rival is not None:
            self._read_rival(datagram, datagram.rival)
        elif whole is not None:
            return whole  # and the datagram is gone
        if datagram.has_too_many():
            self._count("fragment_refused")
            self._kill(datagram)
        self._make_room(source)
        return whole

    def _put(self, datagram: _Datagram, start: int, more: bool, body: bytes, next_header: int) -> None:
        """Into both readings; the other one begins where a fragment disagrees with what is there."""
        first = datagram.first
        agrees = first.fits(start + len(body), more)
        if agrees:
            agrees = first.insert(start, body)
            if not agrees:
                self._count("overlap_conflict")
            if start == 0 and first.next_header < 0:
                first.next_header = next_header
        else:
            self._count("fragment_refused")
        if not agrees and datagram.rival is None:
            datagram.rival = first.copy()
        if datagram.rival is not None:
            datagram.rival.lay(start, more, body, next_header)
        self._weigh(datagram)

    def _read_first(self, datagram: _Datagram, key: bytes, ts_us: int) -> bytes | None:
        """What came first, once it is whole. Without a rival that is the end of it; with one, what comes now begins
        the first reading anew, and goes on with the other."""
        first = datagram.first
        if not first.is_whole:
            return None
        self.next_header = first.next_header
        whole = first.joined()
        if datagram.rival is None:
            self._drop(key, "")
            self._keep(key, whole, ts_us)
        else:
            datagram.first = Patchwork()
            datagram.readings.append(hash(whole))
            self._weigh(datagram)
        return whole

    def _read_rival(self, datagram: _Datagram, rival: Patchwork) -> None:
        """What came last, if it is whole, and not as it was read before."""
        if rival.is_whole and len(datagram.readings) < MAX_READINGS:
            reading = rival.joined()
            known = hash(reading)
            if known not in datagram.readings:
                datagram.readings.append(known)
                self.rival = reading
                self.rival_header = rival.next_header

    def _weigh(self, datagram: _Datagram) -> None:
        """What it costs now."""
        size = datagram.first.cost + (datagram.rival.cost if datagram.rival is not None else 0)
        self.held_bytes += size - datagram.size
        self._sources[datagram.source].size += size - datagram.size
        datagram.size = size

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
            rival = datagram.rival = Patchwork()
            rival.lay(0, False, whole, next_header)
            datagram.readings.append(hash(whole))

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

    def _make_room(self, source: bytes) -> None:
        owner = self._sources[source]
        while len(owner.keys) > MAX_SOURCE_DATAGRAMS or owner.size > MAX_SOURCE_BYTES:
            self._drop(next(iter(owner.keys)), "fragment_evicted")
        while len(self._table) > self._datagrams or self.held_bytes > self._max_bytes:
            self._drop(next(iter(self._table)), "fragment_evicted")

    def _kill(self, datagram: _Datagram) -> None:
        """Forget the bytes but remember that the datagram is not to be had."""
        datagram.first = Patchwork()
        datagram.rival = None
        datagram.readings = []
        datagram.dead = True
        self._weigh(datagram)

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
