"""TLS ClientHello: the name a client asks for in the clear, from a handshake message.

RFC 8446 (TLS 1.3) section 4.1.2, RFC 6066 section 3 (SNI), RFC 7301 (ALPN), RFC 8701 (GREASE), RFC 9849 (ECH).
Strict about framing and about the server name, because they carry the verdict; a broken extension of any other sort
only leaves its own field empty, so that it cannot hide the name.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, Final

from egressd import names
from egressd.errors import Malformed
from egressd.model import ClientHello
from egressd.wire.octets import COMPILED, read_u16, read_u32

if TYPE_CHECKING:
    from mypy_extensions import i64

CLIENT_HELLO: Final = 1

# The format allows 2^24 bytes; hellos of browsers with a post-quantum key share are below 3 KB, those with many
# tickets below 20 KB. A longer one is read as far as this and gives its name if the name lies within.
MAX_HANDSHAKE_BYTES: Final = 65_536
MAX_ALPN: Final = 16  # protocols kept; clients offer one to three
_MAX_VERSIONS_BYTES: Final = 255  # RFC 8446 section 4.2.1: the list of 2 to 254 bytes has a one-byte length
_MAX_ALPN_BYTES: Final = 512  # of the extension that are read; also bounds the keys of the memory below
_MAX_FORMS: Final = 256  # of an extension that are remembered: clients send a handful, times 16 GREASE values
# Version and random (34), session id length (1), a cipher suite with its length (4), null compression (2).
_MIN_HELLO_BYTES: Final = 41

_SERVER_NAME: Final = 0
_ALPN: Final = 16
_SUPPORTED_VERSIONS: Final = 43
_ECH: Final = 0xFE0D
_ESNI: Final = 0xFFCE  # draft-ietf-tls-esni up to -06
_READ: Final = frozenset((_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS, _ECH, _ESNI))

_EXTENSION: Final = Struct(">HH").unpack_from  # type, length

# What extensions said, by their bytes.
_VERSIONS: Final[dict[bytes, int]] = {}
_PROTOCOLS: Final[dict[bytes, tuple[str, ...]]] = {}

# "Ends in a number" of the URL standard's host parser: such a host is an IPv4 address or nothing, never a DNS name.
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Outer names ("public_name" of ECHConfig) that operators publish for many sites at once. A hello for one of them with
# an ECH extension is a real one: nobody visits these names for themselves. Known from the operators' HTTPS records;
# the list is a floor, not complete, and an operator may change the name at any time.
ECH_PUBLIC_NAMES: Final = frozenset(
    (
        "cloudflare-ech.com",  # Cloudflare, every site of it with ECH on
        "cloudflare-esni.com",  # Cloudflare, first trials
        "cover.defo.ie",  # the DEfO project's test servers
        "public.tls-ech.dev",  # tls-ech.dev test server
    )
)
_X25519_ENC_BYTES: Final = 32  # RFC 9180 section 7.1: DHKEM(X25519) encapsulated key
# HKDF-SHA256 with AES-128-GCM or ChaCha20-Poly1305: what BoringSSL and NSS put into GREASE.
_GREASE_SUITES: Final = frozenset((0x0001_0001, 0x0001_0003))
# BoringSSL draws one of these at random: 128, 160, 192 or 224 bytes and a tag of 16.
_BORINGSSL_GREASE_BYTES: Final = frozenset((144, 176, 208, 240))


def parse_client_hello(
    body: bytes,
    partial: bool = False,
    svcb_says_ech: bool = False,
    ech_public_names: frozenset[str] = ECH_PUBLIC_NAMES,
) -> ClientHello:
    """Read the body of a ClientHello: the handshake message without its four-byte header (RFC 8446 section 4.1.2).

    With `partial`, bytes may run out anywhere after the server name: what stands before is returned. The last two
    arguments are handed to `judge_ech`. Raises Malformed when the framing or the server name is broken, and with
    `partial` when the bytes end before a server name.
    """
    size: i64 = len(body)
    pos: i64 = _extensions_at(body, size)
    version = body[0] << 8 | body[1] if body[0] == 3 else 0x0303
    if pos == size and not partial:  # before TLS 1.3 extensions were optional (RFC 5246 section 7.4.1.2)
        return ClientHello("", "", version, (), "", "")
    if pos + 2 > size:
        raise Malformed("ClientHello ends before its extensions")
    end: i64 = pos + 2 + read_u16(body, pos)
    if end < size or (end > size and not partial):
        raise Malformed("ClientHello extensions do not fill the message")
    pos += 2
    raw: bytes | None = None
    alpn: tuple[str, ...] = ()
    ech_at = ech_end = esni_at = 0
    last: i64 = size - 4
    read = _READ  # local names: this loop is most of the work
    extension = _EXTENSION
    compiled = COMPILED
    kind: i64
    length: i64
    while pos <= last:
        if compiled:
            kind = read_u16(body, pos)
            length = read_u16(body, pos + 2)
            wanted = kind == 0 or kind == 16 or kind == 43 or kind == 0xFE0D or kind == 0xFFCE
        else:
            kind, length = extension(body, pos)
            wanted = kind in read
        pos += 4 + length
        if wanted and pos <= size:  # of a repeated extension (forbidden) the first one counts
            at = pos - length
            if kind == _SERVER_NAME:
                if raw is None:
                    raw = _host_name(body, at, pos)
            elif kind == _SUPPORTED_VERSIONS:
                version = _highest_version(body[at:pos] if length <= _MAX_VERSIONS_BYTES else b"") or version
            elif kind == _ALPN:
                if not alpn:
                    alpn = _alpn(body[at:pos] if length <= _MAX_ALPN_BYTES else body[at : at + _MAX_ALPN_BYTES])
            elif kind == _ECH:
                ech_at, ech_end = at, pos
            else:
                esni_at = at
    if pos != end and (raw is None or not partial):
        raise Malformed("ClientHello extensions are cut")
    sni, raw_sni = _name(raw) if raw else ("", "")
    hello = ClientHello(sni, raw_sni, version, alpn, "", "")
    if ech_at:
        hello.ech, hello.ech_reason = _read_ech(body[ech_at:ech_end], sni, svcb_says_ech, ech_public_names)
    elif esni_at:
        hello.ech, hello.ech_reason = "outer", "encrypted SNI of the drafts before ECH (extension 0xffce)"
    return hello


def parse_sent_hello(body: bytes) -> ClientHello:
    """`parse_client_hello` for a message that is all there, but one broken only behind its server name gives the name:
    the client did say it, whatever the server makes of the rest. Raises Malformed like the strict form otherwise.
    """
    try:
        return parse_client_hello(body)
    except Malformed:
        return parse_client_hello(body, partial=True)


def _extensions_at(body: bytes, size: int) -> int:
    """Where the extension list stands: behind version, random, session id, cipher suites and compression methods."""
    if size < _MIN_HELLO_BYTES or body[0] < 3:  # more: servers read supported_versions instead (RFC 8446 section 4.2.1)
        raise Malformed("not a ClientHello of SSL 3.0 or TLS")
    if body[34] > 32:
        raise Malformed("ClientHello session id over 32 bytes")
    pos = 35 + body[34]
    if pos + 2 > size:
        raise Malformed("ClientHello ends in its session id")
    suites = body[pos] << 8 | body[pos + 1]
    pos += 2 + suites
    if suites < 2 or suites & 1:
        raise Malformed("ClientHello cipher suites have a bad length")
    if pos >= size:
        raise Malformed("ClientHello ends in its cipher suites")
    pos += 1 + body[pos]
    if pos > size:
        raise Malformed("ClientHello ends in its compression methods")
    return pos


def _host_name(body: bytes, at: int, end: int) -> bytes:
    """The first host_name of a server_name extension (RFC 6066 section 3); b"" when it lists only other sorts."""
    if at + 2 > end or at + 2 + (body[at] << 8 | body[at + 1]) != end:
        raise Malformed("server_name list does not fill its extension")
    pos = at + 2
    while pos < end:
        if pos + 3 > end:
            raise Malformed("server_name entry is cut")
        entry_end = pos + 3 + (body[pos + 1] << 8 | body[pos + 2])
        if entry_end > end:
            raise Malformed("server_name entry is cut")
        if body[pos] == 0:
            return body[pos + 3 : entry_end]
        pos = entry_end
    return b""


def _name(raw: bytes) -> tuple[str, str]:
    name = names.normalise(raw)
    if not name:
        # A port behind it (RFC 6066 knows none): nginx reads the name before the colon. IPv6 has no dot there.
        colon = raw.find(b":")
        if colon <= 0 or raw.find(b".", 0, colon) < 0:
            return "", names.escape(raw)
        return _name(raw[:colon])[0], names.escape(raw)
    digit = name[name.rfind(".") + 1]
    if digit <= "9" and digit >= "0" and _NUMERIC_LABEL.fullmatch(name, name.rfind(".") + 1) is not None:
        name = ""  # RFC 6066 section 3: literal addresses are not permitted; one that is sent all the same is no name
    return name, raw.decode("ascii")


def _highest_version(extension: bytes) -> int:
    """Highest version of a supported_versions extension (RFC 8446 section 4.2.1), 0 when it names none we know.

    GREASE (RFC 8701) and private values fall out because they do not begin with 3; the drafts of TLS 1.3 (0x7fNN) count
    as TLS 1.3.
    """
    best = _VERSIONS.get(extension, -1)
    if best < 0:
        best = 0
        for high, low in zip(extension[1::2], extension[2::2], strict=False):
            if high == 3:
                best = max(best, 0x0300 | low)
            elif high == 0x7F:
                best = max(best, 0x0304)
        if len(_VERSIONS) >= _MAX_FORMS:
            _VERSIONS.clear()
        _VERSIONS[extension] = best
    return best


def _alpn(extension: bytes) -> tuple[str, ...]:
    """Protocols of an ALPN extension (RFC 7301 section 3.1), escaped, without GREASE; reading stops where it breaks."""
    known = _PROTOCOLS.get(extension)
    if known is not None:
        return known
    protocols: list[str] = []
    pos = 2
    while pos < len(extension) and len(protocols) < MAX_ALPN:
        length = extension[pos]
        protocol = extension[pos + 1 : pos + 1 + length]
        if not length or len(protocol) < length:
            break
        pos += 1 + length
        if not (length == 2 and protocol[0] == protocol[1] and protocol[0] & 0x0F == 0x0A):  # RFC 8701 section 2
            protocols.append(names.escape(protocol))
    if len(_PROTOCOLS) >= _MAX_FORMS:
        _PROTOCOLS.clear()
    _PROTOCOLS[extension] = read = tuple(protocols)
    return read


def _read_ech(extension: bytes, sni: str, svcb_says_ech: bool, public_names: frozenset[str]) -> tuple[str, str]:
    """(ech, reason) of an encrypted_client_hello extension (RFC 9849 section 5)."""
    if extension == b"\x01":
        return "", "inner ClientHello in the clear: a client-facing server's own hop, the name is the true one"
    if len(extension) >= 8:
        # Type, KDF and AEAD, config id, length of enc and enc, length of the payload and the payload (section 5).
        enc_bytes = extension[6] << 8 | extension[7]
        at = 8 + enc_bytes
        if extension[0] == 0 and at + 2 <= len(extension):
            payload_bytes = extension[at] << 8 | extension[at + 1]
            if payload_bytes and at + 2 + payload_bytes == len(extension):
                suite = read_u32(extension, 1)
                return judge_ech(sni, suite, enc_bytes, payload_bytes, svcb_says_ech, public_names)
    return "grease", "ECH extension is malformed: a server cannot have decrypted it"


def judge_ech(
    outer_sni: str,
    suite: int,
    enc_bytes: int,
    payload_bytes: int,
    svcb_says_ech: bool = False,
    public_names: frozenset[str] = ECH_PUBLIC_NAMES,
) -> tuple[str, str]:
    """Tell an ECH that hides a name ("outer") from the decoy that browsers send without one ("grease"), and say why.

    This is a guess. GREASE exists to be indistinguishable on the wire (RFC 9849 section 6.2): it has a random config id
    and a random body of a plausible length. What can tell are things beside the extension: the outer name is one that
    operators publish for this, or the client had learned an ECH configuration. `suite` is KDF << 16 | AEAD;
    `enc_bytes` and `payload_bytes` are the lengths of the encapsulated key and the ciphertext. `svcb_says_ech`: this
    client was lately given an HTTPS record with "ech" (RFC 9848) that leads to this server's address. A record for
    `outer_sni` itself would prove nothing: such a client would have put the public name in its place.

    A real ECH to an operator whose public name is not known, without a record seen, is reported as "grease".
    """
    if outer_sni and outer_sni in public_names:
        return "outer", "the server name is a known ECH public name"
    if svcb_says_ech:
        return "outer", "an HTTPS record with ech led this client to this server"
    if not enc_bytes:
        return "outer", "empty key: second hello of a real ECH after HelloRetryRequest"  # RFC 9849 section 6.1.5
    if enc_bytes != _X25519_ENC_BYTES or suite not in _GREASE_SUITES:
        return "outer", "key length or cipher suite that the GREASE of browsers does not use"
    if payload_bytes in _BORINGSSL_GREASE_BYTES:
        return "grease", "looks like browser GREASE by its lengths; a real ECH can have the same, so not certain"
    return "grease", "no sign of a real ECH; not certain: NSS sizes its GREASE exactly like the real thing"
