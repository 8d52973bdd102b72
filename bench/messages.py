"""What the benchmark's traffic says: ClientHellos, questions and answers, requests; the same for the same draws."""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from pcaps.hellos import extension, server_name

AGENTS: Final = (
    b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    b"curl/8.14.1",
)


def server_address(draw: Random, wide: bool) -> bytes:
    """One of the servers there are: 762, each with an IPv4 and an IPv6 address."""
    host = int(draw.random() * 762)
    if wide:
        return b"\x20\x01\x0d\xb8" + struct.pack("!QI", 0xF, host + 1)
    return (b"\xc0\x00\x02", b"\xc6\x33\x64", b"\xcb\x00\x71")[host // 254] + bytes((host % 254 + 1,))


def client_hello(draw: Random, name: bytes, post_quantum: bool) -> bytes:
    """A ClientHello as browsers send it: extensions in random order, 512 bytes with a classic key share (517 with the
    record header), 1.8 KB with a post-quantum one."""
    share = struct.pack(">HH", 0x001D, 32) + draw.randbytes(32)
    if post_quantum:
        share = struct.pack(">HH", 0x11EC, 1216) + draw.randbytes(1216) + share
    parts = [
        server_name(name),
        extension(23, b""),
        extension(65281, b"\0"),
        extension(10, bytes.fromhex("000811ec001d00170018")),
        extension(11, b"\x01\0"),
        extension(35, b""),
        extension(16, b"\x00\x0c\x02h2\x08http/1.1"),
        extension(5, b"\x01\0\0\0\0"),
        extension(13, bytes.fromhex("001004030804040105030805050108060601")),
        extension(18, b""),
        extension(51, struct.pack(">H", len(share)) + share),
        extension(45, b"\x01\x01"),
        extension(43, b"\x06\xca\xca\x03\x04\x03\x03"),
        extension(27, b"\x02\0\x02"),
        extension(0xCACA, b""),
    ]
    if post_quantum:
        grease = b"\0\0\x01\0\x01\x2a\0\x20" + draw.randbytes(32) + b"\0\xb0" + draw.randbytes(176)
        parts.append(extension(0xFE0D, grease))
    draw.shuffle(parts)
    extensions = b"".join(parts)
    body = b"\x03\x03" + draw.randbytes(32) + b"\x20" + draw.randbytes(32)
    body += b"\0\x20" + bytes.fromhex("caca130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035") + b"\x01\0"
    short = 508 - len(body) - 2 - len(extensions)
    if short >= 4 and not post_quantum:
        extensions += extension(21, bytes(short - 4))  # padding to 512 bytes: RFC 7685
    body += struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def dns_messages(draw: Random, name: bytes) -> tuple[bytes, bytes]:
    """A question as stub resolvers send it, and its answer: addresses, in two of five behind a CNAME."""
    question = b"".join(bytes((len(label),)) + label for label in name.split(b".")) + b"\0"
    wide = draw.random() < 0.4
    question += b"\0\x1c\0\1" if wide else b"\0\1\0\1"
    txid = struct.pack(">H", draw.getrandbits(16))
    records: list[bytes] = []
    owner = b"\xc0\x0c"
    if draw.random() < 0.4:
        target = b"\x04edge" + bytes((7,)) + b"site%03d" % draw.randrange(999) + b"\x07example\0"
        records.append(owner + struct.pack(">HHIH", 5, 1, 300, len(target)) + target)
        owner = struct.pack(">H", 0xC000 | (12 + len(question) + 12))
    for _ in range(1 + draw.randrange(4)):
        address = server_address(draw, wide)
        records.append(owner + struct.pack(">HHIH", 28 if wide else 1, 1, 60, len(address)) + address)
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    asked = txid + b"\x01\0\0\1\0\0\0\0\0\1" + question + opt
    answered = txid + b"\x81\x80\0\1" + struct.pack(">H", len(records)) + b"\0\0\0\1" + question
    return asked, answered + b"".join(records) + opt


def http_request(draw: Random, name: bytes) -> bytes:
    """A GET with the headers of a browser."""
    return (
        b"GET /%08x/index.html?v=%d HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive\r\nUser-Agent: %s\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
        b"Accept-Encoding: gzip, deflate\r\nAccept-Language: en-GB,en;q=0.9\r\nCookie: id=%032x\r\n\r\n"
    ) % (draw.getrandbits(32), draw.randrange(100), name, draw.choice(AGENTS), draw.getrandbits(128))
