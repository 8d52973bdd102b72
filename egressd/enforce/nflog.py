"""The kernel's log of stopped packets (linux/netfilter/nfnetlink_log.h): what our rules refused, and which rule did.

Asks for sequence numbers, so that a gap says exactly how many records were lost on the way.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from egressd.enforce.netlink import (
    ULOG,
    NetfilterSocket,
    NetlinkError,
    Overrun,
    attribute,
    generic,
    parse_attributes,
    parse_messages,
)
from egressd.errors import Malformed

_PACKET: Final = ULOG | 0
_CONFIG: Final = ULOG | 1
_CFG_CMD: Final = 1
_CFG_MODE: Final = 2
_CFG_NLBUFSIZ: Final = 3
_CFG_TIMEOUT: Final = 4
_CFG_QTHRESH: Final = 5
_CFG_FLAGS: Final = 6
_BIND: Final = 1
_COPY_PACKET: Final = 2
_F_SEQ: Final = 1
_TIMESTAMP: Final = 3
_INDEV: Final = 4
_PAYLOAD: Final = 9
_PREFIX: Final = 10
_SEQ: Final = 12

SNAPLEN_BYTES: Final = 128
_BUFFER_BYTES: Final = 1 << 16
_FLUSH: Final = 1  # hundredths of a second that the kernel gathers records at most
_THRESHOLD: Final = 16
_DATAGRAMS: Final = 32  # a turn, so that a flood does not hold the event loop
_HALF: Final = 1 << 31


class Dropped(NamedTuple):
    """One stopped packet. `prefix` says which rule (ruleset.PREFIXES), `packet` is its IP packet, cut; `iif` the index
    of the interface that it came in by, 0 = made here. `ts_us` is epoch microseconds."""

    ts_us: int
    prefix: str
    packet: bytes
    iif: int


@dataclass(slots=True)
class NflogStats:
    """What came and what did not."""

    records: int = 0
    lost: int = 0  # gaps in the kernel's numbering
    overruns: int = 0  # times that our buffer was full
    malformed: int = 0


class Nflog:
    """A reader of one or more log groups. Give `fileno()` to a selector and call `read` when it is readable."""

    def __init__(
        self, groups: Sequence[int] = (7,), *, snaplen_bytes: int = SNAPLEN_BYTES, receive_bytes: int = 1 << 23
    ) -> None:
        """Raises AdapterError; a group that another program holds is told as such."""
        self.stats = NflogStats()
        self._next: dict[int, int] = {}  # group -> the number that its next record will bear
        self._link = NetfilterSocket(receive_bytes=receive_bytes)
        try:
            for group in groups:
                self._bind(group, snaplen_bytes)
        except NetlinkError as error:
            self._link.close()
            if error.number in (errno.EBUSY, errno.EPERM):  # EPERM both for us without rights and for another's group
                why = f"nflog group {group} is another program's, or CAP_NET_ADMIN is missing; set another group"
                raise NetlinkError(errno.EBUSY, why) from error
            raise

    def fileno(self) -> int:
        """For selectors."""
        return self._link.fileno()

    def close(self) -> None:
        """Read no more; the kernel forgets the groups."""
        self._link.close()

    def read(self, now_us: int) -> list[Dropped]:
        """What waits, without blocking, at most a bounded amount: the socket stays readable when there is more.
        `now_us` stands in where the kernel stamped no time."""
        found: list[Dropped] = []
        for _ in range(_DATAGRAMS):
            try:
                datagram = self._link.receive(socket.MSG_DONTWAIT)
            except Overrun:
                self.stats.overruns += 1
                continue
            if not datagram:
                break
            try:
                records = parse_messages(datagram)
            except Malformed:
                self.stats.malformed += 1
                continue
            for record in records:
                if record.kind != _PACKET:
                    continue
                try:
                    found.append(self._record(record.body, now_us))
                except Malformed:
                    self.stats.malformed += 1
        return found

    def _record(self, body: bytes, now_us: int) -> Dropped:
        fields = parse_attributes(body, 4)
        self.stats.records += 1
        if _SEQ in fields:
            self._count(int.from_bytes(body[2:4], "big"), int.from_bytes(fields[_SEQ], "big"))
        stamp = fields.get(_TIMESTAMP, b"")
        if len(stamp) == 16:
            seconds, micros = struct.unpack(">QQ", stamp)
            now_us = seconds * 1_000_000 + micros
        prefix = fields.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
        return Dropped(now_us, prefix, fields.get(_PAYLOAD, b""), int.from_bytes(fields.get(_INDEV, b""), "big"))

    def _count(self, group: int, seq: int) -> None:
        expected = self._next.get(group, seq)
        gap = (seq - expected) & 0xFFFF_FFFF
        if gap < _HALF:  # a number that went back is a group bound anew
            self.stats.lost += gap
        self._next[group] = (seq + 1) & 0xFFFF_FFFF

    def _bind(self, group: int, snaplen_bytes: int) -> None:
        for settings in (
            attribute(_CFG_CMD, bytes([_BIND])),
            attribute(_CFG_MODE, struct.pack(">IBx", snaplen_bytes, _COPY_PACKET))
            + attribute(_CFG_NLBUFSIZ, _BUFFER_BYTES.to_bytes(4, "big"))
            + attribute(_CFG_TIMEOUT, _FLUSH.to_bytes(4, "big"))
            + attribute(_CFG_QTHRESH, _THRESHOLD.to_bytes(4, "big"))
            + attribute(_CFG_FLAGS, _F_SEQ.to_bytes(2, "big")),
        ):
            self._link.request(_CONFIG, 0, generic(0, group) + settings)
