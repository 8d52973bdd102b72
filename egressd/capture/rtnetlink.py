"""What the kernel tells about interfaces, addresses, routes and neighbours: rtnetlink (RFC 3549, linux/rtnetlink.h).

Only asking and listening; nothing is ever changed. The `parse_` functions take any bytes: what is broken or unknown is
left out. The `read_` functions wait for the kernel, a fraction of a millisecond on a small host and up to seconds for a
million routes: call them from a thread. They raise OSError when the kernel does not answer.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from egressd.intel.networks import first_address

# NUD_INCOMPLETE, NUD_FAILED: an address without an owner; NUD_NOARP: multicast and the like, nobody was asked.
UNOWNED_STATES: Final = 0x01 | 0x20 | 0x40
# NUD_REACHABLE: the owner has just answered; NUD_PERMANENT: an administrator said so.
CONFIRMED_STATES: Final = 0x02 | 0x80
MULTICAST_NEIGHBOURS: Final = 0x4  # RTMGRP_NEIGH
NEW_NEIGHBOUR: Final = 28

_ROUTE: Final = 0  # NETLINK_ROUTE
_HEADER: Final = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE: Final = Struct("=HH")
_LINK: Final = Struct("=BxHiII")  # ifinfomsg: family, hardware, index, flags, change
_ADDRESS: Final = Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTING: Final = Struct("=BBBBBBBBI")  # rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_NEIGHBOUR: Final = Struct("=BxHiHBB")  # ndmsg: family, index, state, flags, type
_HOP: Final = Struct("=HBBi")  # rtnexthop: length, flags, weight, index
_NUMBER: Final = Struct("=I")
_SIGNED: Final = Struct("=i")

_NEW_LINK, _DELETED_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DELETED_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DELETED_ROUTE, _GET_ROUTE = 24, 25, 26
_GET_NEIGHBOUR: Final = 30
_ERROR, _DONE = 2, 3
_REQUEST_DUMP: Final = 0x301
_INTERRUPTED: Final = 0x10  # NLM_F_DUMP_INTR: something changed while the kernel was telling
_ATTEMPTS: Final = 4
_TIMEOUT_S: Final = 5.0
_RECEIVE_BYTES: Final = 1 << 18
_CLONED: Final = 0x200  # RTM_F_CLONED: an entry of a cache, not a route
_UNICAST: Final = 1  # RTN_UNICAST
_TOLD: Final = (1, 9)  # RTPROT_REDIRECT, RTPROT_RA
_LOCAL_TABLE: Final = 255
# Kept of a full routing table; default routes are kept beyond it.
MAX_ROUTES: Final = 16_384
MAX_NEIGHBOURS: Final = 65_536
HALF_OF_ALL: Final = 1  # prefix length: VPN clients lay two such routes over the default route

# Where drivers tell the other end of a tunnel: IFLA_GRE_REMOTE, IFLA_IPTUN_REMOTE, IFLA_VTI_REMOTE (linux/if_tunnel.h),
# IFLA_VXLAN_GROUP and GROUP6, IFLA_GENEVE_REMOTE and REMOTE6 (linux/if_link.h).
_REMOTES: Final = {
    **dict.fromkeys(("gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan"), (7,)),
    **dict.fromkeys(("ipip", "sit", "ip6tnl"), (3,)),
    **dict.fromkeys(("vti", "vti6"), (5,)),
    "vxlan": (2, 16),
    "geneve": (2, 7),
}

# Multicast groups (linux/rtnetlink.h): link, IPv4 address, IPv4 route, IPv6 address, IPv6 route.
_WATCHED_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_WATCHED: Final = (_NEW_LINK, _DELETED_LINK, _NEW_ADDRESS, _DELETED_ADDRESS, _NEW_ROUTE, _DELETED_ROUTE)
_MAX_DRAINED: Final = 256  # datagrams at a time


class Message(NamedTuple):
    """One netlink message without its header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


class Link(NamedTuple):
    """An interface. `kind` is the driver's ("bridge", "vlan", "wireguard"; "" of real hardware), `master` the index of
    the bridge or bond it belongs to and `parent` of the interface it stands on, 0 for none. `remote` is the other end
    of a tunnel, b"" for none."""

    ifindex: int
    name: str
    hardware: int
    mac: bytes
    is_up: bool
    is_loopback: bool
    kind: str
    master: int
    parent: int
    remote: bytes = b""


class Address(NamedTuple):
    """An own address on the interface `ifindex`, and the network that is reached there: with a peer, the peer's."""

    ifindex: int
    address: bytes
    network: bytes
    length: int


class Route(NamedTuple):
    """A unicast route; several next hops make as many. `gateway` is b"" for what is reached directly, `target` of
    `length` 0 is a default route. `is_told` when a machine on the link announced it (router advertisement, redirect).
    """

    target: bytes
    length: int
    gateway: bytes
    ifindex: int
    metric: int
    table: int
    is_told: bool = False


class Neighbour(NamedTuple):
    """Who has an address on the interface `ifindex`, as far as the kernel has asked; `is_confirmed` when it answered
    just now."""

    ifindex: int
    address: bytes
    mac: bytes
    is_confirmed: bool = False


def parse_messages(octets: bytes) -> list[Message]:
    """The messages of a datagram, up to the first that is broken."""
    found: list[Message] = []
    at = 0
    while at + _HEADER.size <= len(octets):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(octets, at)
        if size < _HEADER.size or at + size > len(octets):
            break
        found.append(Message(kind, flags, sequence, octets[at + _HEADER.size : at + size]))
        at += (size + 3) & ~3
    return found


def parse_attributes(octets: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes from `at` on by type, up to the first that is broken; of equals the last."""
    return dict(walk_attributes(octets, at))


def walk_attributes(octets: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """The type and content of each attribute from `at` on, in order, up to the first that is broken."""
    while at + 4 <= len(octets):
        size, kind = _ATTRIBUTE.unpack_from(octets, at)
        if size < 4 or at + size > len(octets):
            return
        yield kind & 0x3FFF, octets[at + 4 : at + size]  # without the flags "nested" and "network order"
        at += (size + 3) & ~3


def parse_link(body: bytes) -> Link | None:
    """The interface that an RTM_NEWLINK message tells of."""
    if len(body) < _LINK.size:
        return None
    _, hardware, index, flags, _ = _LINK.unpack_from(body)
    attributes = parse_attributes(body, _LINK.size)
    name = _text(attributes.get(3, b""))  # IFLA_IFNAME
    if not name:
        return None
    nested = parse_attributes(attributes.get(18, b""))  # IFLA_LINKINFO
    kind = _text(nested.get(1, b""))  # IFLA_INFO_KIND
    return Link(
        ifindex=index,
        name=name,
        hardware=hardware,
        mac=attributes.get(1, b""),  # IFLA_ADDRESS
        is_up=flags & 0x1 != 0,
        is_loopback=flags & 0x8 != 0,
        kind=kind,
        master=_number(attributes.get(10, b"")),  # IFLA_MASTER
        parent=0 if 37 in attributes else _number(attributes.get(5, b"")),  # IFLA_LINK; _LINK_NETNSID: in another one
        remote=_remote(kind, parse_attributes(nested.get(2, b""))),  # IFLA_INFO_DATA
    )


def parse_address_message(body: bytes) -> Address | None:
    """The address that an RTM_NEWADDR message tells of."""
    if len(body) < _ADDRESS.size:
        return None
    family, length, _, _, index = _ADDRESS.unpack_from(body)
    attributes = parse_attributes(body, _ADDRESS.size)
    far = attributes.get(1, b"")  # IFA_ADDRESS: the peer's where there is one
    own = attributes.get(2, far)  # IFA_LOCAL
    width = _width(family)
    if width == 0 or len(own) != width or length > 8 * width:
        return None
    return Address(index, own, first_address(far if len(far) == width else own, length), length)


def parse_routes(body: bytes) -> list[Route]:
    """The routes that an RTM_NEWROUTE message tells of, one for each next hop; those to own addresses, of caches, and
    those that lead nowhere are left out."""
    if len(body) < _ROUTING.size:
        return []
    family, length, _, _, small_table, protocol, _, kind, flags = _ROUTING.unpack_from(body)
    width = _width(family)
    if width == 0 or kind != _UNICAST or flags & _CLONED or length > 8 * width:
        return []
    attributes = parse_attributes(body, _ROUTING.size)
    table = _number(attributes.get(15, b"")) or small_table  # RTA_TABLE
    target = attributes.get(1, bytes(width))  # RTA_DST
    if table == _LOCAL_TABLE or len(target) != width:
        return []
    metric = _number(attributes.get(6, b""))  # RTA_PRIORITY
    hops = list(_hops(attributes.get(9, b"")))  # RTA_MULTIPATH
    if not hops:
        hops = [(_number(attributes.get(4, b"")), attributes)]  # RTA_OIF
    is_told = protocol in _TOLD
    return [Route(target, length, _gateway(of_hop), index, metric, table, is_told) for index, of_hop in hops]


def parse_neighbour(body: bytes) -> Neighbour | None:
    """The neighbour that an RTM_NEWNEIGH message tells of; None also for one that did not answer."""
    if len(body) < _NEIGHBOUR.size:
        return None
    family, _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    attributes = parse_attributes(body, _NEIGHBOUR.size)
    address = attributes.get(1, b"")  # NDA_DST
    mac = attributes.get(2, b"")  # NDA_LLADDR
    if _width(family) == 0 or len(address) != _width(family) or not mac or state & UNOWNED_STATES:
        return None
    return Neighbour(index, address, mac, state & CONFIRMED_STATES != 0)


def read_links() -> list[Link]:
    """Every interface."""
    return [link for body in dump(_GET_LINK, _NEW_LINK, bytes(_LINK.size)) if (link := parse_link(body)) is not None]


def read_addresses() -> list[Address]:
    """Every own address, IPv4 and IPv6."""
    bodies = dump(_GET_ADDRESS, _NEW_ADDRESS, bytes(_ADDRESS.size))
    return [one for body in bodies if (one := parse_address_message(body)) is not None]


def read_routes() -> list[Route]:
    """Unicast routes of every table but that of own addresses: every default route, and the first MAX_ROUTES."""
    found: list[Route] = []
    for body in dump(_GET_ROUTE, _NEW_ROUTE, bytes(_ROUTING.size)):
        if len(found) < MAX_ROUTES or body[1:2] <= bytes((HALF_OF_ALL,)):
            found += parse_routes(body)
    return found


def read_neighbours() -> list[Neighbour]:
    """Who has which address on the own links, at most MAX_NEIGHBOURS."""
    found: list[Neighbour] = []
    for body in dump(_GET_NEIGHBOUR, NEW_NEIGHBOUR, bytes(_NEIGHBOUR.size)):
        one = parse_neighbour(body)
        if one is not None and len(found) < MAX_NEIGHBOURS:
            found.append(one)
    return found


class Listener:
    """Hears what the kernel tells some multicast groups. Raises OSError when it cannot listen."""

    def __init__(self, groups: int) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _ROUTE)
        try:
            self._sock.bind((0, groups))
        except OSError:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """Readable when something has come."""
        return self._sock.fileno()

    def take(self) -> tuple[list[Message], bool]:
        """What has come, without waiting; and whether something got lost. After very many at once it comes back with
        the rest still readable."""
        found: list[Message] = []
        for _ in range(_MAX_DRAINED):
            try:
                octets, sender = self._sock.recvfrom(_RECEIVE_BYTES)
            except OSError as error:
                return found, error.errno == errno.ENOBUFS
            if sender[0] == 0:  # from the kernel
                found += parse_messages(octets)
        return found, False

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()


class LinkWatch(Listener):
    """Hears of every change to interfaces, addresses and routes. Raises OSError when it cannot listen."""

    def __init__(self) -> None:
        super().__init__(_WATCHED_GROUPS)

    def drain(self) -> bool:
        """Whether what has come is a change, so that a new look is worth while. What got lost counts as one."""
        messages, is_lost = self.take()
        return is_lost or any(_is_change(message) for message in messages)


def _is_change(message: Message) -> bool:
    if message.kind not in _WATCHED:
        return False
    if message.kind in (_NEW_ROUTE, _DELETED_ROUTE) and len(message.body) >= _ROUTING.size:
        flags: int = _ROUTING.unpack_from(message.body)[8]
        return flags & _CLONED == 0
    return True


def dump(request: int, wanted: int, asked: bytes, protocol: int = _ROUTE) -> Iterable[bytes]:
    """The bodies of all messages of type `wanted` that answer a request for everything; `asked` stands behind its
    header. Raises OSError when the kernel does not answer."""
    for _ in range(_ATTEMPTS):
        bodies: list[bytes] = []
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.bind((0, 0))
            sock.send(_HEADER.pack(_HEADER.size + len(asked), request, _REQUEST_DUMP, 1, 0) + asked)
            if _collect(sock, wanted, bodies):
                return bodies
    return bodies  # it changes all the time: what was seen last


def _collect(sock: socket.socket, wanted: int, bodies: list[bytes]) -> bool:
    """Receive until the kernel is done; whether nothing changed meanwhile."""
    whole = True
    while True:
        octets, sender = sock.recvfrom(_RECEIVE_BYTES)
        if sender[0] != 0:
            continue
        for message in parse_messages(octets):
            whole = whole and not message.flags & _INTERRUPTED
            if message.kind == _DONE:
                return whole
            if message.kind == _ERROR:
                code: int = _SIGNED.unpack_from(message.body)[0] if len(message.body) >= 4 else -errno.EPROTO
                raise OSError(-code, "the kernel does not tell")
            if message.kind == wanted:
                bodies.append(message.body)


def _remote(kind: str, settings: dict[int, bytes]) -> bytes:
    """The other end that a tunnel of this kind has in its settings."""
    for number in _REMOTES.get(kind, ()):
        remote = settings.get(number, b"")
        if len(remote) in (4, 16):
            return remote
    return b""


def _hops(octets: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    at = 0
    while at + _HOP.size <= len(octets):
        size, _, _, index = _HOP.unpack_from(octets, at)
        if size < _HOP.size or at + size > len(octets):
            return
        yield index, parse_attributes(octets[at + _HOP.size : at + size])
        at += (size + 3) & ~3


def _gateway(attributes: dict[int, bytes]) -> bytes:
    """RTA_GATEWAY, or RTA_VIA: a family and an address, for IPv4 by way of an IPv6 neighbour."""
    gateway = attributes.get(5, b"") or attributes.get(18, b"")[2:]
    return gateway if len(gateway) in (4, 16) else b""


def _width(family: int) -> int:
    return 4 if family == socket.AF_INET else 16 if family == socket.AF_INET6 else 0


def _number(octets: bytes) -> int:
    if len(octets) != 4:
        return 0
    number: int = _NUMBER.unpack(octets)[0]
    return number


def _text(octets: bytes) -> str:
    return octets.split(b"\0", 1)[0].decode("ascii", "surrogateescape")
