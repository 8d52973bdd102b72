"""Addresses and networks: text to packed bytes and back, IPv4 hidden inside IPv6, and look-up by longest prefix.

A packed address is 4 or 16 bytes in network order. A network is (packed first address, prefix length).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Generic, NamedTuple, TypeVar

Value = TypeVar("Value")

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}")
_MAX_IPV6_TEXT: Final = 45  # eight groups with the last two written as IPv4 (RFC 4291 section 2.2)

NAT64_WELL_KNOWN: Final = (bytes.fromhex("0064ff9b") + bytes(12), 96)  # RFC 6052 section 2.1
NAT64_LENGTHS: Final = (32, 40, 48, 56, 64, 96)  # RFC 6052 section 2.2
_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2
_COMPATIBLE: Final = bytes(12)  # RFC 4291 section 2.5.5.1; :: and ::1 are not of this form
_SIX_TO_FOUR: Final = b"\x20\x02"  # RFC 3056 section 2
_WHOLE_IPV4: Final = ((_SIX_TO_FOUR + bytes(14), 16), (_MAPPED + bytes(4), 96))  # as networks
_TEREDO: Final = b"\x20\x01\x00\x00"  # RFC 4380 section 2.6


def parse_address(text: str) -> bytes:
    """Packed form of an address as text, b"" when it is none. No zone, no brackets, no octal or short IPv4 forms."""
    if _IPV4.fullmatch(text) is not None:
        return bytes(map(int, text.split(".")))
    if ":" not in text or "%" in text or len(text) > _MAX_IPV6_TEXT or not text.isascii():
        return b""
    try:
        return IPv6Address(text).packed
    except AddressValueError:
        return b""


def render_address(addr: bytes) -> str:
    """Text of a packed address (RFC 5952 for IPv6, its last groups never written as IPv4)."""
    if len(addr) == 4:
        return f"{addr[0]}.{addr[1]}.{addr[2]}.{addr[3]}"
    groups = [group.lstrip("0") or "0" for group in addr.hex(":", 2).split(":")]
    begin, count = _zeros(groups)
    if count < 2:  # RFC 5952 section 4.2.2: a single group is not shortened
        return ":".join(groups)
    return f"{':'.join(groups[:begin])}::{':'.join(groups[begin + count :])}"


def _zeros(groups: list[str]) -> tuple[int, int]:
    """Where the longest run of zero groups begins, the first of equals (RFC 5952 section 4.2.3), and how long it is."""
    begin, most, count = 0, 0, 0
    for at, group in enumerate(groups):
        count = count + 1 if group == "0" else 0
        if count > most:
            begin, most = at + 1 - count, count
    return begin, most


def parse_network(text: str) -> tuple[bytes, int] | None:
    """`address/length`, or an address alone as its own network. None when it is neither; host bits may be set."""
    base, slash, length = text.partition("/")
    addr = parse_address(base)
    if not addr:
        return None
    if not slash:
        return addr, 8 * len(addr)
    if not (length.isascii() and length.isdigit()) or len(length) > 3 or int(length) > 8 * len(addr):
        return None
    return addr, int(length)


def on_the_wire(address: bytes) -> bytes:
    """The address that packets carry: hosts send to an IPv4-mapped one by IPv4 (RFC 4038 section 4.2), whatever a
    sensor or a socket wrote down."""
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address


def as_sent(addr: bytes, length: int) -> tuple[bytes, int]:
    """The network as packets carry it."""
    sent = on_the_wire(addr) if length >= 96 else addr
    return sent, length - 8 * (len(addr) - len(sent))


def first_address(addr: bytes, length: int) -> bytes:
    """The address with its host bits cleared."""
    bits = 8 * len(addr)
    return (int.from_bytes(addr, "big") >> (bits - length) << (bits - length)).to_bytes(len(addr), "big")


def last_address(addr: bytes, length: int) -> bytes:
    """The last address of the network that `addr` with prefix length `length` is in."""
    rest = 8 * len(addr) - length
    return (int.from_bytes(addr, "big") | (1 << rest) - 1).to_bytes(len(addr), "big")


def render_network(addr: bytes, length: int) -> str:
    """Text of a network; one that holds a single address renders as the address."""
    return render_address(addr) if length == 8 * len(addr) else f"{render_address(addr)}/{length}"


def embedded_ipv4(addr: bytes, nat64: tuple[tuple[bytes, int], ...] = (NAT64_WELL_KNOWN,)) -> list[bytes]:
    """The IPv4 addresses that traffic to an IPv6 address really goes to, or through, in transition forms.

    IPv4-mapped and -compatible, NAT64 under each prefix given (RFC 6052 section 2.2), 6to4, Teredo (client and server).
    """
    if len(addr) != 16:
        return []
    head = addr[:12]
    if head == _MAPPED or (head == _COMPATIBLE and addr[12:15] != b"\x00\x00\x00"):
        return [addr[12:]]
    if addr.startswith(_SIX_TO_FOUR):
        return [addr[2:6]]
    if addr.startswith(_TEREDO):
        return [bytes(byte ^ 0xFF for byte in addr[12:]), addr[4:8]]
    for prefix, length in nat64:
        octets = length // 8
        if addr[:octets] == prefix[:octets]:
            return [behind_prefix(addr, octets)]
    return []


def ways_to(addr: bytes, length: int, nat64: tuple[tuple[bytes, int], ...]) -> list[tuple[bytes, bytes]]:
    """First and last addresses of the ranges by which packets reach a network: its own and, of IPv4, one for each form
    that `embedded_ipv4` reads. What a Teredo client hides in the last octets is no range: there it is all of Teredo."""
    low, high = first_address(addr, length), last_address(addr, length)
    ways = [(low, high)]
    if len(addr) != 4:
        return ways
    heads = [(head, len(head)) for head in (_MAPPED, _COMPATIBLE, _SIX_TO_FOUR)]
    for prefix, octets in (*heads, *((prefix, size // 8) for prefix, size in nat64)):
        ways.append((_translated(prefix, octets, low, b"\x00"), _translated(prefix, octets, high, b"\xff")))
    ways.append((_TEREDO + bytes(12), _TEREDO + b"\xff" * 12))
    return ways


def _translated(prefix: bytes, octets: int, ipv4: bytes, rest: bytes) -> bytes:
    """`ipv4` behind so many octets of a prefix, the inverse of `behind_prefix`, filled up with `rest`."""
    if 4 < octets <= 8:
        ipv4 = ipv4[: 8 - octets] + b"\x00" + ipv4[8 - octets :]
    return (prefix[:octets] + ipv4).ljust(16, rest)


def behind_prefix(addr: bytes, octets: int) -> bytes:
    """The IPv4 address in one of NAT64, whose prefix takes so many octets (RFC 6052 section 2.2)."""
    after = addr[octets:] if octets > 8 else addr[octets:8] + addr[9:]  # bits 64 to 71 are kept zero
    return after[:4]


class Carried(NamedTuple):
    """An IPv4 network (first address, prefix length) that an IPv6 one carries under a prefix of translation."""

    first: bytes
    length: int
    prefix: bytes
    prefix_length: int


def carried_ipv4(addr: bytes, length: int, nat64: tuple[tuple[bytes, int], ...] = (NAT64_WELL_KNOWN,)) -> list[Carried]:
    """What packets to a network of IPv6 reach by IPv4: of one in 6to4, IPv4-mapped or NAT64 under a prefix given the
    network inside, all of IPv4 where it holds such a prefix whole. Nothing for an IPv4 network."""
    found: list[Carried] = []
    for prefix, prefix_length in (*_WHOLE_IPV4, *nat64) if len(addr) == 16 else ():
        shared = min(length, prefix_length)
        if first_address(addr, shared) != first_address(prefix, shared):
            continue
        inside = max(0, length - prefix_length)
        if 16 < prefix_length <= 64 < length:
            inside -= min(8, length - 64)  # bits 64 to 71 are no part of the address (RFC 6052 section 2.2)
        inside = min(inside, 32)
        found.append(
            Carried(first_address(behind_prefix(addr, prefix_length // 8), inside), inside, prefix, prefix_length)
        )
    return found


class NetworkTable(Generic[Value]):
    """Values by network, immutable. A look-up costs one hash per prefix length in use, longest first."""

    __slots__ = ("_ipv4", "_ipv6", "size")

    def __init__(self, entries: Iterable[tuple[bytes, int, Value]]) -> None:
        """Of several entries for one network the first is kept."""
        tables: tuple[dict[int, dict[int, Value]], dict[int, dict[int, Value]]] = ({}, {})
        self.size = 0
        for addr, length, value in entries:
            table = tables[len(addr) == 16].setdefault(8 * len(addr) - length, {})
            key = int.from_bytes(addr, "big") >> (8 * len(addr) - length)
            if key not in table:
                table[key] = value
                self.size += 1
        self._ipv4 = sorted(tables[0].items())
        self._ipv6 = sorted(tables[1].items())

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        entries = [
            ((key << shift).to_bytes(octets, "big"), 8 * octets - shift, value)
            for octets, tables in ((4, self._ipv4), (16, self._ipv6))
            for shift, table in tables
            for key, value in table.items()
        ]
        return NetworkTable, (entries,)

    def covering(self, addr: bytes) -> list[Value]:
        """The values of every network that holds the address, most specific first."""
        found: list[Value] = []
        number = int.from_bytes(addr, "big")
        for shift, table in self._ipv4 if len(addr) == 4 else self._ipv6:
            value = table.get(number >> shift)
            if value is not None:
                found.append(value)
        return found

    def longest(self, addr: bytes) -> Value | None:
        """The value of the most specific network that holds the address."""
        tables = self._ipv4 if len(addr) == 4 else self._ipv6
        if not tables:  # as nearly all are whose networks an operator names
            return None
        number = int.from_bytes(addr, "big")
        for shift, table in tables:
            value = table.get(number >> shift)
            if value is not None:
                return value
        return None

    def overlapping(self, addr: bytes, length: int) -> Value | None:
        """The value of a network that shares an address with this one. Walks every network longer than this one."""
        number = int.from_bytes(addr, "big")
        mine = 8 * len(addr) - length
        for shift, table in self._ipv4 if len(addr) == 4 else self._ipv6:
            if shift >= mine:
                value = table.get(number >> shift)
                if value is not None:
                    return value
                continue
            wanted = number >> mine
            for key, inside in table.items():
                if key >> (mine - shift) == wanted:
                    return inside
        return None
