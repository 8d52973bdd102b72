"""Where a target stands in our nftables sets, and how an element looks on netlink (linux/netfilter/nf_tables.h).

An address stands in a hash set, a network as an interval in a small tree, a pair as two addresses side by side. The
element's comment is the decision's id: that is our mark. A target's value is in the one form that reads back the same,
or it is refused here: a rule that never compares equal to what the kernel holds would be written again for ever.
"""

from __future__ import annotations

import socket
import struct
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from egressd.enforce.adapter import CLIENT, SEGMENT, Existing
from egressd.enforce.netlink import (
    ATTRIBUTE,
    NESTED,
    TYPE_MASK,
    attribute,
    be32,
    be64,
    generic,
    nested,
    parse_attributes,
    parse_list,
    text,
)
from egressd.errors import EgressdError, Malformed
from egressd.intel.networks import first_address, parse_network, render_address, render_network
from egressd.model import Target

FAMILY_INET: Final = 1  # NFPROTO_INET
TABLE: Final = b"egressd"
ADDRESS: Final = "address"
NETWORK: Final = "network"
PAIR: Final = "pair"

NFTA_LIST_TABLE: Final = 1
NFTA_LIST_SET: Final = 2
NFTA_LIST_ELEMENTS: Final = 3
LIST_ELEM: Final = 1
KEY: Final = 1
FLAGS: Final = 3
TIMEOUT: Final = 4
EXPIRATION: Final = 5
USERDATA: Final = 6
EXPR: Final = 7
DATA_VALUE: Final = 1
EXPR_NAME: Final = 1
EXPR_DATA: Final = 2
COUNTER_BYTES: Final = 1
COUNTER_PACKETS: Final = 2
INTERVAL_END: Final = 1
_TIMEOUT_HEAD: Final = ATTRIBUTE.pack(12, TIMEOUT)
_PADDING: Final = (b"\0", bytes(4), bytes(3), bytes(2))  # the NUL, and up to a whole word; by length modulo 4
_COMMENT: Final = 0  # NFTNL_UDATA_SET_ELEM_COMMENT of libnftnl: type, length, text with its NUL

MAX_ID_CHARACTERS: Final = 64
_MAX_LAYOUTS: Final = 4  # of one length: ids of a few lengths that are padded to it


class SetPair(NamedTuple):
    """The sets of one kind of target, for IPv4 and IPv6, and whether they hold intervals."""

    ipv4: bytes
    ipv6: bytes
    interval: bool

    def of(self, addr: bytes) -> bytes:
        """The set for a packed address's family."""
        return self.ipv6 if len(addr) == 16 else self.ipv4


SETS: Final[dict[str, SetPair]] = {
    ADDRESS: SetPair(b"blocked4", b"blocked6", False),
    NETWORK: SetPair(b"blockednet4", b"blockednet6", True),
    PAIR: SetPair(b"pair4", b"pair6", False),
    CLIENT: SetPair(b"quarantine4", b"quarantine6", False),
    SEGMENT: SetPair(b"cutnet4", b"cutnet6", True),
}
CANARY_SETS: Final = (b"canary4", b"canary6")
KIND_OF_SET: Final = {
    name: (kind, wide, sets.interval) for kind, sets in SETS.items() for wide, name in enumerate(sets[:2])
}


class Refused(EgressdError):
    """A target that no set of ours can hold. The message says why."""


class Place(NamedTuple):
    """The set and the key of a target. `end` is the first key behind an interval: empty where the interval reaches
    the end of all addresses, None where the set holds no intervals."""

    set_name: bytes
    key: bytes
    end: bytes | None


class Element(NamedTuple):
    """One element as read back. `remaining_ms` 0 = no time-out."""

    key: bytes
    is_end: bool
    remaining_ms: int
    comment: str
    packets: int
    bytes: int


def pack(value: str) -> bytes:
    """The packed address that `value` spells in canonical form, b"" when it does not."""
    try:
        addr = socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)
    except (OSError, ValueError):
        return b""
    return addr if spell(addr) == value else b""


def spell(addr: bytes) -> str:
    """`render_address`, five times as fast for a hundred thousand of them."""
    if len(addr) == 4:
        return socket.inet_ntop(socket.AF_INET, addr)
    if addr.startswith(bytes(10)):  # the C library writes IPv4-mapped and -compatible ones in another way
        return render_address(addr)
    return socket.inet_ntop(socket.AF_INET6, addr)


def place_of(target: Target) -> Place:
    """Where a target stands. Raises Refused."""
    sets = SETS.get(target.kind)
    if sets is None:
        raise Refused(f"nftables holds no {target.kind} targets")
    if target.kind == PAIR:
        client, arrow, server = target.value.partition(">")
        one, other = pack(client), pack(server)
        if not (arrow and one and other):
            raise Refused("a pair is written client>address, each in canonical form")
        if len(one) != len(other):
            raise Refused("the two addresses of a pair are of one family")
        return Place(sets.of(one), one + other, None)
    if sets.interval:
        return _interval(target, sets)
    addr = pack(target.value)
    if not addr:
        raise Refused("not an address in canonical form")
    return Place(sets.of(addr), addr, None)


def _interval(target: Target, sets: SetPair) -> Place:
    network = parse_network(target.value)
    if network is None or render_network(first_address(*network), network[1]) != target.value:
        raise Refused("not a network in canonical form: first address/length")
    addr, length = network
    if not length:
        raise Refused("a network of every address is not blocked")
    bits = 8 * len(addr)
    behind = int.from_bytes(addr, "big") + (1 << (bits - length))
    return Place(sets.of(addr), addr, b"" if behind >> bits else behind.to_bytes(len(addr), "big"))


def network_of(target: Target) -> tuple[bytes, int]:
    """The network that a network or segment target names. Raises Refused for what names none."""
    network = parse_network(target.value)
    if network is None:
        raise Refused("not a network")
    return network


def target_of(set_name: bytes, key: bytes, end: bytes | None) -> Target:
    """The target that stands at a place. Raises Malformed for what no target of ours could have made."""
    kind, wide, interval = KIND_OF_SET[set_name]
    size = 16 if wide else 4
    if kind == PAIR:
        if len(key) != 2 * size:
            raise Malformed("set key of a wrong size")
        return Target(kind, f"{spell(key[:size])}>{spell(key[size:])}")
    if len(key) != size:
        raise Malformed("set key of a wrong size")
    if not interval:
        return Target(kind, spell(key))
    first = int.from_bytes(key, "big")
    behind = int.from_bytes(end, "big") if end else 1 << 8 * size
    span = behind - first
    if span <= 0 or span & (span - 1) or first & (span - 1):  # a range that is no network: somebody else's
        return Target(kind, f"{spell(key)}-{spell((behind - 1).to_bytes(size, 'big'))}")
    return Target(kind, render_network(key, 8 * size - span.bit_length() + 1))


def check_id(decision_id: str) -> None:
    """Raises Refused for what cannot be a decision's id."""
    if not (decision_id.isascii() and decision_id.isprintable() and 0 < len(decision_id) <= MAX_ID_CHARACTERS):
        raise Refused("a decision's id is 1 to 64 printable ASCII characters")


def comment(decision_id: str) -> bytes:
    """An element's user data that holds a decision's id. Raises Refused."""
    check_id(decision_id)
    length = len(decision_id) + 1
    written = decision_id.encode("ascii") + _PADDING[(length + 2) & 3]
    return ATTRIBUTE.pack(6 + length, USERDATA) + bytes((_COMMENT, length)) + written


def key_attribute(key: bytes) -> bytes:
    """The attribute of a key; keys are of whole words, so nothing is padded."""
    length = len(key)
    return ATTRIBUTE.pack(8 + length, KEY | NESTED) + ATTRIBUTE.pack(4 + length, DATA_VALUE) + key


def render_element(place: Place, timeout_ms: int, decision_id: str) -> bytes:
    """One element for NEWSETELEM; of an interval its start and its end."""
    limit = _TIMEOUT_HEAD + timeout_ms.to_bytes(8, "big") if timeout_ms else b""
    body = key_attribute(place.key) + limit + comment(decision_id)
    return ATTRIBUTE.pack(4 + len(body), LIST_ELEM | NESTED) + body + _end(place)


def render_key(place: Place) -> bytes:
    """One element for DELSETELEM or GETSETELEM."""
    return nested(LIST_ELEM, key_attribute(place.key)) + _end(place)


def _end(place: Place) -> bytes:
    if not place.end:
        return b""
    return nested(LIST_ELEM, key_attribute(place.end), attribute(FLAGS, INTERVAL_END.to_bytes(4, "big")))


def render_list(set_name: bytes, elements: bytes | None = None) -> bytes:
    """The body of a message about elements of one set; without elements it means all of them."""
    body = generic(FAMILY_INET) + text(NFTA_LIST_TABLE, TABLE) + text(NFTA_LIST_SET, set_name)
    return body if elements is None else body + nested(NFTA_LIST_ELEMENTS, elements)


class _Layout:
    """How elements of one length looked: where their variable parts are. The kernel writes an element's attributes in
    one order, so for most of a hundred thousand elements one unpacking does what a walk over ten attributes would."""

    def __init__(self, payload: bytes) -> None:
        """Learns from an element that was parsed; `fits` is false where it has not all the parts."""
        spans = [
            self._find(payload, KEY, DATA_VALUE),
            self._find(payload, EXPR, EXPR_DATA, COUNTER_BYTES),
            self._find(payload, EXPR, EXPR_DATA, COUNTER_PACKETS),
            self._find(payload, EXPIRATION),
            self._find(payload, USERDATA),
        ]
        self.fits = all(size for _, size in spans) and spans == sorted(spans)
        shape, at = ">", 0
        for start, size in spans if self.fits else ():
            shape += f"{start - at}s{size}s"
            at = start + size
        self._split = struct.Struct(f"{shape}{len(payload) - at}s")
        self._fixed = self._split.unpack(payload)[::2] if self.fits else ()

    def parts(self, payload: bytes) -> tuple[bytes, ...]:
        """Key, bytes, packets, expiration and user data; nothing when the element looks otherwise."""
        split = self._split.unpack(payload)
        return split[1::2] if split[::2] == self._fixed else ()

    @staticmethod
    def _find(payload: bytes, *path: int) -> tuple[int, int]:
        at, end = 0, len(payload)
        for kind in path:
            while at + 4 <= end:
                length, found = ATTRIBUTE.unpack_from(payload, at)
                if found & TYPE_MASK == kind:
                    at, end = at + 4, at + length
                    break
                at += (length + 3) & ~3
            else:
                return 0, 0
        return at, end - at


class ElementReader:
    """Reads the elements of many messages, quickly where they look alike."""

    def __init__(self) -> None:
        self._layouts: dict[int, list[_Layout]] = {}

    def read(self, body: bytes) -> list[Element]:
        """The elements of one NEWSETELEM message."""
        listed = parse_attributes(body, 4).get(NFTA_LIST_ELEMENTS, b"")
        return [self._element(payload) for payload in parse_list(listed, LIST_ELEM)]

    def _element(self, payload: bytes) -> Element:
        layouts = self._layouts.setdefault(len(payload), [])
        for layout in layouts:
            parts = layout.parts(payload)
            if parts:
                key, octets, packets, remaining, userdata = parts
                return Element(
                    key,
                    False,
                    int.from_bytes(remaining, "big") or 1,
                    _parse_comment(userdata),
                    int.from_bytes(packets, "big"),
                    int.from_bytes(octets, "big"),
                )
        element = _parse_element(payload)
        if len(layouts) < _MAX_LAYOUTS and not element.is_end:
            layout = _Layout(payload)
            if layout.fits and FLAGS not in parse_attributes(payload):
                layouts.append(layout)
        return element


def parse_elements(body: bytes) -> list[Element]:
    """The elements of one NEWSETELEM message (behind struct nlmsghdr)."""
    listed = parse_attributes(body, 4).get(NFTA_LIST_ELEMENTS, b"")
    return [_parse_element(payload) for payload in parse_list(listed, LIST_ELEM)]


def _parse_element(payload: bytes) -> Element:
    fields = parse_attributes(payload)
    key = parse_attributes(fields.get(KEY, b"")).get(DATA_VALUE, b"")
    remaining_ms = be64(fields[EXPIRATION]) if EXPIRATION in fields else 0
    if TIMEOUT in fields and not remaining_ms:
        remaining_ms = 1  # about to lapse; 0 would say that it never does
    packets, octets = _parse_counter(fields[EXPR]) if EXPR in fields else (0, 0)
    is_end = bool(be32(fields[FLAGS]) & INTERVAL_END) if FLAGS in fields else False
    return Element(key, is_end, remaining_ms, _parse_comment(fields.get(USERDATA, b"")), packets, octets)


def _parse_counter(payload: bytes) -> tuple[int, int]:
    expression = parse_attributes(payload)
    if expression.get(EXPR_NAME) != b"counter\0":
        return 0, 0
    counter = parse_attributes(expression.get(EXPR_DATA, b""))
    return be64(counter.get(COUNTER_PACKETS, bytes(8))), be64(counter.get(COUNTER_BYTES, bytes(8)))


def _parse_comment(userdata: bytes) -> str:
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == _COMMENT:
            written = userdata[at + 2 : at + 2 + length].rstrip(b"\0")
            if len(written) <= MAX_ID_CHARACTERS and written.isascii() and written.decode("ascii").isprintable():
                return written.decode("ascii")
            return ""
        at += 2 + length
    return ""


def existing_of(set_name: bytes, elements: Iterable[Element]) -> list[Existing]:
    """What the elements of one set hold, intervals put together from start and end. Ends that belong to nothing are
    left out."""
    if not KIND_OF_SET[set_name][2]:
        return [_existing(set_name, element, None) for element in elements if not element.is_end]
    read = list(elements)
    ends = sorted(element.key for element in read if element.is_end)
    found: list[Existing] = []
    for element in sorted((element for element in read if not element.is_end), key=lambda element: element.key):
        behind = bisect_right(ends, element.key)
        found.append(_existing(set_name, element, ends[behind] if behind < len(ends) else b""))
    return found


def _existing(set_name: bytes, element: Element, end: bytes | None) -> Existing:
    target = target_of(set_name, element.key, end)
    return Existing(target, element.comment, element.remaining_ms / 1000, element.packets, element.bytes)
