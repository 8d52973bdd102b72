"""TLS ClientHellos (RFC 8446 section 4.1.2), in TLS records and in QUIC Initial packets (RFC 9000, 9001, 9369).

Numbers that a client draws at random come from a generator seeded by the server name, so a hello is always the same.
"""

from __future__ import annotations

import hmac
import itertools
import struct
from random import Random
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

POST_QUANTUM_SHARE_BYTES: Final = 1216  # X25519MLKEM768: what makes the hellos of today two segments long
QUIC_V1: Final = 0x00000001
QUIC_V2: Final = 0x6B3343CF
QUIC_DRAFT_29: Final = 0xFF00001D
_SALTS: Final = {
    QUIC_V1: "38762cf7f55934b34d179ae6a4c80cadccbb7f0a",
    QUIC_V2: "0dede3def700a6db819381be6e269dcbf9bd2ed9",
    QUIC_DRAFT_29: "afbfec289993d24c9e9786f19c6111e04390a899",
}
AES_128_GCM: Final = 0x0001
AES_256_GCM: Final = 0x0002  # what no browser puts into GREASE


def extension(kind: int, body: bytes) -> bytes:
    """One extension of a hello."""
    return struct.pack(">HH", kind, len(body)) + body


def server_name(name: bytes) -> bytes:
    """The server_name extension (RFC 6066 section 3)."""
    entry = b"\0" + struct.pack(">H", len(name)) + name
    return extension(0, struct.pack(">H", len(entry)) + entry)


def ech(aead: int = AES_128_GCM, payload_bytes: int = 208, seed: str = "ech") -> bytes:
    """An encrypted_client_hello extension of the outer form (RFC 9849 section 5)."""
    draw = Random(seed)
    body = struct.pack(">BHHBH", 0, 1, aead, draw.randrange(256), 32) + draw.randbytes(32)
    return extension(0xFE0D, body + struct.pack(">H", payload_bytes) + draw.randbytes(payload_bytes))


def client_hello(
    name: bytes, *, alpn: tuple[bytes, ...] = (b"h2", b"http/1.1"), post_quantum: bool = False, more: bytes = b""
) -> bytes:
    """A ClientHello as a handshake message. No server_name extension when `name` is empty."""
    draw = Random(b"hello " + name)
    extensions = server_name(name) if name else b""
    extensions += extension(43, b"\x04\x03\x04\x03\x03")  # supported_versions: 1.3, 1.2
    protocols = b"".join(bytes((len(protocol),)) + protocol for protocol in alpn)
    if protocols:
        extensions += extension(16, struct.pack(">H", len(protocols)) + protocols)
    extensions += extension(10, b"\x00\x04\x00\x1d\x11\xec")  # supported_groups: x25519, X25519MLKEM768
    share = b""
    if post_quantum:
        share += struct.pack(">HH", 0x11EC, POST_QUANTUM_SHARE_BYTES) + draw.randbytes(POST_QUANTUM_SHARE_BYTES)
    share += struct.pack(">HH", 0x001D, 32) + draw.randbytes(32)
    extensions += extension(51, struct.pack(">H", len(share)) + share)
    extensions += extension(13, b"\x00\x04\x04\x03\x08\x04")  # signature_algorithms
    extensions += more
    if post_quantum:
        extensions += extension(21, bytes(300))  # padding: a session ticket's length, 1.8 KB in all
    body = b"\x03\x03" + draw.randbytes(32) + b"\x20" + draw.randbytes(32)
    body += b"\x00\x06\x13\x01\x13\x02\x13\x03" + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(handshake: bytes, *cuts: int) -> bytes:
    """A handshake message in TLS records, cut at the offsets given."""
    edges = (0, *cuts, len(handshake))
    parts = [handshake[start:end] for start, end in itertools.pairwise(edges)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in parts)


def hello(name: str, **options: object) -> bytes:
    """A ClientHello in one record."""
    return records(client_hello(name.encode("latin-1"), **options))  # type: ignore[arg-type]


# What a server answers: ServerHello, then records that nobody can read.
SERVER_HELLO: Final = (
    bytes.fromhex("16030300 5a 02000056 0303")
    + Random("server hello").randbytes(32)
    + bytes.fromhex("20" + "5e" * 32 + "1301 00 000e 002b0002 0304 00330004 001d 0000")
)
APPLICATION: Final = b"\x17\x03\x03\x00\x40" + Random("application").randbytes(64)


# -- QUIC


def crypto(offset: int, piece: bytes) -> bytes:
    """A CRYPTO frame (RFC 9000 section 19.6)."""
    return b"\x06" + _varint(offset) + _varint(len(piece)) + piece


def initial(
    version: int, dcid: bytes, number: int, frames: bytes, *, pad_to: int = 1200, keys_of: bytes = b""
) -> bytes:
    """A client's Initial packet (RFC 9000 section 17.2.2) under the keys that `dcid` gives, or `keys_of`, padded."""
    kind = 0b01 if version == QUIC_V2 else 0b00  # RFC 9369 section 3.2
    prefix = b"quicv2 " if version == QUIC_V2 else b"quic "
    scid = dcid[::-1][:5]
    head = bytes((0xC0 | kind << 4 | 1,)) + version.to_bytes(4, "big")
    head += bytes((len(dcid),)) + dcid + bytes((len(scid),)) + scid + b"\0"  # no token
    frames = frames.ljust(pad_to - len(head) - 2 - 2 - 16, b"\0")
    head += struct.pack(">H", 0x4000 | (2 + len(frames) + 16)) + struct.pack(">H", number)
    secret = hmac.digest(bytes.fromhex(_SALTS[version]), keys_of or dcid, "sha256")
    client = _expand(secret, b"client in", 32)
    key, iv, mask_key = (
        _expand(client, prefix + label, size) for label, size in ((b"key", 16), (b"iv", 12), (b"hp", 16))
    )
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    sealed = AESGCM(key).encrypt(nonce, frames, head)
    mask = Cipher(algorithms.AES(mask_key), modes.ECB()).encryptor().update(sealed[2:18])  # RFC 9001 section 5.4.2
    first = head[0] ^ (mask[0] & 0x0F)
    hidden = bytes(byte ^ mask[1 + at] for at, byte in enumerate(head[-2:]))
    return bytes((first,)) + head[1:-2] + hidden + sealed


def handshake(version: int, dcid: bytes) -> bytes:
    """A server's Handshake packet (RFC 9000 section 17.2.4), with a payload that nobody on the path can read."""
    kind = 0b11 if version == QUIC_V2 else 0b10
    head = bytes((0xC0 | kind << 4,)) + version.to_bytes(4, "big")
    head += bytes((len(dcid),)) + dcid + b"\x08" + Random("server id").randbytes(8)
    return head + struct.pack(">H", 0x4000 | 600) + Random("handshake").randbytes(600)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1) of at most one block."""
    text = size.to_bytes(2, "big") + bytes((6 + len(label),)) + b"tls13 " + label + b"\x00\x01"
    return hmac.digest(secret, text, "sha256")[:size]


def _varint(number: int) -> bytes:
    """RFC 9000 section 16."""
    if number < 0x40:
        return bytes((number,))
    return struct.pack(">H", 0x4000 | number) if number < 0x4000 else struct.pack(">I", 0x80000000 | number)
