"""Headers that carry one packet inside another: GRE and the tunnels that travel in UDP.

Each function looks at `buf[offset:end]` and tells what lies inside: (kind, offset) as `links.find_ip` takes them, or a
kind of 0 when this is not that tunnel. They are strict: a UDP port alone proves nothing, and ordinary traffic on such
a port must stay ordinary. The caller tries the inner packet and falls back to the outer datagram if it does not parse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.wire.links import BRIDGED, ERSPAN_2, ERSPAN_3, ETHERNET, IPV4, IPV6, PPP, RAW_IP, WIFI

MAX_EXTENSIONS: Final = 8  # GTP-U extension headers: real packets carry one or two
MAX_L2TP_PADDING: Final = 64  # the offset field aligns the payload; more would let it point anywhere

_Place = tuple[int, int]
_NONE: Final = (0, 0)
_WCCP: Final = 0x883E


def gre_inner(buf: bytes, offset: int, end: int) -> _Place:
    """GRE version 0 (RFC 2784, RFC 2890) and version 1 with PPP inside (PPTP, RFC 2637 section 4.1)."""
    if offset + 4 > end:
        return _NONE
    flags = buf[offset] << 8 | buf[offset + 1]
    kind = buf[offset + 2] << 8 | buf[offset + 3]
    version = flags & 7
    inner = offset + 4
    if version == 1:
        if kind != PPP or not flags & 0x2000:
            return _NONE
        if not flags & 0x1000:  # an acknowledgement without payload
            return _NONE
        return PPP, inner + 8 + (4 if flags & 0x0080 else 0)
    if version or flags & 0x4000:  # source routing is deprecated and seen only in attacks (RFC 2784 section 2.3)
        return _NONE
    if flags & 0x8000:
        inner += 4
    if flags & 0x2000:
        inner += 4
    if flags & 0x1000:
        inner += 4
    if kind == ERSPAN_2:
        # Type I has neither sequence number nor header; type II has both (draft-foschiano-erspan).
        return ETHERNET, inner + (8 if flags & 0x1000 else 0)
    if kind == ERSPAN_3:
        if inner + 12 > end:
            return _NONE
        return ETHERNET, inner + (20 if buf[inner + 11] & 1 else 12)
    if kind == _WCCP:  # version 2 puts a redirect header of four bytes before the IPv4 packet
        return IPV4, inner if inner < end and buf[inner] >> 4 == 4 else inner + 4
    return kind, inner


def _vxlan(buf: bytes, offset: int, end: int) -> _Place:
    """RFC 7348 section 5: the I flag must be set; the group policy extension may use flag 0x80 and its own bits."""
    if offset + 8 + 14 > end or buf[offset] & 0x7F != 0x08 or buf[offset + 7] != 0:
        return _NONE
    return ETHERNET, offset + 8


def _vxlan_gpe(buf: bytes, offset: int, end: int) -> _Place:
    """The generic protocol extension (draft-ietf-nvo3-vxlan-gpe section 3.1): byte 3 tells what follows."""
    if offset + 8 > end or buf[offset] & 0xF8 != 0x08 or buf[offset + 7] != 0:
        return _NONE
    return {1: IPV4, 2: IPV6, 3: ETHERNET}.get(buf[offset + 3], 0), offset + 8


def _geneve(buf: bytes, offset: int, end: int) -> _Place:
    """RFC 8926 section 3.4: version 0, option length in words, protocol type."""
    if offset + 8 > end or buf[offset] >> 6 or buf[offset + 1] & 0x3F or buf[offset + 7] != 0:
        return _NONE
    kind = buf[offset + 2] << 8 | buf[offset + 3]
    if kind not in (BRIDGED, IPV4, IPV6):
        return _NONE
    return kind, offset + 8 + ((buf[offset] & 0x3F) << 2)


def _gtp_user(buf: bytes, offset: int, end: int) -> _Place:
    """GTP-U version 1, T-PDU only (3GPP TS 29.281 section 5.1), with its chain of extension headers (5.2)."""
    if offset + 8 > end or buf[offset] & 0xF0 != 0x30 or buf[offset + 1] != 255:
        return _NONE
    if buf[offset] & 7 == 0:
        return RAW_IP, offset + 8
    inner = offset + 12
    if inner > end:
        return _NONE
    following = buf[offset + 11] if buf[offset] & 4 else 0
    for _ in range(MAX_EXTENSIONS):
        if not following:
            return RAW_IP, inner
        if inner >= end or buf[inner] == 0:
            return _NONE
        inner += buf[inner] << 2
        if inner > end:
            return _NONE
        following = buf[inner - 1]
    return _NONE


def _teredo(buf: bytes, offset: int, end: int) -> _Place:
    """RFC 4380 section 5.1.1: authentication and origin indications may stand before the IPv6 packet."""
    if offset + 4 <= end and buf[offset] == 0 and buf[offset + 1] == 1:
        offset += 13 + buf[offset + 2] + buf[offset + 3]
    if offset + 2 <= end and buf[offset] == 0 and buf[offset + 1] == 0:
        offset += 8
    if offset + 40 > end or buf[offset] >> 4 != 6:
        return _NONE
    # One end of every Teredo packet but the bubbles has an address in 2001::/32, and the packet fills the datagram.
    if buf[offset + 8 : offset + 12] != b"\x20\x01\0\0" and buf[offset + 24 : offset + 28] != b"\x20\x01\0\0":
        return _NONE
    if (buf[offset + 4] << 8 | buf[offset + 5]) + 40 > end - offset:
        return _NONE
    return IPV6, offset


def _l2tp(buf: bytes, offset: int, end: int) -> _Place:
    """L2TP version 2 data message (RFC 2661 section 3.1): optional length, sequence numbers and offset padding."""
    if offset + 6 > end or buf[offset] & 0x80 or buf[offset] & 0x34 or buf[offset + 1] != 2:
        return _NONE
    flags = buf[offset]
    inner = offset + 2
    if flags & 0x40:
        if not 8 <= (buf[inner] << 8 | buf[inner + 1]) <= end - offset:
            return _NONE
        inner += 2
    inner += 4  # tunnel and session
    if flags & 0x08:
        inner += 4
    if flags & 0x02:
        if inner + 2 > end:
            return _NONE
        padding = buf[inner] << 8 | buf[inner + 1]
        if padding > MAX_L2TP_PADDING:
            return _NONE
        inner += 2 + padding
    return PPP, inner


def _capwap(buf: bytes, offset: int, end: int) -> _Place:
    """CAPWAP data channel in the clear (RFC 5415 section 4.3): HLEN words, T tells 802.11 from 802.3."""
    if offset + 8 > end or buf[offset] != 0 or buf[offset + 3] & 0x88:  # DTLS; fragment or keep-alive
        return _NONE
    size = (buf[offset + 1] >> 3) << 2
    if size < 8:
        return _NONE
    binding = (buf[offset + 2] >> 1) & 0x1F
    if not buf[offset + 2] & 1:
        return ETHERNET, offset + size
    return (WIFI, offset + size) if binding == 1 else _NONE


# Some of these leave the source port free, but devices answer from the fixed port all the same, so either port counts.
_READERS: Final[dict[int, Callable[[bytes, int, int], _Place]]] = {
    1701: _l2tp,
    2152: _gtp_user,
    3544: _teredo,
    4789: _vxlan,
    4790: _vxlan_gpe,
    5247: _capwap,
    6081: _geneve,
    8472: _vxlan,  # Linux's default before the port was assigned
}
PORTS: Final = frozenset(_READERS)


def udp_inner(source_port: int, destination_port: int, buf: bytes, offset: int, end: int) -> _Place:
    """What a UDP payload carries, judged by either port; kind 0 when it is no tunnel."""
    for port in (destination_port, source_port):
        reader = _READERS.get(port)
        if reader is not None:
            place = reader(buf, offset, end)
            if place[0]:
                return place
    return _NONE
