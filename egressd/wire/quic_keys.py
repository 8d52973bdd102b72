"""How QUIC protects Initial packets: salts and labels of its versions, the client's keys, and taking protection off.

RFC 9001 section 5, RFC 9369 for version 2, the drafts and Google's versions by the salts they had.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

CRYPTO: Final = 0x06  # the frame type of CRYPTO (RFC 9000 section 19.6)
CRYPTO_GOOGLE: Final = 0x08
TAG_BYTES: Final = 16  # of AES-GCM


def _hkdf_label(label: bytes, length: int) -> bytes:
    """What HKDF-Expand-Label feeds HMAC for one block of output (RFC 8446 section 7.1, RFC 5869 section 2.3)."""
    return length.to_bytes(2, "big") + bytes((6 + len(label),)) + b"tls13 " + label + b"\x00\x01"


_CLIENT_IN: Final = _hkdf_label(b"client in", 32)
_BLOCK_BYTES: Final = 64  # of SHA-256
_TRUST: Final = 2  # connections running that may begin otherwise before what is tried changes
_OCTETS: Final = bytes(range(256))
_INNER: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER: Final = bytes(octet ^ 0x5C for octet in range(256))


class Hmac:
    """HMAC-SHA256 (RFC 2104) with a key for one to three messages as short as ours: its blocks are hashed anew
    for each, which takes less than to copy the states of two hashes. `hmac.digest` would look its hash up each time."""

    __slots__ = ("inner", "outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK_BYTES, b"\0")  # no key of ours is longer than a block
        self.inner: bytes = block.translate(_INNER)
        self.outer: bytes = block.translate(_OUTER)

    def digest(self, message: bytes) -> bytes:
        """The code of a message, 32 bytes."""
        return sha256(self.outer + sha256(self.inner + message).digest()).digest()


class PreparedHmac:
    """The same with a key for any number of messages: what depends on it alone is done once (RFC 2104 section 4)."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        plain = Hmac(key)
        self._inner = sha256(plain.inner)
        self._outer = sha256(plain.outer)

    def digest(self, message: bytes) -> bytes:
        """See Hmac.digest."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class Scheme:
    """How a version of QUIC protects its Initial packets and numbers their header and frame types."""

    __slots__ = ("crypto_frame", "hp_label", "initial", "iv_label", "key_label", "retry", "salt", "version")

    def __init__(self, version: int, salt: str, is_v2: bool = False, crypto_frame: int = CRYPTO) -> None:
        prefix = b"quicv2 " if is_v2 else b"quic "
        self.version: int = version
        self.salt: PreparedHmac = PreparedHmac(bytes.fromhex(salt))
        self.crypto_frame: int = crypto_frame
        self.initial: int = 0x10 if is_v2 else 0x00  # RFC 9369 section 3.2
        self.retry: int = 0x00 if is_v2 else 0x30
        self.key_label: bytes = _hkdf_label(prefix + b"key", 16)
        self.iv_label: bytes = _hkdf_label(prefix + b"iv", 12)
        self.hp_label: bytes = _hkdf_label(prefix + b"hp", 16)


def _make_schemes() -> dict[bytes, Scheme]:
    v1 = "38762cf7f55934b34d179ae6a4c80cadccbb7f0a"  # RFC 9001 section 5.2
    v2 = "0dede3def700a6db819381be6e269dcbf9bd2ed9"  # RFC 9369 section 3.3.1
    draft_22 = "7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a"  # draft-ietf-quic-tls of these numbers, section 5.2
    draft_23 = "c3eef712c72ebb5a11a7d2432bb46365bef9f502"
    draft_29 = "afbfec289993d24c9e9786f19c6111e04390a899"
    salts: dict[int, str] = {0x00000001: v1}
    for draft in range(22, 35):
        salts[0xFF000000 | draft] = (
            draft_22 if draft < 23 else draft_23 if draft < 29 else draft_29 if draft < 33 else v1
        )
    salts[0xFACEB001] = draft_22  # Facebook's mvfst on that draft
    salts[0xFACEB002] = draft_23
    schemes = {number.to_bytes(4, "big"): Scheme(number, salt) for number, salt in salts.items()}
    t050 = "7ff579e5acd072915580304c43a2367c60488310"  # Google's QUIC on the way to the standard: own salts, and
    t051 = "7a4edef4e7ccee5fa4506c19124fc8ccda6e033d"  # CRYPTO frames under their number of before
    schemes[b"T050"] = Scheme(0x54303530, t050, crypto_frame=CRYPTO_GOOGLE)
    schemes[b"T051"] = Scheme(0x54303531, t051, crypto_frame=CRYPTO_GOOGLE)
    schemes[b"\x6b\x33\x43\xcf"] = Scheme(0x6B3343CF, v2, is_v2=True)
    return schemes


SCHEMES: Final = _make_schemes()


class _Ciphers:
    """AES of the `cryptography` package, whose import takes 30 ms and 6 MB that a run without QUIC need not spend."""

    __slots__ = ("aes", "aes_gcm", "cipher", "ecb", "refusals")

    def __init__(self) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.aes: type[AES] = algorithms.AES
        self.aes_gcm: type[AESGCM] = AESGCM
        self.cipher: type[Cipher[ECB]] = Cipher
        self.ecb: ECB = modes.ECB()
        self.refusals: tuple[type[Exception], ...] = (InvalidTag, ValueError)


_CIPHERS: Final[list[_Ciphers]] = []  # one, from the first Initial on


def _ciphers() -> _Ciphers:
    if not _CIPHERS:
        _CIPHERS.append(_Ciphers())
    return _CIPHERS[0]


class Numbering:
    """How clients number the first Initial of a connection, learned from those seen: what to try with the next.

    The number stands under a mask whose key and cipher cost as much as the other keys. But clients of one make begin
    alike, nearly all with 0 or 1 in one byte, and count on from there. Trying proves itself: the AEAD authenticates
    length and number too (RFC 9001 section 5.3), so that wrong ones open nothing. Only a packet whose protected bits
    were damaged on the way, or forged, may open here and at no server.
    """

    __slots__ = ("_number_bytes", "_trust", "number")

    def __init__(self) -> None:
        self.number: int = 1
        self._number_bytes: int = 1
        self._trust: int = _TRUST

    def number_bytes(self) -> int:
        """Of what to try; 0 when clients differ so much that it is not worth it: a wrong one costs half a right one."""
        return self._number_bytes if self._trust else 0

    def began(self, number: int, number_bytes: int) -> None:
        """A connection began so."""
        if number == self.number and number_bytes == self._number_bytes:
            self._trust = _TRUST
            return
        self._trust = max(0, self._trust - 1)
        if not self._trust:
            self.number = number
            self._number_bytes = number_bytes


class InitialKeys:
    """The client's Initial keys that follow from one destination connection id (RFC 9001 section 5.2)."""

    __slots__ = ("_aead", "_client", "_hp_label", "_iv", "_mask", "_next", "_number_bytes", "_numbering", "_refusals")

    def __init__(self, scheme: Scheme, dcid: bytes, numbering: Numbering) -> None:
        """`numbering` tells what to try with the first packet, and learns from it."""
        ciphers = _ciphers()
        client = Hmac(Hmac(scheme.salt.digest(dcid)).digest(_CLIENT_IN))
        self._iv: int = int.from_bytes(client.digest(scheme.iv_label)[:12], "big")
        self._aead: AESGCM = ciphers.aes_gcm(client.digest(scheme.key_label)[:16])
        self._client: Hmac = client
        self._hp_label: bytes = scheme.hp_label
        self._mask: CipherContext | None = None  # one block at a time
        self._refusals: tuple[type[Exception], ...] = ciphers.refusals
        self._numbering: Numbering = numbering
        self._number_bytes: int = 0  # of the last packet, 0 before the first
        self._next: int = 0

    def open(self, buf: bytes, start: int, pn_at: int, end: int) -> bytes | None:
        """Take off header and packet protection (RFC 9001 sections 5.3, 5.4); None when the keys do not fit."""
        number = self._next if self._number_bytes else self._numbering.number
        number_bytes = self._number_bytes or self._numbering.number_bytes()
        payload = self._open_as(number, number_bytes, buf, start, pn_at, end) if number_bytes else None
        if payload is None:
            tried = (number, number_bytes)
            mask = self._mask_of(buf[pn_at + 4 : pn_at + 20])
            first = buf[start] ^ (mask[0] & 0x0F)
            if first & 0x0C:  # reserved bits must be 0 (RFC 9000 section 17.2): turns most packets of other keys away
                return None
            number = 0
            number_bytes = 1 + (first & 0x03)
            for at in range(number_bytes):
                number = number << 8 | (buf[pn_at + at] ^ mask[1 + at])
            if (number, number_bytes) == tried:
                return None
            payload = self._open_as(number, number_bytes, buf, start, pn_at, end)
            if payload is None:
                return None
        if not self._number_bytes:
            self._numbering.began(number, number_bytes)
        self._number_bytes = number_bytes
        self._next = (number + 1) & ((1 << 8 * number_bytes) - 1)
        return payload

    def _open_as(self, number: int, number_bytes: int, buf: bytes, start: int, pn_at: int, end: int) -> bytes | None:
        """The payload, if the packet was sealed under this number. The truncated number is taken as the whole one: a
        client counts from a low one (section 12.3) and has sent few."""
        body_at = pn_at + number_bytes
        if end - body_at < TAG_BYTES:
            return None
        first = buf[start] & 0xF0 | number_bytes - 1
        header = _OCTETS[first : first + 1] + buf[start + 1 : pn_at] + number.to_bytes(number_bytes, "big")
        try:
            return self._aead.decrypt((self._iv ^ number).to_bytes(12, "big"), buf[body_at:end], header)
        except self._refusals:
            return None

    def _mask_of(self, sample: bytes) -> bytes:
        """What the header's protected bits are masked with (RFC 9001 section 5.4.3)."""
        mask = self._mask
        if mask is None:
            ciphers = _ciphers()
            hp = self._client.digest(self._hp_label)[:16]
            mask = self._mask = ciphers.cipher(ciphers.aes(hp), ciphers.ecb).encryptor()
        return mask.update(sample)
