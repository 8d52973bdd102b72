"""TLS records: whether a stream is TLS, and its first ClientHello however it is cut into records or chunks.

RFC 8446 (TLS 1.3) sections 4.1.4 and 5.1. Strict about framing, but for what OpenSSL's server takes though no client
sends it: records of any minor version, empty ones, and another name in the hello after HelloRetryRequest.
"""

from __future__ import annotations

from typing import Final

from egressd.errors import Malformed
from egressd.model import ClientHello
from egressd.native import mypyc_attr
from egressd.wire.tls import CLIENT_HELLO, MAX_HANDSHAKE_BYTES, parse_client_hello, parse_sent_hello

# Record types, RFC 8446 section 5.1.
CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23

# The random of a ServerHello that asks for another ClientHello (RFC 8446 section 4.1.3).
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
# Messages that only a server sends (RFC 5246 section 7.4, RFC 8446 section 4): HelloRequest, ServerHello,
# NewSessionTicket, EncryptedExtensions, ServerKeyExchange, CertificateRequest, ServerHelloDone, CertificateStatus.
_SERVER_MESSAGES: Final = frozenset((0, 2, 4, 8, 12, 13, 14, 22))

MAX_RECORD_BYTES: Final = 16_384  # RFC 8446 section 5.1, plaintext
# In a row. Section 5.1 forbids them in a handshake, but OpenSSL steps over as many. It heeds no more of a record's
# version than its first byte either, as that section asks ("MUST be ignored for all purposes").
MAX_EMPTY_RECORDS: Final = 32
_RECORD_HEADER_BYTES: Final = 5


def looks_like_tls(head: bytes) -> int:
    """1 when a stream that begins so is TLS from either side, 0 when not, -1 when `head` is too short to say.

    Asks for a handshake record (RFC 8446 section 5.1) whose first message is ClientHello or ServerHello with a length
    that fits the record and a version of SSL 3.0 or more. Empty records may come first.
    """
    size = len(head)
    if (size and head[0] != HANDSHAKE) or (size > 1 and head[1] != 3):
        return 0
    if size < 6:
        return -1
    record = head[3] << 8 | head[4]
    if not record:
        start = _RECORD_HEADER_BYTES
        while start < MAX_EMPTY_RECORDS * _RECORD_HEADER_BYTES and _is_empty_record(head, start):
            start += _RECORD_HEADER_BYTES
        return 0 if _is_empty_record(head, start) else looks_like_tls(head[start:])
    if record > MAX_RECORD_BYTES or head[5] not in (CLIENT_HELLO, 2):
        return 0
    if record < 6:  # a message cut into tiny records: its own header lies in later ones
        return 1
    if size < 11:
        return -1
    length = head[6] << 16 | head[7] << 8 | head[8]
    if length < 38 or head[9] < 3:  # ServerHello has at least 38 bytes, ClientHello more
        return 0
    # Nothing can follow a ClientHello in its record; a ServerHello may have company.
    return 1 if head[5] != CLIENT_HELLO or record <= length + 4 else 0


def _is_empty_record(head: bytes, at: int) -> bool:
    """Whether a handshake record without content stands there."""
    return head[at : at + 2] == b"\x16\x03" and head[at + 3 : at + 5] == b"\0\0"


def _only_record(head: bytes) -> int:
    """Bytes of the first record when it holds a whole ClientHello and nothing else, as nearly always; else 0."""
    if len(head) > 8 and head[0] == HANDSHAKE and head[5] == CLIENT_HELLO and head[1] == 3:
        record = head[3] << 8 | head[4]
        if record <= MAX_RECORD_BYTES and record == (head[6] << 16 | head[7] << 8 | head[8]) + 4:
            return _RECORD_HEADER_BYTES + record
    return 0


def asks_again(head: bytes) -> bool:
    """Whether what a server sends first is HelloRetryRequest. The second hello must name the same server (RFC 8446
    section 4.1.2), but OpenSSL's server takes any other and goes on with that."""
    return head[11:43] == _RETRY and head[0] == HANDSHAKE and head[5] == 2


@mypyc_attr(acyclic=True)
class TlsStream:
    """Client's direction of one TCP connection: yields the first ClientHello, however it is cut into records or chunks.

    `server_side` is set when the first message can only be a server's: the caller has the direction wrong.
    """

    __slots__ = ("_empty", "_header", "_left", "_message", "_need", "_passing", "again", "done", "rest", "server_side")

    def __init__(self, again: bool = False) -> None:
        """`again`: the first hello has gone by, and the server asks for another."""
        self.again: bool = again
        self._passing: bool = False  # the open record is a ChangeCipherSpec before the second hello (appendix D.4)
        self.done: bool = False
        self.rest: bytes | None = None
        self.server_side: bool = False
        self._need: int = -1  # bytes of the only record when it holds the whole hello; 0 otherwise, -1 before the start
        self._header: bytes = b""  # of a record, as far as it is there: under 5 bytes
        self._left: int = 0  # bytes still to come of the open record
        self._empty: int = 0  # records in a row without content
        # The handshake message (its record header before it if _need > 0), up to MAX_HANDSHAKE_BYTES. Kept as bytes:
        # hellos come in one to three chunks, and the bound makes the copying of many tiny ones cheap enough.
        self._message: bytes = b""

    def feed(self, data: bytes) -> list[ClientHello]:
        """Take the next bytes; returns the hello once it is whole. Raises Malformed when this is no TLS."""
        if self.done or not data:
            return []
        need = self._need
        if need < 0:
            need = self._need = _only_record(data)
        if not need:
            return self._gather(data)
        if self._message:
            data = self._message + data
        if len(data) < need:
            self._message = data
            return []
        self.done = True
        return [parse_sent_hello(data[9:need])]

    def buffered(self) -> int:
        """Bytes kept of what is not complete."""
        return len(self._message) + len(self._header)

    def finish(self) -> list[ClientHello]:
        """What can be had of a hello whose rest will not come (the flow ended, or a hole stays). Never raises."""
        hellos = self.so_far()
        self.done = True
        return hellos

    def so_far(self) -> list[ClientHello]:
        """What can be had of a hello if its rest does not come. Never raises."""
        if self.done:
            return []
        message = self._message[5:] if self._need > 0 else self._message
        if len(message) < 4 or message[0] != CLIENT_HELLO:
            return []
        try:
            return [parse_client_hello(message[4:], partial=True)]
        except Malformed:
            return []

    def _gather(self, data: bytes) -> list[ClientHello]:
        pos = 0
        size = len(data)
        while pos < size:
            if not self._left:
                start = pos
                pos = min(size, pos + _RECORD_HEADER_BYTES - len(self._header))
                self._header += data[start:pos]
                if len(self._header) == _RECORD_HEADER_BYTES:
                    self._open_record()
                    if self.done:
                        return []
                continue
            if self._passing:
                self._passing = False
                self._left = 0
                pos += 1
                continue
            take = min(self._left, size - pos, MAX_HANDSHAKE_BYTES - len(self._message))
            self._message += data[pos : pos + take]
            self._left -= take
            pos += take
            hellos = self._complete()
            if self.done:
                return hellos
        return []

    def _open_record(self) -> None:
        header = self._header
        self._header = b""
        kind = header[0]
        if kind == HANDSHAKE and header[1] == 3:
            self._left = header[3] << 8 | header[4]
            self._empty = 0 if self._left else self._empty + 1
            if self._left > MAX_RECORD_BYTES or self._empty > MAX_EMPTY_RECORDS:
                raise Malformed("TLS record length out of bounds")
        elif self.again and header == b"\x14\x03\x03\0\1" and not self._message:
            self._passing = True
            self._left = 1
        elif self._message:
            raise Malformed("another record inside a ClientHello")  # section 5.1: no interleaving
        elif kind in (CHANGE_CIPHER_SPEC, ALERT, APPLICATION_DATA) and header[1] == 3:
            self.done = True  # joined in the middle: the hello has gone by
        elif kind & 0x80 and header[2] == CLIENT_HELLO and (header[3] == 3 or header[3:] == b"\x00\x02"):
            self.done = True  # SSL 2.0 compatible hello (RFC 5246 appendix E.2): it cannot carry a name
        else:
            raise Malformed("not a TLS record")

    def _complete(self) -> list[ClientHello]:
        message = self._message
        if message[0] != CLIENT_HELLO:
            self.done = True
            self.server_side = message[0] in _SERVER_MESSAGES
            return []
        if len(message) < 4:
            return []
        end = 4 + (message[1] << 16 | message[2] << 8 | message[3])
        if len(message) < min(end, MAX_HANDSHAKE_BYTES):
            return []
        self.done = True
        body = message[4:end]
        return [parse_sent_hello(body) if end <= MAX_HANDSHAKE_BYTES else parse_client_hello(body, partial=True)]
