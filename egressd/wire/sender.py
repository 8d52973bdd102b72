"""Who sent a frame on its last link: the hardware address, and whether a router lies between.

Asked seldom (a client is new, or was quiet for a while, or reached what is listed), never for each packet.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressd.wire.links import IPV4, IPV6
from egressd.wire.octets import read_u16

_TAGS: Final = frozenset((0x8100, 0x88A8, 0x9100))  # IEEE 802.1Q, 802.1ad, and what came before it
_MAX_TAGS: Final = 3
# Link types of capture files (the LINKTYPE registry of tcpdump.org): Ethernet, Linux cooked captures.
_ETHERNET: Final = 1
_SLL: Final = 113
_SLL2: Final = 276
# What systems start with (Linux, BSD, macOS 64; Windows 128; network gear 255; some small devices 32). Every router on
# the way takes one off (RFC 1812 section 5.3.1, RFC 8200 section 3), so nothing else comes from the sender itself.
_FIRST_TTLS: Final = frozenset((32, 64, 128, 255))


class Sender(NamedTuple):
    """`mac` are six bytes; `is_attached` when the packet has not passed a router since its IP sender."""

    mac: bytes
    is_attached: bool


def read_sender(link: int, buf: bytes, start: int, client: bytes) -> Sender | None:
    """Who sent the frame at `start` of link type `link`; None when it has no hardware address, or is not a plain IP
    packet from `client`: then it is not `client` who can be learned of. Never raises, whatever the bytes."""
    try:
        if link == _ETHERNET:
            mac = buf[start + 6 : start + 12]
            at = start + 12
            kind = read_u16(buf, at)
            tags = 0
            while kind in _TAGS and tags < _MAX_TAGS:
                at += 4
                tags += 1
                kind = read_u16(buf, at)
            at += 2
        elif link == _SLL:
            if read_u16(buf, start + 4) != 6:
                return None
            mac = buf[start + 6 : start + 12]
            kind = read_u16(buf, start + 14)
            at = start + 16
        elif link == _SLL2:
            if buf[start + 11] != 6:
                return None
            mac = buf[start + 12 : start + 18]
            kind = read_u16(buf, start)
            at = start + 20
        else:
            return None
        if kind == IPV4:
            source, ttl = buf[at + 12 : at + 16], buf[at + 8]
        elif kind == IPV6:
            source, ttl = buf[at + 8 : at + 24], buf[at + 7]
        else:
            return None
    except IndexError:
        return None
    if source != client or len(mac) != 6:
        return None
    return Sender(mac, ttl in _FIRST_TTLS)
