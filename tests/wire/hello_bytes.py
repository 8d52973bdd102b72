"""ClientHellos made byte by byte: RFC 8446 section 4.1.2, each vector with its length in front."""

from __future__ import annotations

import itertools
import random


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, content)


def server_name(*hosts: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes((kind,)) + vector(2, host) for host in hosts)))


def alpn(*protocols: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, protocol) for protocol in protocols)))


def versions(*numbers: int) -> bytes:
    return extension(43, vector(1, b"".join(number.to_bytes(2, "big") for number in numbers)))


def ech(enc_bytes: int = 32, payload_bytes: int = 208, aead: int = 1) -> bytes:
    head = b"\x00" + b"\x00\x01" + aead.to_bytes(2, "big") + b"\x5a"
    return extension(0xFE0D, head + vector(2, bytes(enc_bytes)) + vector(2, bytes(payload_bytes)))


def hello_body(*extensions: bytes, session: bytes = b"\x07" * 32, legacy: int = 0x0303) -> bytes:
    fixed = legacy.to_bytes(2, "big") + b"\x11" * 32 + vector(1, session) + vector(2, b"\x13\x01\x13\x02") + b"\x01\x00"
    return fixed + vector(2, b"".join(extensions))


def message(body: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + vector(3, body)


def records(content: bytes, *cuts: int, version: int = 0x0301) -> bytes:
    edges = [0, *cuts, len(content)]
    pieces = [content[start:end] for start, end in itertools.pairwise(edges)]
    return b"".join(b"\x16" + version.to_bytes(2, "big") + vector(2, piece) for piece in pieces)


BROWSER = hello_body(
    extension(0x2A2A, b""),
    server_name(b"Www.Example"),
    extension(23, b""),
    alpn(b"h2", b"http/1.1"),
    ech(),
    versions(0x4A4A, 0x0304, 0x0303),
    extension(0x5A5A, b"\x00"),
)
random.seed(20)
# X25519MLKEM768 key share: 1216 bytes, so the whole takes two segments.
POST_QUANTUM = hello_body(
    extension(51, vector(2, b"\x11\xec" + vector(2, random.randbytes(1216)) + b"\x00\x1d" + vector(2, bytes(32)))),
    alpn(b"h2"),
    extension(13, vector(2, bytes(300))),
    versions(0x0304),
    server_name(b"pq.example"),
)
