"""Established flows of what was just blocked: found in the kernel's connection table and forgotten there.

The rules stop every packet anyway, established or not. Forgetting the flow makes hardware and software flow tables let
go of it, and address translation with it (linux/netfilter/nfnetlink_conntrack.h).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from egressd.enforce.adapter import CLIENT, SEGMENT
from egressd.enforce.elements import ADDRESS, NETWORK, PAIR, network_of, pack
from egressd.enforce.netlink import (
    ATTRIBUTE,
    CTNETLINK,
    NetfilterSocket,
    NetlinkError,
    Overrun,
    attribute,
    generic,
    nested,
    parse_attributes,
)
from egressd.errors import Malformed
from egressd.intel.networks import NetworkTable
from egressd.model import Target

_GET: Final = CTNETLINK | 1
_DELETE: Final = CTNETLINK | 2
_TUPLE_ORIG: Final = 1
_TUPLE_REPLY: Final = 2
_STATUS: Final = 3
_PROTOINFO: Final = 4
_PROTOINFO_TCP: Final = 1
_TCP_STATE: Final = 1  # CTA_PROTOINFO_TCP_STATE
_ESTABLISHED: Final = 3  # TCP_CONNTRACK_ESTABLISHED (linux/netfilter/nf_conntrack_tcp.h)
_DNS_PORT: Final = 53
_ID: Final = 12
_ZONE: Final = 18
_FILTER: Final = 25
_TUPLE_IP: Final = 1
_TUPLE_PROTO: Final = 2
_PROTO_NUM: Final = 1
_SOURCE_PORT: Final = 2
_TARGET_PORT: Final = 3
_SOURCE_BIT: Final = 1  # CTA_FILTER_F_CTA_IP_SRC
_TARGET_BIT: Final = 2  # CTA_FILTER_F_CTA_IP_DST
_SEEN_REPLY: Final = 2  # IPS_SEEN_REPLY
_FAMILIES: Final = ((2, 4), (10, 16))  # AF_INET, AF_INET6 and the size of their addresses
_FEW: Final = (
    4  # targets: the kernel walks the whole table for each, three times; from here on one full dump is cheaper
)
_TRIES: Final = 4

Ends = tuple[bytes, bytes, bytes, bytes]  # source and destination as opened, source and destination of the answers
Matches = Callable[[Ends], bool]


class Flow(NamedTuple):
    """One flow in the kernel's table, as its opener sees it. `answered` when packets went both ways; `is_open` when
    more may still go: a TCP connection that is neither being opened nor closed, or something else that was answered
    and is no question to a resolver."""

    proto: int
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    answered: bool
    is_open: bool


class Conntrack:
    """The kernel's connection table behind one netlink socket."""

    def __init__(self) -> None:
        """Raises AdapterError when there is no netlink to netfilter."""
        self._link = NetfilterSocket(receive_bytes=1 << 25)

    def kill(
        self,
        targets: Sequence[Target],
        keep: NetworkTable[str] | None = None,
        unarmed: NetworkTable[str] | None = None,
    ) -> int:
        """Forget every flow that the blocks of `targets` stop; returns how many. Flows of isolated clients and cut
        segments with a place in `keep` (remedies) stay, as do flows of machines in `unarmed` with what is blocked for
        everybody. Raises AdapterError."""
        wanted = [target for target in targets if target.kind in (ADDRESS, NETWORK, PAIR, CLIENT, SEGMENT)]
        if not wanted:
            return 0
        matches = _matcher(wanted, keep, unarmed)
        few = len(wanted) <= _FEW and all(target.kind in (ADDRESS, PAIR) for target in wanted)
        bodies = self._filtered(wanted) if few else self._everything()
        keys = {_tuple_of(body) for body in bodies if matches(_ends(body))}
        requests = [generic(family) + key for family, key in sorted(keys)]
        killed = 0
        for answer in self._ask(requests):
            if answer == 0:
                killed += 1
            elif answer != errno.ENOENT:  # it ended by itself
                raise NetlinkError(answer, "forget a flow")
        return killed

    def count_flows(self, networks: Iterable[tuple[bytes, int]]) -> list[Flow]:
        """The flows that machines in these networks have opened, or that lead to them, still known."""
        table = NetworkTable((addr, length, "") for addr, length in networks)
        found = []
        for body in self._everything():
            ends = _ends(body)
            if any(table.longest(end) is not None for end in ends):
                found.append(_flow(body, ends))
        return found

    def close(self) -> None:
        """Let go of the socket."""
        self._link.close()

    def _ask(self, requests: Sequence[bytes]) -> list[int]:
        """Delete by tuple; the errno of each, 0 = done."""
        for _ in range(_TRIES):
            try:
                answers = self._link.ask_many(_DELETE, 0, requests)
                return [answer if isinstance(answer, int) else 0 for answer in answers]
            except Overrun:
                self._link.drain()
        raise Overrun("answers about flows overran their buffer again and again")

    def _everything(self) -> list[bytes]:
        return [body for family, _ in _FAMILIES for body in self._dump(generic(family))]

    def _filtered(self, targets: Sequence[Target]) -> list[bytes]:
        """Flows with an address of ours as destination or source, or that answer from it, chosen by the kernel (5.8 and
        later; an older one hands out everything, and the matcher chooses)."""
        bodies: list[bytes] = []
        for target in targets:
            addr = pack(target.value.rpartition(">")[2])
            family = 2 if len(addr) == 4 else 10
            source, destination = (1, 2) if len(addr) == 4 else (3, 4)
            for side, field, bit in (
                (_TUPLE_ORIG, destination, _TARGET_BIT),
                (_TUPLE_ORIG, source, _SOURCE_BIT),
                (_TUPLE_REPLY, source, _SOURCE_BIT),
            ):
                body = generic(family) + nested(side, nested(_TUPLE_IP, attribute(field, addr)))
                flags = (bit if side == _TUPLE_ORIG else 0, bit if side == _TUPLE_REPLY else 0)
                body += nested(_FILTER, *(attribute(at, struct.pack("=I", flag)) for at, flag in enumerate(flags, 1)))
                bodies += self._dump(body)
        return bodies

    def _dump(self, body: bytes) -> list[bytes]:
        for _ in range(_TRIES):
            try:
                return [answer.body for answer in self._link.dump(_GET, body)]
            except Overrun:
                self._link.drain()
        raise Overrun("the dump of flows overran its buffer again and again")


def _matcher(targets: Iterable[Target], keep: NetworkTable[str] | None, unarmed: NetworkTable[str] | None) -> Matches:
    """Whether a flow with these four addresses is one that the blocks stop."""
    addresses: set[bytes] = set()
    clients: set[bytes] = set()
    pairs: set[tuple[bytes, bytes]] = set()
    networks: list[tuple[bytes, int, str]] = []
    segments: list[tuple[bytes, int, str]] = []
    for target in targets:
        if target.kind == ADDRESS:
            addresses.add(pack(target.value))
        elif target.kind == CLIENT:
            clients.add(pack(target.value))
        elif target.kind == PAIR:
            client, _, server = target.value.partition(">")
            pairs.add((pack(client), pack(server)))
        else:
            (networks if target.kind == NETWORK else segments).append((*network_of(target), ""))
    blocked, cut = NetworkTable(networks), NetworkTable(segments)

    def isolated(end: bytes) -> bool:
        return end in clients or (cut.size > 0 and cut.longest(end) is not None)

    def is_blocked(end: bytes) -> bool:
        return end in addresses or (blocked.size > 0 and blocked.longest(end) is not None)

    def matches(ends: Ends) -> bool:
        source, destination, answering, _ = ends
        if any(is_blocked(end) for end in ends):
            client = answering if is_blocked(source) else source
            if unarmed is None or unarmed.longest(client) is None:
                return True
        if pairs and (
            (source, destination) in pairs
            or (source, answering) in pairs
            or (destination, source) in pairs
            or (answering, source) in pairs
        ):
            return True
        if not any(isolated(end) for end in ends):
            return False
        return keep is None or all(keep.longest(end) is None for end in ends)

    return matches


def _ends(body: bytes) -> Ends:
    """The four addresses, by their fixed places: the kernel writes both tuples first, addresses first in each."""
    if len(body) < 8:
        raise Malformed("flow too short")
    one = _pair_at(body, 4)
    other = _pair_at(body, 4 + ((ATTRIBUTE.unpack_from(body, 4)[0] + 3) & ~3))
    return (*one, *other)


def _pair_at(body: bytes, at: int) -> tuple[bytes, bytes]:
    size = 16 if body[at + 10 : at + 11] == b"\x03" else 4  # CTA_IP_V6_SRC, else CTA_IP_V4_SRC
    source = body[at + 12 : at + 12 + size]
    destination = body[at + 16 + size : at + 16 + 2 * size]
    if len(destination) != size:
        raise Malformed("flow without its addresses")
    return source, destination


def _tuple_of(body: bytes) -> tuple[int, bytes]:
    """The family and what names exactly this flow to the kernel: its tuple, its zone and its id."""
    fields = parse_attributes(body, 4)
    key = nested(_TUPLE_ORIG, fields.get(_TUPLE_ORIG, b""))
    for kind in (_ID, _ZONE):
        if kind in fields:
            key += attribute(kind, fields[kind])
    return body[0], key


def _flow(body: bytes, ends: Ends) -> Flow:
    fields = parse_attributes(body, 4)
    proto = parse_attributes(parse_attributes(fields.get(_TUPLE_ORIG, b"")).get(_TUPLE_PROTO, b""))
    answered = bool(int.from_bytes(fields.get(_STATUS, b""), "big") & _SEEN_REPLY)
    target_port = int.from_bytes(proto.get(_TARGET_PORT, b""), "big")
    of_tcp = parse_attributes(fields.get(_PROTOINFO, b"")).get(_PROTOINFO_TCP)
    if of_tcp is not None:
        is_open = parse_attributes(of_tcp).get(_TCP_STATE) == bytes((_ESTABLISHED,))
    else:
        is_open = answered and target_port != _DNS_PORT
    return Flow(
        int.from_bytes(proto.get(_PROTO_NUM, b""), "big"),
        ends[0],
        int.from_bytes(proto.get(_SOURCE_PORT, b""), "big"),
        ends[1],
        target_port,
        answered,
        is_open,
    )
