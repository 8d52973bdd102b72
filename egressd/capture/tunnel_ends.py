"""The far ends of this machine's own tunnels: were one of them blocked, all that lies behind it would be out of reach.

The kernel tells of interfaces with a remote address, of IPsec policies (xfrm(7)), and WireGuard's peers. A VPN of user
space that takes everything lays two halves over the default route, and a host route to its server beside them. Whoever
dials in to this machine is none: behind him lies one address, and he moves.

What the kernel lacks, or does not tell us (CAP_NET_ADMIN), counts as none.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final

from egressd.capture.rtnetlink import HALF_OF_ALL, Link, Route, dump, parse_attributes, walk_attributes
from egressd.wire.direction import is_group

MAX_ENDS: Final = 1_024
_XFRM: Final = 6  # NETLINK_XFRM
_GENERIC: Final = 16  # NETLINK_GENERIC

# linux/xfrm.h: xfrm_userpolicy_info begins with a selector of 56 bytes (daddr; family at 40, prefixlen_d at 42), has
# its direction at 160, and is 168 bytes long; xfrm_user_tmpl is 64 bytes long (daddr; family at 24).
_NEW_POLICY, _GET_POLICY = 19, 21
_POLICY_ID_BYTES: Final = 64
_POLICY_BYTES: Final = 168
_FAMILY_AT, _PREFIX_AT, _DIRECTION_AT = 40, 42, 160
_OUT: Final = 1
_TEMPLATES: Final = 5  # XFRMA_TMPL
_TEMPLATE_BYTES: Final = 64
_TEMPLATE_FAMILY_AT: Final = 24

# linux/genetlink.h, linux/wireguard.h.
_HEADER: Final = Struct("=BBH")
_GET_FAMILY, _GENERIC_CONTROL = 3, 16
_FAMILY_ID, _FAMILY_NAME = 1, 2
_GET_DEVICE, _BY_INDEX, _PEERS = 0, 1, 8
_ENDPOINT, _ALLOWED = 4, 9
_MASK: Final = 3
_INDEX: Final = Struct("=HHI")
_WIDTHS: Final[dict[int, int]] = {socket.AF_INET: 4, socket.AF_INET6: 16}


def read_tunnel_ends(links: Sequence[Link], routes: Sequence[Route]) -> list[bytes]:
    """Packed addresses, each once, in order of their bytes; MAX_ENDS at most."""
    found = {link.remote for link in links} | vpn_servers(routes) | relays(routes)
    with suppress(OSError):
        if is_spoken(_XFRM):
            for body in dump(_GET_POLICY, _NEW_POLICY, bytes(_POLICY_ID_BYTES), _XFRM):
                found.update(parse_policy(body))
    with suppress(OSError):
        for body in _wireguard(link.ifindex for link in links if link.kind == "wireguard"):
            found.update(parse_wireguard(body))
    return sorted(one for one in found if any(one) and not is_group(one))[:MAX_ENDS]


def is_spoken(protocol: int, sockets: str = "/proc/net/netlink") -> bool:
    """Whether the kernel has a socket of a netlink protocol. To open one of another makes it look for a module, each
    time, and load it."""
    with Path(sockets).open("rb") as file:
        return any(line.split()[1:2] == [b"%d" % protocol] for line in file)


def vpn_servers(routes: Sequence[Route]) -> set[bytes]:
    """Where host routes through a gateway lead, if halves of a default route say that there is a VPN."""
    if not any(route.length == HALF_OF_ALL for route in routes):
        return set()
    return {route.target for route in routes if route.gateway and route.length == 8 * len(route.target)}


def relays(routes: Sequence[Route]) -> set[bytes]:
    """Relays of 6rd (RFC 5969): next hops that are written as IPv4 addresses behind zeros. Such a tunnel has many ends,
    and its interface names none."""
    return {route.gateway[12:] for route in routes if len(route.gateway) == 16 and not any(route.gateway[:12])}


def parse_policy(body: bytes) -> list[bytes]:
    """The tunnels' ends that an XFRM_MSG_NEWPOLICY message tells of."""
    if len(body) < _POLICY_BYTES or body[_DIRECTION_AT] != _OUT:
        return []
    width = _WIDTHS.get(_native_u16(body, _FAMILY_AT), 0)
    target = body[:width]
    is_one = body[_PREFIX_AT] >= 8 * width
    templates = parse_attributes(body, _POLICY_BYTES).get(_TEMPLATES, b"")
    found = []
    for at in range(0, len(templates) - _TEMPLATE_BYTES + 1, _TEMPLATE_BYTES):
        end = templates[at : at + _WIDTHS.get(_native_u16(templates, at + _TEMPLATE_FAMILY_AT), 0)]
        if not any(end):
            end = target if is_one else b""  # transport mode: the packet's own destination
        if end and (not is_one or end == target):
            found.append(end)
    return found


def parse_wireguard(body: bytes) -> list[bytes]:
    """The endpoints in an answer of WG_CMD_GET_DEVICE that have a network behind them."""
    found = []
    for _, peer in walk_attributes(parse_attributes(body, _HEADER.size).get(_PEERS, b"")):
        fields = parse_attributes(peer)
        endpoint = fields.get(_ENDPOINT, b"")
        family = _native_u16(endpoint, 0) if len(endpoint) >= 2 else 0
        end = endpoint[8:24] if family == socket.AF_INET6 else endpoint[4:8]
        allowed = walk_attributes(fields.get(_ALLOWED, b""))
        if len(end) == _WIDTHS.get(family, 0) and any(_is_network(one) for _, one in allowed):
            found.append(end)
    return found


def _is_network(allowed: bytes) -> bool:
    fields = parse_attributes(allowed)
    mask = fields.get(_MASK, b"")
    return len(mask) == 1 and mask[0] < 8 * len(fields.get(2, b""))  # WGALLOWEDIP_A_IPADDR


def _wireguard(interfaces: Iterable[int]) -> Iterator[bytes]:
    """What WireGuard tells of each of its interfaces."""
    family = 0
    for index in interfaces:
        family = family or _family_of(b"wireguard\0")
        if family:
            asked = _HEADER.pack(_GET_DEVICE, 1, 0) + _INDEX.pack(_INDEX.size, _BY_INDEX, index)
            yield from dump(family, family, asked, _GENERIC)


def _family_of(name: bytes) -> int:
    """The number of a family of generic netlink, 0 when there is none of that name."""
    for body in dump(_GENERIC_CONTROL, _GENERIC_CONTROL, _HEADER.pack(_GET_FAMILY, 1, 0), _GENERIC):
        fields = parse_attributes(body, _HEADER.size)
        if fields.get(_FAMILY_NAME) == name and len(fields.get(_FAMILY_ID, b"")) == 2:
            return _native_u16(fields[_FAMILY_ID], 0)
    return 0


def _native_u16(octets: bytes, at: int) -> int:
    return int.from_bytes(octets[at : at + 2], sys.byteorder)
