"""Live capture: the packets of one interface into the sink that captures of files go to as well, through the same gate.

An interface may go down, vanish and come back: the source says so in `state`, and opens anew by itself, at intervals
that grow. Nothing here blocks but `wait`, and that wakes for whatever is due.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from egressd.capture.prefilter import (
    COMPILED,
    ETHERNET,
    FRAGMENT_BIG,
    IPV4_BIG,
    IPV6_BIG,
    TCP4_END,
    UDP4_END,
    Sink,
    frame_is_quiet,
    opens_quic,
)
from egressd.capture.ring import (
    PACKET_OTHERHOST,
    SLOT,
    STATUS_COPY,
    STATUS_LOSING,
    STATUS_USER,
    TYPE_AT,
    CaptureSettings,
    PacketRing,
    interface_is_up,
)
from egressd.errors import CaptureError

if TYPE_CHECKING:
    from mypy_extensions import i64

UP: Final = "up"
DOWN: Final = "down"  # there, and not in use
MISSING: Final = "missing"  # no such interface
FAILED: Final = "failed"  # there, and the kernel refuses; `problem` says why
CLOSED: Final = "closed"  # by us

RAW_IP: Final = 101  # LINKTYPE_RAW
MARKED: Final = STATUS_COPY | STATUS_LOSING
# Of plain Ethernet with IPv4: EtherType, version and IHL, total length, fragment, protocol, the twelve bytes of
# addresses and ports, TCP data offset and flags (RFC 791, RFC 9293).
_JUDGED: Final = Struct(">12xHBxH2xHxB2x12s8xBB")
RETRY_FIRST_S: Final = 0.1
RETRY_LAST_S: Final = 1.0
_NEVER_S: Final = 1_000_000.0  # in so many seconds, and poll takes it
CHECK_S: Final = 1.0  # how often an interface that is up is looked at


def judge_plain(
    buf: bytes, start: i64, caplen: i64, ts_us: i64, quiet: dict[bytes, int], quiet_udp: dict[bytes, int]
) -> bool:
    """`frame_is_quiet` for CPython, where one unpack is quicker than indexing: the same verdicts. `buf` holds nothing
    but the frame."""
    if caplen < _JUDGED.size:
        return frame_is_quiet(buf, start, caplen, ts_us, quiet, quiet_udp)
    kind, version, total, fragment, proto, key, offset, flags = _JUDGED.unpack_from(buf, start)
    if kind != IPV4_BIG:
        return frame_is_quiet(buf, start, caplen, ts_us, quiet, quiet_udp) if kind == IPV6_BIG else False
    if version != 0x45 or fragment & FRAGMENT_BIG:
        return False
    until = 0
    if proto == 6:
        if caplen < TCP4_END or flags & 7:
            return False
        if total == (offset >> 4 << 2) + 20 and offset >= 0x50:
            return True
        until = quiet.get(key, 0)
    elif proto == 17:
        return quiet_udp.get(key, 0) > ts_us and not opens_quic(buf, start + UDP4_END, start + caplen)
    return until > ts_us


class LiveSink(Sink, Protocol):
    """A sink that is told where a packet comes from: `incoming` when it came in by the interface for this machine, not
    when it goes out by it, or passes by (on a mirror port)."""

    incoming: bool


class LiveSource:
    """Packets of one interface.

    `wanted` is the name asked for, or a pattern with * or ?; `name` the present name of the interface, which may be
    renamed while it is watched; `link` the link type of its packets as capture files number them. `state` is UP, DOWN,
    MISSING, FAILED or CLOSED, `problem` why it is FAILED. `last_us` is the time of the last packet, 0 before any.
    """

    def __init__(self, interface_name: str, settings: CaptureSettings) -> None:
        """Begin. Raises CaptureError when this process may not capture at all; an interface that is not there, or not
        up, is waited for."""
        self.wanted = interface_name
        self.name = interface_name
        self.state = MISSING
        self.problem = ""
        self.link = ETHERNET
        self.last_us = 0
        self.packets = 0
        self.gated = 0
        self.cut = 0
        self.losing = 0
        self.openings = 0
        self._settings = settings
        self._ring: PacketRing | None = None
        self._before = (0, 0)  # received and dropped, of rings that are closed
        self._abandoned = 0
        self._retry_s = RETRY_FIRST_S
        self._due_s = 0.0
        self._open(monotonic())
        if self.state == FAILED and not self.openings:
            raise CaptureError(f"{interface_name}: {self.problem}")

    def fileno(self) -> int:
        """The descriptor to wait for; -1 while there is none. It changes when the interface comes back."""
        return self._ring.fileno() if self._ring is not None else -1

    def read(self, sink: LiveSink, max_packets: int) -> int:
        """Give up to `max_packets` waiting packets to `sink`, those that the gate drops left out; how many it took off
        the ring. Looks after the interface when that is due. Never blocks."""
        taken = 0
        ring = self._ring
        if ring is not None:
            taken = self._take(ring, sink, max_packets)
        if taken < max_packets and self.state != CLOSED:
            now_s = monotonic()
            if now_s >= self._due_s:
                self._look(now_s)
        return taken

    def due_s(self, now_s: float) -> float:
        """Seconds from `now_s` (time.monotonic) until `read` should be called even without packets."""
        return max(0.0, self._due_s - now_s)

    def fault(self) -> None:
        """The descriptor has an error (POLLERR): the interface went down or away. The next `read` looks at it."""
        if self._ring is not None:
            self._ring.error()
        self._due_s = 0.0

    def counts(self) -> dict[str, int]:
        """What became of the packets that passed the filter since the source began.

        `received` = `packets` (taken off the ring) + those waiting now + `abandoned` (were waiting when a ring was
        closed); `kernel_drops` found the ring full. `gated` of `packets` were dropped by the gate; `cut` were longer
        than was captured; `losing` carried the kernel's mark that others had just been dropped. What the filter
        rejects nobody counts.
        """
        received, drops = self._before
        if self._ring is not None:
            self._ring.read_statistics()
            received += self._ring.received
            drops += self._ring.dropped
        return {
            "received": received,
            "packets": self.packets,
            "kernel_drops": drops,
            "gated": self.gated,
            "cut": self.cut,
            "losing": self.losing,
            "abandoned": self._abandoned,
            "openings": self.openings,
        }

    def close(self) -> None:
        """Stop; what still waits is counted as abandoned. Harmless when done already."""
        self._release()
        self.state = CLOSED
        self._due_s = monotonic() + _NEVER_S

    # -- packets

    def _take(self, ring: PacketRing, sink: LiveSink, max_packets: int) -> int:
        quiet = sink.quiet
        quiet_udp = sink.quiet_udp
        recent = sink.recent
        link = self.link
        ethernet = link == ETHERNET
        slots = ring.ring()
        statuses = ring.status()
        unpack = SLOT.unpack_from
        place: i64 = ring.place
        step: i64 = ring.slot_bytes
        size: i64 = ring.size_bytes
        limit: i64 = max_packets
        number: i64 = self.packets
        taken: i64 = 0
        gated: i64 = 0
        try:
            while taken < limit:
                status = statuses[place >> 2]
                if not status & STATUS_USER:
                    break
                length, captured, at, _, second, nano = unpack(slots, place)
                packet = slots[place + at : place + at + captured]
                incoming = slots[place + TYPE_AT] < PACKET_OTHERHOST
                if status & MARKED:
                    packet = self._marked(ring, status, packet)
                statuses[place >> 2] = 0
                end: i64 = len(packet)
                place += step
                if place == size:
                    place = 0
                taken += 1
                ts_us: i64 = second * 1_000_000 + nano // 1000
                self.last_us = ts_us
                if ethernet and (
                    frame_is_quiet(packet, 0, end, ts_us, quiet, quiet_udp, recent)
                    if COMPILED
                    else judge_plain(packet, 0, end, ts_us, quiet, quiet_udp)
                ):
                    gated += 1
                    continue
                if end < length:
                    self.cut += 1
                sink.incoming = incoming
                sink.packet(ts_us, number + taken, link, packet, 0, end, length)
        finally:  # also when a sink has a fault: what it was given is off the ring
            ring.place = place
            self.packets = number + taken
            self.gated += gated
        return taken

    def _marked(self, ring: PacketRing, status: int, packet: bytes) -> bytes:
        """The packet whole when it was too long for its slot; and a count of the kernel's warnings."""
        if status & STATUS_LOSING:
            self.losing += 1
        return (ring.take_copy() or packet) if status & STATUS_COPY else packet

    # -- the interface

    def _find(self) -> str:
        """The name of the interface asked for, "" when there is none."""
        if not any(mark in self.wanted for mark in "*?["):
            return self.wanted
        names = sorted(name for _, name in socket.if_nameindex())
        return next((name for name in names if fnmatchcase(name, self.wanted)), "")

    def _open(self, now_s: float) -> None:
        self.problem = ""
        name = self._find()
        try:
            if not name:
                raise OSError(errno.ENODEV, "no interface has such a name")
            ring = PacketRing(name, self._settings)
        except OSError as error:
            self._refused(name, error)
            self._later(now_s)
            return
        self._ring = ring
        self.openings += 1
        self.name = name
        self.link = ETHERNET if ring.ethernet else RAW_IP
        self._retry_s = RETRY_FIRST_S
        self._look(now_s)

    def _refused(self, name: str, error: OSError) -> None:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            self.state = MISSING
        elif error.errno == errno.EPERM:
            self.state = FAILED
            self.problem = "capturing needs CAP_NET_RAW"
        elif not interface_is_up(name):  # a fan-out group of an older kernel cannot be joined before
            self.state = DOWN
        else:
            self.state = FAILED
            self.problem = error.strerror or "the kernel refuses to capture there"

    def _look(self, now_s: float) -> None:
        """See what has become of the interface. A socket whose interface went down gets packets again when it comes
        up; one whose interface went away never does."""
        ring = self._ring
        if ring is None:
            self._open(now_s)
            return
        name = ring.bound_name()
        if not name:
            self._release()
            self._retry_s = RETRY_FIRST_S
            self._open(now_s)
            return
        self.name = name
        if ring.is_up():
            self.state = UP
            self._retry_s = RETRY_FIRST_S
            self._due_s = now_s + CHECK_S
        else:
            self.state = DOWN
            self._later(now_s)

    def _later(self, now_s: float) -> None:
        self._due_s = now_s + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_LAST_S)

    def _release(self) -> None:
        ring = self._ring
        if ring is None:
            return
        ring.read_statistics()
        self._before = (self._before[0] + ring.received, self._before[1] + ring.dropped)
        self._abandoned = self._before[0] - self.packets
        ring.close()
        self._ring = None


def wait(sources: Sequence[LiveSource], extra_fds: Sequence[int], timeout_ms: int) -> list[int]:
    """Wait until a source has packets or wants to be read for another reason, one of `extra_fds` is readable (or
    closed at its other end), or `timeout_ms` have passed (-1: no such limit); those of `extra_fds` that are ready.
    After it, read every source."""
    poll = select.poll()
    now_s = monotonic()
    limit_ms = timeout_ms
    by_fd: dict[int, LiveSource] = {}
    for source in sources:
        due_ms = int(source.due_s(now_s) * 1000) + 1
        if limit_ms < 0 or due_ms < limit_ms:
            limit_ms = due_ms
        fd = source.fileno()
        if fd >= 0:
            by_fd[fd] = source
            poll.register(fd, select.POLLIN)
    for fd in extra_fds:
        poll.register(fd, select.POLLIN)
    ready: list[int] = []
    for fd, events in poll.poll(limit_ms):
        watched = by_fd.get(fd)
        if watched is None:
            ready.append(fd)
        elif events & ~select.POLLIN:
            watched.fault()
    return ready
