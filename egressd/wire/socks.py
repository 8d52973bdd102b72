"""SOCKS 4, 4a and 5 (RFC 1928, RFC 1929), the client's direction of a connection, on any port.

A client behind a proxy never asks our resolver: the request names its destination, and what follows is the protocol
that the client speaks with it. User names and passwords are stepped over, never kept. What a method for private use
says is nobody's to know: a request by name is recognised behind it, without a greeting, as in a capture that begins
late.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from egressd.errors import Malformed
from egressd.model import SocksRequest
from egressd.names import escape, normalise
from egressd.native import mypyc_attr
from egressd.wire.http_head import ends_in_number, parse_ipv4

# Looked at together. The longest piece is a SOCKS 4a request, 8 bytes and two texts with their NULs: 520. Each reader
# below is done or raises before its piece is that long, so no more is ever kept.
MAX_PIECE: Final = 1024
MAX_TEXT: Final = 255  # user name and host name of SOCKS 4 and 4a: no length is given, so that of SOCKS 5 is taken
MAX_METHODS: Final = 32  # offered in a greeting, for telling SOCKS by its first bytes; nine are assigned

CONNECT: Final = 1
BIND: Final = 2
UDP_ASSOCIATE: Final = 3
RESOLVE: Final = 0xF0  # of Tor, with names like the others
RESOLVE_PTR: Final = 0xF1

_COMMANDS: Final = frozenset((CONNECT, BIND, UDP_ASSOCIATE, RESOLVE, RESOLVE_PTR))
_METHODS: Final = frozenset((0, 1, 2, 3, 5, 6, 7, 8, 9, *range(0x80, 0xFF)))  # IANA "SOCKS Methods", private ones too
_NO_METHOD: Final = 0xFF
_GSSAPI: Final = 1
_CONNECT_TO_NAME: Final = b"\x05\x01\x00\x03"  # a greeting of one method goes on with 1 or 5
_ADDRESS_BYTES: Final = {1: 4, 4: 16}  # by address type; 3 is a name

_START: Final = 0  # what the bytes in the buffer begin
_GREETING: Final = 1
_AFTER_GREETING: Final = 2
_PASSWORD: Final = 3
_REQUEST_5: Final = 4
_REQUEST_4: Final = 5


def looks_like_socks(head: bytes) -> int:
    """1 when `head` begins with what a SOCKS client sends first, 0 when not, -1 when so few bytes cannot tell.

    Strict, since two bytes of version and count say little: SOCKS 5 must offer methods, each once, one at least that is
    assigned or private (a proxy passes over what it does not know), and send no more than that unless it is the start
    of a request or of a password; a request without greeting must be whole and for a name of text; SOCKS 4 must be one
    whole request of text.
    """
    if not head:
        return -1
    if head[0] == 5:
        return _looks_like_request_5(head) if head.startswith(_CONNECT_TO_NAME) else _looks_like_greeting(head)
    if head[0] == 4:
        return _looks_like_socks4(head)
    return 0


def _looks_like_greeting(head: bytes) -> int:
    if len(head) < 2:
        return -1
    count = head[1]
    offered = head[2 : 2 + count]
    if not 1 <= count <= MAX_METHODS or len(set(offered)) != len(offered) or _NO_METHOD in offered:
        return 0
    if len(offered) < count:
        return -1
    if _METHODS.isdisjoint(offered):
        return 0
    after = head[2 + count :]  # clients may send on without waiting for the answer
    if not after:
        return 1
    if after[0] == 1:
        return 1 if len(after) == 1 or after[1] else 0
    if after[0] != 5 or (len(after) > 1 and after[1] not in _COMMANDS):
        return 0
    return 0 if after[2:3] > b"\0" or (len(after) > 3 and after[3] not in (1, 3, 4)) else 1


def _looks_like_request_5(head: bytes) -> int:
    if len(head) < 5:
        return -1
    end = 5 + head[4]
    name = head[5:end]
    if not head[4] or len(head) > end + 2 or (name and not (name.isascii() and name.decode("ascii").isprintable())):
        return 0
    return 1 if len(head) == end + 2 else -1


def _looks_like_socks4(head: bytes) -> int:
    if len(head) > 1 and head[1] != CONNECT and head[1] != BIND:
        return 0
    if len(head) < 8:
        return 0 if head[2:4] == b"\0\0" else -1
    if head[2:4] == b"\0\0" or len(head) > MAX_PIECE:
        return 0
    named = head[4:7] == b"\0\0\0" and head[7] != 0
    if head[4] == 0 and not named:
        return 0
    texts = head[8:].split(b"\0")
    wanted = 2 if named else 1
    for text in texts[:wanted]:
        if len(text) > MAX_TEXT or not text.isascii() or not text.decode("ascii").isprintable():
            return 0
    if len(texts) <= wanted:
        return -1
    return 1 if len(texts) == wanted + 1 and not texts[-1] and (not named or texts[1]) else 0


def _destination(text: bytes) -> tuple[str, str, bytes]:
    """(normal name or "", text as sent, escaped; packed address or b""): clients send literals as names too."""
    host = normalise(text)
    if host and not ends_in_number(host):
        return host, text.decode("ascii"), b""
    raw = escape(text)
    address = parse_ipv4(raw)
    if address:
        return "", raw, address
    try:
        return "", raw, ipaddress.ip_address(raw).packed
    except ValueError:
        return "", raw, b""


@mypyc_attr(acyclic=True)
class SocksStream:
    """The client's direction of one connection, bytes in order, cut anywhere; finds its one request.

    `done`: nothing more can be learned. `rest`: after the request, the bytes that belong to what is spoken through the
    proxy. After GSSAPI (RFC 1961) the request may be encrypted and is given up.
    """

    __slots__ = ("_buffer", "_offers_gssapi", "_skip", "_state", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest: bytes | None = None
        self._state = _START
        self._buffer = b""  # of a piece that is not complete, at most 519 bytes
        self._skip = 0  # bytes of user name or password to come
        self._offers_gssapi = False

    def buffered(self) -> int:
        """Bytes kept of what is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[SocksRequest]:
        """The request, when `data` completes it. Raises Malformed when this is not SOCKS."""
        at = 0
        while not self.done:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                if self._skip:
                    return []
            piece = self._buffer + data[at : at + MAX_PIECE]
            used, request = self._take(piece)
            if used == 0:
                self._buffer = piece
                return []
            at += used - len(self._buffer)
            self._buffer = b""
            if request is not None:
                self.rest = data[at:]
                self.done = True
                return [request]
        return []

    def _take(self, piece: bytes) -> tuple[int, SocksRequest | None]:
        """Read one piece of the conversation: (bytes used or 0 when it is not complete, request if it was that)."""
        if not piece:
            return 0, None
        if self._state == _START:
            if piece[0] != 4 and piece[0] != 5:
                raise Malformed("not a version of SOCKS")
            if len(piece) < 4 and _CONNECT_TO_NAME.startswith(piece):
                return 0, None
            self._state = _GREETING if piece[0] == 5 else _REQUEST_4
            if piece.startswith(_CONNECT_TO_NAME):
                self._state = _REQUEST_5
        if self._state == _REQUEST_4:
            return _take_request_4(piece)
        if self._state == _GREETING:
            return self._take_greeting(piece), None
        if self._state == _AFTER_GREETING:
            # The proxy's choice goes the other way; the next byte tells it: 1 is a subnegotiation, 5 the request.
            if piece[0] == 1:
                return self._take_user(piece), None
            self._state = _REQUEST_5
        if self._state == _PASSWORD:
            self._skip = piece[0]
            self._state = _REQUEST_5
            return 1, None
        return _take_request_5(piece)

    def _take_greeting(self, piece: bytes) -> int:
        if len(piece) < 2:
            return 0
        used = 2 + piece[1]
        if used == 2:
            raise Malformed("SOCKS greeting without methods")
        if len(piece) < used:
            return 0
        self._offers_gssapi = _GSSAPI in piece[2:used]
        self._state = _AFTER_GREETING
        return used

    def _take_user(self, piece: bytes) -> int:
        """RFC 1929: 1, length, user, length, password. RFC 1961: 1, message type 1, length in two octets, token."""
        if len(piece) < (3 if self._offers_gssapi else 2):
            return 0
        if self._offers_gssapi and piece[1] == 1 and piece[2] < 0x20:  # no user name of one control character
            self.done = True
            return len(piece)
        self._skip = piece[1]
        self._state = _PASSWORD
        return 2


def _take_request_4(piece: bytes) -> tuple[int, SocksRequest | None]:
    """SOCKS 4 and 4a ("SOCKS: A protocol for TCP proxy across firewalls", "SOCKS 4A: A Simple Extension")."""
    if len(piece) > 1 and piece[1] != CONNECT and piece[1] != BIND:
        raise Malformed("not a SOCKS 4 command")
    if len(piece) < 9:
        return 0, None
    end = piece.find(b"\0", 8, 9 + MAX_TEXT)
    if end < 0:
        if len(piece) > 8 + MAX_TEXT:
            raise Malformed("SOCKS 4 user name too long")
        return 0, None
    port = piece[2] << 8 | piece[3]
    address = piece[4:8]
    if address[:3] != b"\0\0\0" or address[3] == 0:
        return end + 1, SocksRequest(4, piece[1], "", "", address, port)
    start = end + 1
    end = piece.find(b"\0", start, start + MAX_TEXT + 1)
    if end < 0:
        if len(piece) > start + MAX_TEXT:
            raise Malformed("SOCKS 4a host name too long")
        return 0, None
    host, raw_host, address = _destination(piece[start:end])
    return end + 1, SocksRequest(4, piece[1], host, raw_host, address, port)


def _take_request_5(piece: bytes) -> tuple[int, SocksRequest | None]:
    """RFC 1928 section 4. The reserved octet may be anything: few proxies look at it."""
    if piece[0] != 5 or (len(piece) > 1 and piece[1] not in _COMMANDS):
        raise Malformed("not a SOCKS 5 request")
    if len(piece) < 5:
        return 0, None
    kind = piece[3]
    start = 4
    size = _ADDRESS_BYTES.get(kind, 0)
    if kind == 3:
        start = 5
        size = piece[4]
    elif size == 0:
        raise Malformed("not a SOCKS 5 address type")
    end = start + size
    if len(piece) < end + 2:
        return 0, None
    port = piece[end] << 8 | piece[end + 1]
    if kind == 3:
        host, raw_host, address = _destination(piece[start:end])
        return end + 2, SocksRequest(5, piece[1], host, raw_host, address, port)
    return end + 2, SocksRequest(5, piece[1], "", "", piece[start:end], port)
