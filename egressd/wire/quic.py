"""QUIC Initial packets: the ClientHello that a client sends in them, under keys that anyone on the path can derive.

RFC 9000 (transport), RFC 9001 section 5 (Initial protection), RFC 9369 (version 2), the drafts still found in captures,
and two versions of Google's QUIC that already used TLS. Only the client's direction is read: a server's Initial packets
are under other keys, do not open with these, and give nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from egressd.errors import Malformed
from egressd.model import ClientHello
from egressd.wire.octets import read_u32
from egressd.wire.quic_keys import SCHEMES, InitialKeys, Numbering, Scheme
from egressd.wire.tls import CLIENT_HELLO, parse_client_hello, parse_sent_hello

if TYPE_CHECKING:
    from mypy_extensions import i64

MAX_CONNECTIONS: Final = 4096  # a connection is of interest for its first packets only; 64 MB if every one is full
MAX_CRYPTO_BYTES: Final = 16_384  # of a ClientHello; real ones are below 3 KB, and below 20 KB with many tickets
MAX_INITIALS: Final = (
    16  # tried before a connection is given up; clients need one to three, and a few when packets get lost
)
MAX_RUNS: Final = 256  # separate pieces of CRYPTO kept; Chrome and quic-go cut a hello into some dozen
MAX_KEY_SPACES: Final = 3  # first flight, the one after Retry, and one more: somebody opens a second connection
MAX_SETTLED: Final = 8  # connection ids of an answered connection that are remembered; it uses two or three
MAX_CID_BYTES: Final = 20  # RFC 9000 section 17.2
MIN_FIRST_DCID_BYTES: Final = 8  # RFC 9000 section 7.2, "at least 8 bytes"
_MIN_PAYLOAD_BYTES: Final = 20  # packet number up to 4, then a sample of 16 (RFC 9001 section 5.4.2)

# Frame types that may stand in an Initial packet (RFC 9000 section 12.4), but PADDING and CRYPTO.
_PING: Final = 0x01
_ACK: Final = 0x02
_ACK_ECN: Final = 0x03
_CONNECTION_CLOSE: Final = 0x1C

_PADDING: Final = re.compile(rb"\x00*")  # steps over a run at C speed without copying the rest
_ZEROS: Final = bytes(1500)  # what padding is compared with that goes on to the end, as nearly all does
_V1: Final = SCHEMES[b"\0\0\0\1"]


def quic_version(buf: bytes, start: int, end: int) -> int:
    """Version of the long header packet at `start`, 0 when there is none or its version is not one we can read."""
    if end - start < 7 or buf[start] & 0xC0 != 0xC0:
        return 0
    scheme = _scheme(buf, start)
    return scheme.version if scheme is not None else 0


def is_initial(buf: bytes, start: int, end: int) -> bool:
    """Whether the datagram begins with a whole Initial packet of a version we can read, by its header. Cheap."""
    if end - start < 7 or buf[start] & 0xC0 != 0xC0:
        return False
    scheme = _scheme(buf, start)
    return scheme is not None and buf[start] & 0x30 == scheme.initial and _body(buf, start, end, True)[1] > 0


def _scheme(buf: bytes, start: int) -> Scheme | None:
    """How the version of a long header packet protects it, None when we cannot read that version."""
    return _V1 if read_u32(buf, start + 1) == 1 else SCHEMES.get(buf[start + 1 : start + 5])


def _varint(buf: bytes, pos: i64, end: i64) -> i64:
    """Variable-length integer (RFC 9000 section 16), -1 when cut. It takes `1 << (buf[pos] >> 6)` bytes."""
    if pos >= end:
        return -1
    first: i64 = buf[pos]
    if first < 0x40:
        return first
    size: i64 = 1 << (first >> 6)
    if pos + size > end:
        return -1
    value = first & 0x3F
    at = pos + 1
    while at < pos + size:
        value = value << 8 | buf[at]
        at += 1
    return value


def _body(buf: bytes, start: i64, end: i64, initial: bool) -> tuple[i64, i64]:
    """(where the packet number stands, where the packet ends) of a long header packet; (0, 0) when cut or broken.

    RFC 9000 sections 17.2 and 17.2.2. The caller has seen to it that seven bytes are there.
    """
    dcid_bytes: i64 = buf[start + 5]
    pos = start + 6 + dcid_bytes
    if dcid_bytes > MAX_CID_BYTES or pos >= end or buf[pos] > MAX_CID_BYTES:
        return 0, 0
    pos += 1 + buf[pos]
    if initial:
        token_bytes = _varint(buf, pos, end)
        if token_bytes < 0:
            return 0, 0
        pos += (1 << (buf[pos] >> 6)) + token_bytes
    length = _varint(buf, pos, end)
    if length < _MIN_PAYLOAD_BYTES:
        return 0, 0
    pos += 1 << (buf[pos] >> 6)
    return (pos, pos + length) if pos + length <= end else (0, 0)


class _KeySpace:
    """The client's Initial keys that follow from one destination connection id, and the CRYPTO stream under them."""

    __slots__ = ("_keys", "_numbering", "dcid", "runs", "scheme")

    def __init__(self, scheme: Scheme, dcid: bytes, numbering: Numbering) -> None:
        self.scheme: Scheme = scheme
        self.dcid: bytes = dcid
        self.runs: list[tuple[int, bytes]] = []  # of the CRYPTO stream, by offset, neither touching nor overlapping
        self._numbering: Numbering = numbering
        self._keys: InitialKeys | None = None

    def open(self, buf: bytes, start: int, pn_at: int, end: int) -> bytes | None:
        """The payload of a packet; None when the keys do not fit."""
        keys = self._keys
        if keys is None:
            keys = self._keys = InitialKeys(self.scheme, self.dcid, self._numbering)
        return keys.open(buf, start, pn_at, end)

    def settle(self) -> None:
        """The hello was found. What opened its packets takes 3.5 KB, and as a rule none follows: let it go."""
        self.runs.clear()
        self._keys = None

    def gather(self, payload: bytes) -> None:
        """Keep the CRYPTO frames of a payload. Stops at the first frame that has no place in an Initial packet."""
        pieces: list[tuple[int, bytes]] = []
        crypto_frame: i64 = self.scheme.crypto_frame
        end: i64 = len(payload)
        pos: i64 = 0
        while pos < end:
            kind: i64 = payload[pos]
            if kind == 0:
                if payload[pos:] == _ZEROS[: end - pos]:
                    break
                match = _PADDING.match(payload, pos)
                pos = match.end() if match is not None else end
            elif kind == _PING:
                pos += 1
            elif kind == crypto_frame:
                offset = _varint(payload, pos + 1, end)
                if offset < 0:
                    break
                pos += 1 + (1 << (payload[pos + 1] >> 6))
                length = _varint(payload, pos, end)
                if length < 0:
                    break
                pos += 1 << (payload[pos] >> 6)
                if pos + length > end:
                    break
                if offset < MAX_CRYPTO_BYTES and length:
                    pieces.append((offset, payload[pos : pos + min(length, MAX_CRYPTO_BYTES - offset)]))
                pos += length
            else:
                pos = _after_frame(payload, pos, end)
        if len(pieces) == 1:
            self._add(pieces[0][0], pieces[0][1])
        elif pieces:
            self.runs = _merge(self.runs + pieces)

    def _add(self, offset: int, piece: bytes) -> None:
        """Keep one piece: most hellos come in order, a packet or two of them."""
        runs = self.runs
        if not runs:
            runs.append((offset, piece))
        elif len(runs) == 1 and offset == runs[0][0] + len(runs[0][1]):
            runs[0] = (runs[0][0], runs[0][1] + piece)
        else:
            self.runs = _merge([*runs, (offset, piece)])

    def prefix(self) -> bytes:
        """The CRYPTO stream from its beginning to its first gap."""
        return self.runs[0][1] if self.runs and not self.runs[0][0] else b""


def _after_frame(payload: bytes, pos: int, end: int) -> int:
    """Where an ACK or CONNECTION_CLOSE frame ends (RFC 9000 sections 19.3, 19.19); `end` if it is neither or is cut."""
    kind = payload[pos]
    if kind in (_ACK, _ACK_ECN):
        fields = 4  # largest, delay, count of ranges, first range
    elif kind == _CONNECTION_CLOSE:
        fields = 3  # error, frame type, length of the reason
    else:
        return end
    pos += 1
    index = 0
    while index < fields:
        value: int = _varint(payload, pos, end)  # twice of it is no machine integer
        if value < 0:
            return end
        pos += 1 << (payload[pos] >> 6)
        index += 1
        if kind == _CONNECTION_CLOSE:
            if index == 3:
                pos += value
        elif index == 3:
            fields += 2 * value + (3 if kind == _ACK_ECN else 0)  # cut short by `end` if the count lies
    return min(pos, end)


def _merge(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Join pieces that touch or overlap. Sorted first, so the order in which they came makes no difference."""
    pieces.sort()
    runs: list[tuple[int, bytes]] = []
    at = reach = 0
    parts: list[bytes] = []
    for offset, piece in pieces:
        if offset > reach or not parts:
            if parts:
                runs.append((at, b"".join(parts)))
            at = offset
            parts = [piece]
            reach = offset + len(piece)
        elif offset + len(piece) > reach:
            parts.append(piece[reach - offset :])
            reach = offset + len(piece)
    runs.append((at, b"".join(parts)))
    return runs[:MAX_RUNS]  # the beginning is what carries the name


class _Connection:
    """What is known of one client-to-server direction."""

    __slots__ = ("answered", "client_random", "settled", "spaces", "tries")

    def __init__(self) -> None:
        self.spaces: list[_KeySpace] = []
        self.tries: int = 0
        self.answered: bool = False
        self.client_random: bytes = b""  # of the hello that was returned
        self.settled: list[bytes] = []  # connection ids whose packets belong to the hello that was returned


def prepare() -> None:
    """Load now what the first Initial needs, 8 ms: for who must not stop then."""
    keys = InitialKeys(_V1, bytes(MIN_FIRST_DCID_BYTES), Numbering())
    keys.open(bytes(64), 0, 10, 64)


class QuicConnections:
    """Finds the ClientHello of each QUIC connection. Bounded: the connection unheard of for longest makes room.

    `version` is that of the last hello returned. Counters: `undecryptable` Initial packets that no key opened (a
    server's, damaged ones), `unknown_versions` and `negotiations` packets passed over, `evicted` connections that made
    room, `given_up` connections with MAX_INITIALS packets and no whole hello, `malformed` hellos that are unreadable.
    """

    def __init__(self, max_connections: int = MAX_CONNECTIONS) -> None:
        self.version: int = 0
        self.undecryptable: int = 0
        self.unknown_versions: int = 0
        self.negotiations: int = 0
        self.evicted: int = 0
        self.given_up: int = 0
        self.malformed: int = 0
        self._max_connections: int = max_connections
        self._numbering: Numbering = Numbering()
        self._table: dict[bytes, _Connection] = {}  # in order of use, oldest first

    def __len__(self) -> int:
        return len(self._table)

    def done(self, key: bytes) -> bool:
        """Whether the connection's hello was returned or given up. Feeding on is right all the same, and cheap: a
        client may open its next connection from the same port."""
        connection = self._table.get(key)
        return connection is not None and (connection.answered or connection.tries >= MAX_INITIALS)

    def feed(self, key: bytes, buf: bytes, start: int, end: int) -> ClientHello | None:
        """Read one datagram, `buf[start:end]`; `key` names the client-to-server direction. Returns a connection's hello
        once, when it is whole. Never raises: what is not QUIC, or is damaged, gives None."""
        while end - start >= 7 and buf[start] & 0xC0 == 0xC0:  # else a short header, which has the rest (section 12.2)
            scheme = _scheme(buf, start)
            if scheme is None:
                if buf[start + 1 : start + 5] == b"\x00\x00\x00\x00":
                    self.negotiations += 1
                else:
                    self.unknown_versions += 1
                return None
            kind = buf[start] & 0x30
            if kind == scheme.retry:
                return None
            pn_at, stop = _body(buf, start, end, kind == scheme.initial)
            if not stop:
                return None
            if kind == scheme.initial:
                hello = self._read_initial(key, scheme, buf, start, pn_at, stop)
                if hello is not None:
                    return hello
            start = stop
        return None

    def finish(self, key: bytes) -> ClientHello | None:
        """Forget a connection; returns its hello if one with a name can be had of what came so far. Never raises."""
        connection = self._table.pop(key, None)
        return self._salvage(connection) if connection is not None else None

    def _read_initial(
        self, key: bytes, scheme: Scheme, buf: bytes, start: int, pn_at: int, stop: int
    ) -> ClientHello | None:
        dcid = buf[start + 6 : start + 6 + buf[start + 5]]
        connection = self._table.get(key)
        if connection is None:
            connection = self._admit(key)
        elif dcid in connection.settled or connection.tries >= MAX_INITIALS:
            return None
        else:
            self._table[key] = self._table.pop(key)
        connection.tries += 1
        space, payload = self._open(connection, scheme, dcid, buf, start, pn_at, stop)
        hello: ClientHello | None = None
        if space is None:
            self.undecryptable += 1
        elif connection.answered and space is connection.spaces[0]:
            if len(connection.settled) < MAX_SETTLED:
                connection.settled.append(dcid)
                connection.tries -= 1
            return None
        else:
            space.gather(payload)
            hello = self._answer(connection, space, dcid)
        if connection.tries >= MAX_INITIALS and hello is None:
            self.given_up += 1
            hello = self._salvage(connection)
            connection.spaces.clear()
        return hello

    def _open(
        self, connection: _Connection, scheme: Scheme, dcid: bytes, buf: bytes, start: int, pn_at: int, stop: int
    ) -> tuple[_KeySpace | None, bytes]:
        """The key space that opens a packet, and its payload.

        Spaces already known come first: after the server's first answer a client sends to the id that the server chose
        and keeps the keys (RFC 9001 section 5.2). Only Retry, or another connection, makes new keys.
        """
        is_new = len(dcid) >= MIN_FIRST_DCID_BYTES
        for space in connection.spaces:
            if space.scheme is scheme:
                payload = space.open(buf, start, pn_at, stop)
                if payload is not None:
                    return space, payload
                if space.dcid == dcid:
                    is_new = False
        if is_new:
            space = _KeySpace(scheme, dcid, self._numbering)
            payload = space.open(buf, start, pn_at, stop)
            if payload is not None:
                if len(connection.spaces) == MAX_KEY_SPACES:
                    del connection.spaces[1]  # the answered one, if any, stays first
                connection.spaces.append(space)
                return space, payload
        return None, b""

    def _admit(self, key: bytes) -> _Connection:
        if len(self._table) >= self._max_connections:
            del self._table[next(iter(self._table))]
            self.evicted += 1
        connection = self._table[key] = _Connection()
        return connection

    def _answer(self, connection: _Connection, space: _KeySpace, dcid: bytes) -> ClientHello | None:
        """The hello, if `space` holds all of it or as much as we keep of any."""
        stream = space.prefix()
        if len(stream) < 4:
            return None
        end = 4 + (stream[1] << 16 | stream[2] << 8 | stream[3])
        if stream[0] == CLIENT_HELLO and len(stream) < min(end, MAX_CRYPTO_BYTES):
            return None
        space.settle()
        connection.spaces = [space]
        connection.settled = [space.dcid] if dcid == space.dcid else [space.dcid, dcid]
        connection.tries = 0
        client_random = stream[6:38]
        if connection.answered and client_random == connection.client_random:
            return None  # sent again after Retry, under new keys (RFC 9000 section 17.2.5.3)
        connection.answered = True
        connection.client_random = client_random
        return self._parse(stream[: min(end, MAX_CRYPTO_BYTES)], end > MAX_CRYPTO_BYTES, space.scheme)

    def _salvage(self, connection: _Connection) -> ClientHello | None:
        for space in connection.spaces:
            stream = space.prefix()
            if len(stream) > 4:
                hello = self._parse(stream, True, space.scheme)
                if hello is not None:
                    return hello
        return None

    def _parse(self, message: bytes, partial: bool, scheme: Scheme) -> ClientHello | None:
        try:
            if message[0] != CLIENT_HELLO:
                raise Malformed("first message of a client is not ClientHello")
            hello = parse_client_hello(message[4:], True) if partial else parse_sent_hello(message[4:])
        except Malformed:
            self.malformed += 1
            return None
        self.version = scheme.version
        return hello
