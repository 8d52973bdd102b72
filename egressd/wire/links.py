"""What lies between the start of a captured packet and its IP header: link layers, VLAN tags, LLC, PPP, MPLS.

Everything here is one question, "where is the IP header?", answered by `find_ip` in a bounded number of steps. A *kind*
says how the bytes at an offset are to be read: an Ethernet type, or `LINK + n` for the link type n of a capture file
(the LINKTYPE registry of tcpdump.org). The tunnels of `tunnels.py` hand over to the same steps.

Reads never pass `end`: the buffer may hold other packets behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
BRIDGED: Final = 0x6558  # transparent Ethernet bridging (RFC 1701)
PPP: Final = 0x880B
MPLS: Final = 0x8847
ERSPAN_2: Final = 0x88BE
ERSPAN_3: Final = 0x22EB
LLC: Final = 4  # ETH_P_802_2 in Linux; as an Ethernet type every value below 0x0600 is a length, with LLC behind it
LINK: Final = 0x10000
RAW_IP: Final = LINK + 101
WIFI: Final = LINK + 105
ETHERNET: Final = LINK + 1
_WIFI_PADDED: Final = 0x20000  # 802.11 whose header is padded to four bytes (radiotap flag 0x20)

# Why there is no segment. Negative, so that they share the return value with offsets and IP protocol numbers.
NOT_IP: Final = -1
MALFORMED: Final = -2
TOO_DEEP: Final = -3

MAX_TAGS: Final = 4  # VLAN tags: two are QinQ, more than four are an attack or a loop
MAX_LAYERS: Final = 16  # steps from link to IP: pseudowires can nest Ethernet in MPLS in Ethernet without end
MAX_LABELS: Final = 16  # MPLS labels (RFC 3032): real stacks hold up to about six
MAX_ATTRIBUTES: Final = 32  # NFLOG attributes: the kernel writes fewer than twenty
MAX_PRESENT_WORDS: Final = 16  # radiotap presence words: one for each antenna, a few

_VLAN_TYPES: Final = frozenset((0x8100, 0x88A8, 0x9100, 0x9200))
_IP_KINDS: Final = frozenset((IPV4, IPV6, RAW_IP))
# PPP protocol field (RFC 1661 section 2) to kind. Van Jacobson compressed headers (0x2d, 0x2f) carry no whole header.
_PPP_TYPES: Final = {0x21: IPV4, 0x57: IPV6, 0x281: MPLS, 0x283: MPLS, 0x31: ETHERNET}
# AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 23 Windows, 24 NetBSD/OpenBSD, 28 FreeBSD, 30 macOS.
_FAMILIES: Final = {2: IPV4, 10: IPV6, 23: IPV6, 24: IPV6, 28: IPV6, 30: IPV6}

_Place = tuple[int, int]  # kind, offset; a kind of 0 or less is NOT_IP (0) or a reason
_NOWHERE: Final = (NOT_IP, 0)
_BROKEN: Final = (MALFORMED, 0)


def find_ip(kind: int, buf: bytes, start: int, end: int) -> _Place:
    """Offset of the IP header in `buf[start:end]`, or a negative reason; and the outermost VLAN id, or -1."""
    offset = start
    vlan = -1
    tags = 0
    for _ in range(MAX_LAYERS):
        if kind in _IP_KINDS:
            return offset, vlan
        if kind <= 0:
            return kind or NOT_IP, vlan
        if kind in _VLAN_TYPES:
            if offset + 4 > end:
                return MALFORMED, vlan
            if vlan < 0:
                vlan = (buf[offset] << 8 | buf[offset + 1]) & 0xFFF
            tags += 1
            if tags > MAX_TAGS:
                return TOO_DEEP, vlan
            kind = buf[offset + 2] << 8 | buf[offset + 3]
            offset += 4
            continue
        if kind < 0x600:
            kind = LLC
        step = _STEPS.get(kind)
        if step is None:
            return NOT_IP, vlan
        need, parse = step
        if offset + need > end:
            return MALFORMED, vlan
        kind, offset = parse(buf, offset, end)
    return TOO_DEEP, vlan


def _ethernet(buf: bytes, offset: int, end: int) -> _Place:
    return buf[offset + 12] << 8 | buf[offset + 13], offset + 14


def _llc(buf: bytes, offset: int, end: int) -> _Place:
    """LLC (IEEE 802.2), with SNAP (RFC 1042) or, as IPX and STP neighbours show, without."""
    sap = buf[offset]
    if sap != buf[offset + 1] or buf[offset + 2] != 3:
        return _NOWHERE
    if sap == 0x06:  # "DoD IP"
        return IPV4, offset + 3
    if sap != 0xAA or offset + 8 > end:
        return _NOWHERE
    organisation = buf[offset + 3 : offset + 6]
    if organisation != b"\0\0\0" and organisation != b"\0\0\xf8":  # the second: bridge tunnel, IEEE 802.1H
        return _NOWHERE
    return buf[offset + 6] << 8 | buf[offset + 7], offset + 8


def _ppp(buf: bytes, offset: int, end: int) -> _Place:
    """PPP with or without address and control field, protocol field of one or two bytes (RFC 1661 sections 2, 6.5)."""
    if buf[offset] == 0xFF and buf[offset + 1] == 3:
        offset += 2
        if offset >= end:
            return _BROKEN
    protocol = buf[offset]
    if protocol & 1:
        return _PPP_TYPES.get(protocol, 0), offset + 1
    if offset + 2 > end:
        return _BROKEN
    return _PPP_TYPES.get(protocol << 8 | buf[offset + 1], 0), offset + 2


def _ppp_serial(buf: bytes, offset: int, end: int) -> _Place:
    """PPP in HDLC-like framing (RFC 1662), or Cisco HDLC, which captures of this link type mix."""
    if buf[offset] in (0x0F, 0x8F) and buf[offset + 1] == 0 and offset + 4 <= end:
        return _cisco_hdlc(buf, offset, end)
    return _ppp(buf, offset, end)


def _ppp_direction(buf: bytes, offset: int, end: int) -> _Place:
    """PPP behind a byte that tells the direction; pppd (link type 166) puts it in the place of the address field."""
    offset += 2 if buf[offset + 1] == 3 else 1
    return _ppp(buf, offset, end) if offset + 2 <= end else _BROKEN


def _cisco_hdlc(buf: bytes, offset: int, end: int) -> _Place:
    return buf[offset + 2] << 8 | buf[offset + 3], offset + 4


def _pppoe(buf: bytes, offset: int, end: int) -> _Place:
    """PPPoE session stage (RFC 2516 section 4): version 1, type 1, code 0."""
    if buf[offset] != 0x11 or buf[offset + 1] != 0:
        return _NOWHERE
    return PPP, offset + 6


def _mpls(buf: bytes, offset: int, end: int) -> _Place:
    """Skip the label stack (RFC 3032 section 2.1). What follows has no type field, so its first bytes must tell."""
    for _ in range(MAX_LABELS):
        if offset + 4 > end:
            return _BROKEN
        bottom = buf[offset + 2] & 1
        offset += 4
        if bottom:
            return _behind_labels(buf, offset, end), offset + (4 if _control_word(buf, offset, end) else 0)
    return TOO_DEEP, 0


def _control_word(buf: bytes, offset: int, end: int) -> bool:
    """A pseudowire control word (RFC 4448 section 4.6): zero, as no IP header begins; fragments not read."""
    return offset + 18 <= end and buf[offset] == 0 and buf[offset + 1] == 0 and _known(buf, offset + 4 + 12)


def _behind_labels(buf: bytes, offset: int, end: int) -> int:
    if offset >= end:
        return MALFORMED
    nibble = buf[offset] >> 4
    # A MAC address may begin with 4 or 6 as well (RFC 4928 section 3): then an Ethernet type stands 12 bytes on.
    if nibble == 4 and (buf[offset] & 15) >= 5 and offset + 20 <= end:
        total = buf[offset + 2] << 8 | buf[offset + 3]
        if total <= end - offset or not _known(buf, offset + 12):
            return IPV4
    elif nibble == 6 and offset + 40 <= end:
        if (buf[offset + 4] << 8 | buf[offset + 5]) + 40 <= end - offset or not _known(buf, offset + 12):
            return IPV6
    if offset + 14 <= end and (_known(buf, offset + 12) or _control_word(buf, offset, end)):
        return ETHERNET
    return NOT_IP


def _known(buf: bytes, offset: int) -> bool:
    kind = buf[offset] << 8 | buf[offset + 1]
    return kind in (IPV4, IPV6) or kind in _VLAN_TYPES


def _null(buf: bytes, offset: int, end: int) -> _Place:
    """BSD loopback: the address family in four bytes, in the byte order of who captured, or the network's."""
    family = buf[offset] | buf[offset + 1] << 8 | buf[offset + 2] << 16 | buf[offset + 3] << 24
    if family > 0xFFFF:
        family = buf[offset] << 24 | buf[offset + 1] << 16 | buf[offset + 2] << 8 | buf[offset + 3]
        if family > 0xFFFF:  # Cisco HDLC under this link type, as some old tools wrote it
            family &= 0xFFFF
            return family if family in (IPV4, IPV6) else NOT_IP, offset + 4
    return _FAMILIES.get(family, 0), offset + 4


def _cooked(buf: bytes, offset: int, end: int) -> _Place:
    """Linux cooked capture: packet type, ARPHRD, address length, address (8), protocol."""
    return _cooked_kind(buf[offset + 2] << 8 | buf[offset + 3], buf[offset + 14] << 8 | buf[offset + 15]), offset + 16


def _cooked_2(buf: bytes, offset: int, end: int) -> _Place:
    """Linux cooked capture, version 2: protocol, reserved, interface, ARPHRD, then as above."""
    return _cooked_kind(buf[offset + 8] << 8 | buf[offset + 9], buf[offset] << 8 | buf[offset + 1]), offset + 20


def _cooked_kind(hardware: int, protocol: int) -> int:
    if hardware == 824:  # netlink: the protocol field is a netlink family
        return NOT_IP
    if protocol == 1:  # Novell 802.3, which is IPX
        return NOT_IP
    return protocol if protocol >= 0x600 or protocol == LLC else NOT_IP


def _wifi(buf: bytes, offset: int, end: int) -> _Place:
    return _wifi_body(buf, offset, end, buf[offset], buf[offset + 1], False)


def _wifi_padded(buf: bytes, offset: int, end: int) -> _Place:
    return _wifi_body(buf, offset, end, buf[offset], buf[offset + 1], True)


def _wifi_body(buf: bytes, offset: int, end: int, control: int, flags: int, padded: bool) -> _Place:
    """An IEEE 802.11 frame (IEEE 802.11-2020 section 9.2.4). Only data frames in the clear lead on."""
    # Version bits must be 0. CAPWAP controllers of one maker send these bytes swapped (the sequence control too), and
    # there the bits in the version's place are to/from distribution system, of which one is always set.
    swapped = control & 0x03 != 0 and flags & 0x0F == 0x08
    if swapped:
        control, flags = flags, control
    if control & 0x0F != 0x08 or control & 0x40 or flags & 0x40:  # not data, null data, encrypted
        return _NOWHERE
    if buf[offset + (23 if swapped else 22)] & 0x0F:  # not the first fragment
        return _NOWHERE
    size = 30 if flags & 0x03 == 0x03 else 24  # both to and from the distribution system: a fourth address
    aggregated = False
    if control & 0x80:
        if offset + size + 2 > end:
            return _BROKEN
        aggregated = buf[offset + size] & 0x80 != 0
        size += 6 if flags & 0x80 else 2  # QoS control, and HT control when "+HTC" is set
    if padded:
        size = (size + 3) & ~3
    if not aggregated:
        return LLC, offset + size
    # A-MSDU: destination, source, length, then LLC. The first of the aggregated packets is read.
    return LLC, offset + size + 14


def _radiotap(buf: bytes, offset: int, end: int) -> _Place:
    """Radiotap: version, pad, length (little-endian), presence words; only the "data pad" flag matters here."""
    size = buf[offset + 2] | buf[offset + 3] << 8
    if buf[offset] != 0 or size < 8 or offset + size > end:
        return _BROKEN
    field = offset + 4
    first = buf[field]
    for _ in range(MAX_PRESENT_WORDS):
        if field + 4 > offset + size:
            return _BROKEN
        field += 4
        if not buf[field - 1] & 0x80:
            break
    if first & 1:  # TSFT: eight bytes, aligned to eight from the header's start
        field = offset + ((field - offset + 7) & ~7) + 8
    padded = first & 2 != 0 and field < offset + size and buf[field] & 0x20 != 0
    return (_WIFI_PADDED if padded else WIFI), offset + size


def _prism(buf: bytes, offset: int, end: int) -> _Place:
    """Prism or AVS header before 802.11; some drivers leave it out, then this is 802.11 at once."""
    if buf[offset] == 0x80 and buf[offset + 1] == 0x21:  # AVS: version, length, big-endian
        size = buf[offset + 4] << 24 | buf[offset + 5] << 16 | buf[offset + 6] << 8 | buf[offset + 7]
    else:
        size = buf[offset + 4] | buf[offset + 5] << 8 | buf[offset + 6] << 16 | buf[offset + 7] << 24
        if size > 0xFFFF:
            size = buf[offset + 4] << 24 | buf[offset + 5] << 16 | buf[offset + 6] << 8 | buf[offset + 7]
    return (WIFI, offset + size) if 8 <= size <= end - offset else (WIFI, offset)


def _per_packet(buf: bytes, offset: int, end: int) -> _Place:
    """Per-Packet Information: version, flags, length, link type of what follows (little-endian)."""
    size = buf[offset + 2] | buf[offset + 3] << 8
    if size < 8:
        return _BROKEN
    kind = buf[offset + 4] | buf[offset + 5] << 8
    if kind == 105 and buf[offset + 1] & 1:
        return _BROKEN  # aligned headers were never written by anyone we know
    return LINK + kind, offset + size


def _nflog(buf: bytes, offset: int, end: int) -> _Place:
    """Netfilter log: family, version, resource, then attributes (length, type, value; host order, padded to four)."""
    at = offset + 4
    for _ in range(MAX_ATTRIBUTES):
        if at + 4 > end:
            return _BROKEN
        if buf[at + 3] == 0 and buf[at + 2] != 0:  # types are below 256: the zero byte shows the byte order
            size, kind = buf[at] | buf[at + 1] << 8, buf[at + 2]
        else:
            size, kind = buf[at] << 8 | buf[at + 1], buf[at + 3]
        if size < 4:
            return _BROKEN
        if kind == 9:  # NFULA_PAYLOAD
            return RAW_IP, at + 4
        at += (size + 3) & ~3
    return _BROKEN


def _pf_log(buf: bytes, offset: int, end: int) -> _Place:
    """OpenBSD pf log: header length without padding, address family."""
    return _FAMILIES.get(buf[offset + 1], 0), offset + ((buf[offset] + 3) & ~3)


def _enc(buf: bytes, offset: int, end: int) -> _Place:
    """OpenBSD enc(4): address family, SPI, flags; the packet is already decrypted."""
    kind, _ = _null(buf, offset, end)
    return kind, offset + 12


# kind: (bytes that must be there, what reads them)
_STEPS: Final[dict[int, tuple[int, Callable[[bytes, int, int], _Place]]]] = {
    LLC: (3, _llc),
    BRIDGED: (14, _ethernet),
    PPP: (2, _ppp),
    MPLS: (4, _mpls),
    0x8848: (4, _mpls),
    0x8864: (6, _pppoe),
    ETHERNET: (14, _ethernet),
    WIFI: (24, _wifi),
    _WIFI_PADDED: (24, _wifi_padded),
    LINK + 0: (4, _null),
    LINK + 9: (2, _ppp_serial),
    LINK + 50: (2, _ppp_serial),
    LINK + 51: (6, _pppoe),
    LINK + 104: (4, _cisco_hdlc),
    LINK + 108: (4, _null),
    LINK + 109: (12, _enc),
    LINK + 113: (16, _cooked),
    LINK + 117: (4, _pf_log),
    LINK + 119: (8, _prism),
    LINK + 127: (8, _radiotap),
    LINK + 163: (8, _prism),
    LINK + 166: (2, _ppp_direction),
    LINK + 192: (8, _per_packet),
    LINK + 204: (2, _ppp_direction),
    LINK + 239: (4, _nflog),
    LINK + 276: (20, _cooked_2),
}
# Raw IP goes by several numbers: 12 and 14 are DLT_RAW of two BSD families, 228 and 229 promise one version.
RAW_LINKS: Final = frozenset((12, 14, 101, 228, 229))


def is_read(link: int) -> bool:
    """Whether a way leads from this link type of a capture file to an IP header."""
    return link in RAW_LINKS or LINK + link in _STEPS
