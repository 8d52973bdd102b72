"""QUIC Initial packets: the ClientHello that a client sends in them, under keys that anyone on the path can derive.

RFC 9000 (transport), RFC 9001 section 5 (Initial protection), RFC 9369 (version 2), the drafts still found in captures,
and two versions of Google's QUIC that already used TLS. Only the client's direction is read: a server's Initial packets
are under other keys, do not open with these, and give nothing.

Addresses and ports do not make a connection: a client may open the next one between the same two (RFC 9000 section
5.2), and a harmless hello may come before the one that counts. So every Initial is looked at, also after a hello was
found. How many that give none: MAX_INITIALS of a flow since its last hello, beyond those MAX_SENDER_TRIES of a sender
in a second, 40 ms of work at most.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from egressd.errors import Malformed
from egressd.model import ClientHello
from egressd.wire.octets import read_u32
from egressd.wire.quic_keys import SCHEMES, InitialKeys, Numbering, Scheme
from egressd.wire.quic_stream import MAX_CRYPTO_BYTES, KeySpace, varint
from egressd.wire.tls import CLIENT_HELLO, parse_client_hello, parse_sent_hello

if TYPE_CHECKING:
    from mypy_extensions import i64

MAX_CONNECTIONS: Final = 4096  # of interest for their first packets only
MAX_KEPT_BYTES: Final = 64 << 20  # of hellos that are not whole, of all connections together
# Of a connection, that any sender has for each; clients need one to three, and a few when packets get lost.
MAX_INITIALS: Final = 16
MAX_SENDER_TRIES: Final = 1024  # in a second; who sends more hides what follows, and is counted
PIECES_A_TRY: Final = 16  # of CRYPTO: a packet with many counts as more tries
MAX_NETWORK_TRIES: Final = 4 * MAX_SENDER_TRIES  # of an IPv6 network of 64 bits: a host has many addresses there
MAX_SENDERS: Final = 4096  # whose tries are counted in one second
MAX_KEY_SPACES: Final = 3  # first flight, the one after Retry, and one more: somebody opens a second connection
MAX_HOLDING: Final = 256  # connections that keep their keys for what follows the hello; it comes a round trip later
MAX_TOLD: Final = 8  # hellos of a flow that are known again when they are sent again
MAX_CID_BYTES: Final = 20  # RFC 9000 section 17.2
MIN_FIRST_DCID_BYTES: Final = 8  # RFC 9000 section 7.2, "at least 8 bytes"
_MIN_PAYLOAD_BYTES: Final = 20  # packet number up to 4, then a sample of 16 (RFC 9001 section 5.4.2)

_HANDSHAKE: Final = 0x20  # so much more than an Initial's is a Handshake packet's type, in version 2 too
_V1: Final = SCHEMES[b"\0\0\0\1"]


def quic_version(buf: bytes, start: int, end: int) -> int:
    """Version of the long header packet at `start`, 0 when there is none or its version is not one we can read. The bit
    behind the form's may be 0: clients clear it, of Initials too, for servers that said so before (RFC 9287)."""
    if end - start < 7 or buf[start] < 0x80:
        return 0
    scheme = _scheme(buf, start)
    return scheme.version if scheme is not None else 0


def _scheme(buf: bytes, start: int) -> Scheme | None:
    """How the version of a long header packet protects it, None when we cannot read that version."""
    return _V1 if read_u32(buf, start + 1) == 1 else SCHEMES.get(buf[start + 1 : start + 5])


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
        token_bytes = varint(buf, pos, end)
        if token_bytes < 0:
            return 0, 0
        pos += (1 << (buf[pos] >> 6)) + token_bytes
    length = varint(buf, pos, end)
    if length < _MIN_PAYLOAD_BYTES:
        return 0, 0
    pos += 1 << (buf[pos] >> 6)
    return (pos, pos + length) if pos + length <= end else (0, 0)


class _Connection:
    """What is known of one client-to-server direction, and of the connections in it one after the other."""

    __slots__ = ("answered", "kept_bytes", "scid", "spaces", "told", "tries")

    def __init__(self) -> None:
        self.kept_bytes: int = 0  # in its spaces
        self.spaces: list[KeySpace] = []
        self.tries: int = 0  # Initials since the last hello
        self.answered: bool = False
        self.told: list[tuple[bytes, str]] = []  # client random and name of the hellos that were returned
        self.scid: bytes = b""  # where the client of the last hello wants to have answers

    def is_news(self, client_random: bytes, raw_sni: str) -> bool:
        """Whether a hello was not returned yet. It comes again after Retry, under new keys (RFC 9000 section 17.2.5.3),
        and with the same name after HelloRetryRequest."""
        hello = (client_random, raw_sni)
        if hello in self.told:
            return False
        if len(self.told) >= MAX_TOLD:
            del self.told[0]
        self.told.append(hello)
        return True


def prepare() -> None:
    """Load now what the first Initial needs, 8 ms: for who must not stop then."""
    keys = InitialKeys(_V1, bytes(MIN_FIRST_DCID_BYTES), Numbering())
    keys.open(bytes(64), 0, 10, 64)


def _sender(key: bytes) -> bytes:
    """The address that a packet with this key comes from."""
    return key[: (len(key) - 4) >> 1]


class QuicConnections:
    """Finds the ClientHellos of each QUIC connection. Bounded: the connection unheard of for longest makes room.

    `version` is that of the last hello read. Counters: `undecryptable` Initial packets that no key opened (a
    server's, damaged ones), `unknown_versions` and `negotiations` packets passed over, `evicted` connections that made
    room, `given_up` connections with MAX_INITIALS packets and no whole hello, `malformed` hellos that are unreadable,
    `over_share` Initials not looked at: their sender had too many that gave nothing.
    """

    def __init__(self, max_connections: int = MAX_CONNECTIONS, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self.version: int = 0
        self.undecryptable: int = 0
        self.unknown_versions: int = 0
        self.negotiations: int = 0
        self.evicted: int = 0
        self.given_up: int = 0
        self.malformed: int = 0
        self.over_share: int = 0
        self.kept_bytes: int = 0
        self._max_connections: int = max_connections
        self._max_bytes: int = max_bytes
        self._numbering: Numbering = Numbering()
        self._table: dict[bytes, _Connection] = {}  # in order of use, oldest first
        self._holding: deque[KeySpace] = deque()  # with their keys, the hello was found
        self._tried: dict[bytes, int] = {}  # by sender, beyond what each connection has, in the second at hand
        self._second: int = 0
        # Of the datagram at hand: version and id of its first Initial, and the keys of that, if they opened nothing.
        self._lead: Scheme | None = None
        self._lead_dcid: bytes = b""
        self._shut: KeySpace | None = None

    def __len__(self) -> int:
        return len(self._table)

    def done(self, key: bytes) -> bool:
        """Whether a hello of the connection was returned, or it was given up."""
        connection = self._table.get(key)
        return connection is not None and (connection.answered or connection.tries >= MAX_INITIALS)

    def answers(self, key: bytes, buf: bytes, start: int, end: int) -> bool:
        """Whether the long header packet at `start` goes to the client of the last hello with this `key`: the server's,
        in which is nothing to read."""
        connection = self._table.get(key)
        if connection is None or not connection.answered or end - start < 7:
            return False
        return buf[start + 6 : start + 6 + buf[start + 5]] == connection.scid

    def feed(self, key: bytes, buf: bytes, start: int, end: int, ts_us: int = 0) -> list[ClientHello]:
        """Read one datagram, `buf[start:end]`, that came at `ts_us`; `key` names the client-to-server direction.
        Returns each hello once, when it is whole. Never raises: what is not QUIC, or is damaged, gives none."""
        found: list[ClientHello] = []
        self._lead = None
        self._shut = None
        while end - start >= 7 and buf[start] >= 0x80:  # else a short header, which has the rest (section 12.2)
            scheme = _scheme(buf, start)
            if scheme is None:
                if buf[start + 1 : start + 5] == b"\x00\x00\x00\x00":
                    self.negotiations += 1
                else:
                    self.unknown_versions += 1
                break
            kind = buf[start] & 0x30
            if kind == scheme.retry:
                break
            pn_at, stop = _body(buf, start, end, kind == scheme.initial)
            if not stop:
                break
            if kind == scheme.initial:
                self._read_initial(key, scheme, buf, start, pn_at, stop, ts_us, found)
            elif kind == scheme.initial + _HANDSHAKE:
                self._read_handshake(key)
            start = stop
        return found

    def finish(self, key: bytes) -> ClientHello | None:
        """Forget a connection; returns its hello if one with a name can be had of what came so far. Never raises."""
        connection = self._table.pop(key, None)
        if connection is None:
            return None
        self.kept_bytes -= connection.kept_bytes
        return self._salvage(connection)

    def _read_initial(
        self,
        key: bytes,
        scheme: Scheme,
        buf: bytes,
        start: int,
        pn_at: int,
        stop: int,
        ts_us: int,
        found: list[ClientHello],
    ) -> None:
        connection = self._table.get(key)
        if connection is None:
            connection = self._admit(key)
        elif connection.tries >= MAX_INITIALS and not self._may_try(key, ts_us):
            self.over_share += 1
            return
        else:
            self._table[key] = self._table.pop(key)
        connection.tries += 1
        dcid = buf[start + 6 : start + 6 + buf[start + 5]]
        space, payload = self._open(connection, scheme, dcid, buf, start, pn_at, stop)
        before = len(found)
        if space is None:
            self.undecryptable += 1
        else:
            pieces = space.gather(payload)
            if pieces >= PIECES_A_TRY and connection.tries > MAX_INITIALS:
                self._tried[_sender(key)] = self._tried.get(_sender(key), 0) + pieces // PIECES_A_TRY
            self._answer(connection, space, found)
        if len(found) > before:
            connection.tries = 0
            scid_at = start + 7 + len(dcid)
            connection.scid = buf[scid_at : scid_at + buf[scid_at - 1]]
        elif connection.tries == MAX_INITIALS and not connection.answered:
            self.given_up += 1
            hello = self._salvage(connection)
            if hello is not None:
                found.append(hello)
            connection.spaces.clear()
        if connection.kept_bytes or (space is not None and space.runs):
            self._settle(connection)

    def _settle(self, connection: _Connection) -> None:
        """Account for what a connection keeps now, and let others make room for it."""
        kept = 0
        for space in connection.spaces:
            if space.runs:
                kept += space.kept_bytes()
        self.kept_bytes += kept - connection.kept_bytes
        connection.kept_bytes = kept
        while self.kept_bytes > self._max_bytes and len(self._table) > 1:
            self._evict()

    def _evict(self) -> None:
        self.kept_bytes -= self._table.pop(next(iter(self._table))).kept_bytes
        self.evicted += 1

    def _read_handshake(self, key: bytes) -> None:
        """A client's Handshake packet: it has discarded its Initial keys (RFC 9001 section 4.9.1)."""
        connection = self._table.get(key)
        if connection is not None:
            for space in connection.spaces:
                if space.hello_end:
                    space.let_go()

    def _may_try(self, key: bytes, ts_us: int) -> bool:
        """Whether a sender may have another Initial tried in this second."""
        second = ts_us // 1_000_000
        if second != self._second:
            self._second = second
            self._tried.clear()
        sender = _sender(key)
        tried = self._tried.get(sender, 0)
        if tried >= MAX_SENDER_TRIES or (not tried and len(self._tried) >= MAX_SENDERS):
            return False
        if len(sender) == 16:
            network = sender[:8]
            together = self._tried.get(network, 0)
            if together >= MAX_NETWORK_TRIES:
                return False
            self._tried[network] = together + 1
        self._tried[sender] = tried + 1
        return True

    def _open(
        self, connection: _Connection, scheme: Scheme, dcid: bytes, buf: bytes, start: int, pn_at: int, stop: int
    ) -> tuple[KeySpace | None, bytes]:
        """The key space that opens a packet, and its payload.

        Spaces already known come first: after the server's first answer a client sends to the id that the server chose
        and keeps the keys (RFC 9001 section 5.2). Only Retry, or another connection, makes new keys; and a datagram is
        of one connection (RFC 9000 section 12.2), so that it has them made once, though it may hold dozens of Initials.
        """
        if self._lead is None:
            self._lead = scheme
            self._lead_dcid = dcid
        is_new = len(dcid) >= MIN_FIRST_DCID_BYTES and scheme is self._lead and dcid == self._lead_dcid
        for space in connection.spaces:
            if space.scheme is scheme:
                payload = space.open(buf, start, pn_at, stop)
                if payload is not None:
                    return space, payload
                if space.dcid == dcid:
                    is_new = False
        if is_new:
            shut = self._shut
            space = KeySpace(scheme, dcid, self._numbering) if shut is None else shut
            payload = space.open(buf, start, pn_at, stop)
            self._shut = space if payload is None else None
            if payload is not None:
                if len(connection.spaces) == MAX_KEY_SPACES:
                    del connection.spaces[2 if connection.spaces[2].hello_end else 1]
                connection.spaces.append(space)
                return space, payload
        return None, b""

    def _admit(self, key: bytes) -> _Connection:
        if len(self._table) >= self._max_connections:
            self._evict()
        connection = self._table[key] = _Connection()
        return connection

    def _answer(self, connection: _Connection, space: KeySpace, found: list[ClientHello]) -> None:
        """The hellos of which `space` holds all, or as much as we keep of any."""
        for is_rival, at, stream in space.messages():
            if len(stream) < 4:
                continue
            size = 4 + (stream[1] << 16 | stream[2] << 8 | stream[3])
            if stream[0] == CLIENT_HELLO:
                if len(stream) < min(size, MAX_CRYPTO_BYTES):
                    continue
            elif at:
                continue  # nothing that a client sends behind its hello
            space.settle(is_rival, at, at + size)
            connection.answered = True
            if connection.spaces[0] is not space:  # most packets that follow are of the newest connection
                connection.spaces.remove(space)
                connection.spaces.insert(0, space)
            self._hold(space)
            hello = self._parse(stream[: min(size, MAX_CRYPTO_BYTES)], size > MAX_CRYPTO_BYTES, space.scheme)
            if hello is not None and connection.is_news(stream[6:38], hello.raw_sni):
                found.append(hello)

    def _hold(self, space: KeySpace) -> None:
        """Keep the keys of a hello that was found, in place of those of one that was long ago."""
        self._holding.append(space)
        if len(self._holding) > MAX_HOLDING:
            self._holding.popleft().let_go()

    def _salvage(self, connection: _Connection) -> ClientHello | None:
        for space in connection.spaces:
            for _, _, stream in space.messages():
                if len(stream) > 4 and stream[0] == CLIENT_HELLO:
                    hello = self._parse(stream, True, space.scheme)
                    if hello is not None and hello.raw_sni and connection.is_news(stream[6:38], hello.raw_sni):
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
