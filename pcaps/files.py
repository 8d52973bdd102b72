"""Capture files: classic pcap and pcapng, written so that the same packets always give the same bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

from pcaps.packets import Packet


def pcap(packets: Sequence[Packet], link: int, snaplen: int = 262_144) -> bytes:
    """Classic pcap with microseconds, little-endian."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, link)]
    for packet in packets:
        seconds, micros = divmod(packet.ts_us, 1_000_000)
        parts.append(struct.pack("<IIII", seconds, micros, len(packet.octets), packet.wire_bytes) + packet.octets)
    return b"".join(parts)


def pcapng(packets: Sequence[Packet], resolutions: Sequence[int] = ()) -> bytes:
    """pcapng with an interface for each link type in order of appearance; `resolutions` are their negative powers of
    ten of a second (draft-ietf-opsawg-pcapng section 4.2, if_tsresol), 6 where none is given."""
    links = list(dict.fromkeys(packet.link for packet in packets))
    powers = [*resolutions, *[6] * len(links)]
    parts = [_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    for link, power in zip(links, powers, strict=False):
        options = struct.pack("<HHB3xHH", 9, 1, power, 0, 0) if power != 6 else b""
        parts.append(_block(1, struct.pack("<HHI", link, 0, 262_144) + options))
    for packet in packets:
        interface = links.index(packet.link)
        time = packet.ts_us * 10 ** (powers[interface] - 6)
        head = struct.pack("<IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(packet.octets), packet.wire_bytes)
        parts.append(_block(6, head + packet.octets))
    return b"".join(parts)


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def gzip_members(parts: Iterable[bytes]) -> bytes:
    """gzip (RFC 1952), a member for each part, without name or time."""
    members = []
    for part in parts:
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = squeeze.compress(part) + squeeze.flush()
        head = bytes.fromhex("1f8b0800 00000000 02 ff")
        members.append(head + body + struct.pack("<II", zlib.crc32(part), len(part)))
    return b"".join(members)
