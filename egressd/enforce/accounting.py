"""How many bytes each flow in the kernel's connection table carried: a dump of it, and what the kernel says when a flow
ends (linux/netfilter/nfnetlink_conntrack.h).

The kernel counts only while `net.netfilter.nf_conntrack_acct` is 1, and only flows that began since. A dump is as fast
as it is read: the kernel makes the next piece when the last one was taken, so nothing of it can be lost. What is said
of ends waits in a buffer, and can be: that raises Overrun.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from egressd.enforce.adapter import AdapterError
from egressd.enforce.netlink import (
    ATTRIBUTE,
    CTNETLINK,
    DONE,
    DUMP,
    ERROR,
    REQUEST,
    TYPE_MASK,
    NetfilterSocket,
    NetlinkError,
    generic,
    message,
    parse_attributes,
    parse_error,
    parse_messages,
)
from egressd.errors import Malformed

SWITCH: Final = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
TURN_ON: Final = "sysctl -w net.netfilter.nf_conntrack_acct=1"
# What waits of ends: some 300 bytes each and as much of the kernel's own, so 50,000 ends between two looks.
ENDS_BYTES: Final = 32 << 20

_GET: Final = CTNETLINK | 1
_DELETED: Final = CTNETLINK | 2
_DESTROY_GROUP: Final = 3  # NFNLGRP_CONNTRACK_DESTROY
_ORIGINAL: Final = 1  # CTA_TUPLE_ORIG
_COUNTERS_ORIGINAL: Final = 9
_COUNTERS_REPLY: Final = 10
_ID: Final = 12
_BYTES: Final = 2  # CTA_COUNTERS_BYTES
_IPV6_SOURCE: Final = 3  # CTA_IP_V6_SRC


class Counted(NamedTuple):
    """One flow as its opener sees it. `key` is its own as long as it lives. `out_bytes` and `in_bytes` are of IP
    packets with their headers, -1 when the kernel does not count this flow."""

    key: int
    proto: int
    source: bytes
    destination: bytes
    out_bytes: int
    in_bytes: int


def accounting_is_on() -> bool | None:
    """Whether the kernel counts; None when it tracks no connections at all."""
    try:
        return SWITCH.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return None


class Accounting:
    """Two netlink sockets: one for dumps, one that hears of ends. For one thread."""

    def __init__(self) -> None:
        """Raises AdapterError when there is no netlink to netfilter, or no right to it."""
        self._table = NetfilterSocket()
        try:
            self._ends = NetfilterSocket(groups=(_DESTROY_GROUP,), receive_bytes=ENDS_BYTES, timeout_s=1.0)
        except AdapterError:
            self._table.close()
            raise
        self.malformed = 0

    def close(self) -> None:
        """Let go of both."""
        self._table.close()
        self._ends.close()

    def flows(self) -> Iterator[list[Counted]]:
        """Every flow there is, in pieces of about a hundred. Raises AdapterError."""
        link = self._table
        link.drain()  # of a dump that was given up
        seq = link.next_seq()
        link.send(message(_GET, REQUEST | DUMP, seq, generic(0)))
        while True:
            datagram = link.receive()
            if not datagram:
                raise AdapterError("the kernel did not finish a dump of its connections in time")
            piece: list[Counted] = []
            for answer in parse_messages(datagram):
                if answer.seq != seq:
                    continue
                if answer.kind == DONE:
                    yield piece
                    return
                if answer.kind == ERROR:
                    raise NetlinkError(parse_error(answer.body)[0], "dump of connections")
                self._read(answer.body, piece)
            yield piece

    def ended(self) -> list[Counted]:
        """Flows that ended, as many as one datagram tells; none when a second passed without any. Raises Overrun when
        some were lost."""
        ended: list[Counted] = []
        for told in parse_messages(self._ends.receive()):
            if told.kind == _DELETED:
                self._read(told.body, ended)
        return ended

    def _read(self, body: bytes, into: list[Counted]) -> None:
        try:
            into.append(parse_counted(body))
        except Malformed:
            self.malformed += 1


def parse_counted(body: bytes) -> Counted:
    """A flow of a dump or an event. Raises Malformed. Written out for speed: there are a hundred thousand of them."""
    end = len(body)
    at = 4  # behind struct nfgenmsg
    original = b""
    id_ = b""
    sent = got = -1
    while at + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(body, at)
        if length < 4 or at + length > end:
            raise Malformed("netlink attribute longer than what holds it")
        kind &= TYPE_MASK
        if kind == _ORIGINAL:
            original = body[at + 4 : at + length]
        elif kind == _COUNTERS_ORIGINAL:
            sent = _octets(body[at + 4 : at + length])
        elif kind == _COUNTERS_REPLY:
            got = _octets(body[at + 4 : at + length])
        elif kind == _ID:
            id_ = body[at + 4 : at + length]
        at += (length + 3) & ~3
    # CTA_TUPLE_IP comes first, source first in it; CTA_TUPLE_PROTO follows, the protocol's number first in it.
    if len(original) < 8:
        raise Malformed("flow without its addresses")
    size = 16 if ATTRIBUTE.unpack_from(original, 4)[1] & TYPE_MASK == _IPV6_SOURCE else 4
    source = original[8 : 8 + size]
    destination = original[12 + size : 12 + 2 * size]
    proto_at = 12 + 2 * size + 8
    if len(original) <= proto_at:
        raise Malformed("flow without its addresses")
    return Counted(hash(original + id_), original[proto_at], source, destination, sent, got)


def _octets(counters: bytes) -> int:
    octets = parse_attributes(counters).get(_BYTES, b"")
    if len(octets) != 8:
        raise Malformed("flow with a counter of a wrong size")
    return int.from_bytes(octets, "big")
