"""One TCP conversation: its two directions, the parser that reads each, and what a first look at bytes identifies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressd.model import TCP, FlowKey
from egressd.native import mypyc_attr
from egressd.wire.dns import DnsStream, looks_like_dns_stream
from egressd.wire.http import HttpStream
from egressd.wire.http_head import looks_like_http
from egressd.wire.socks import SocksStream, looks_like_socks
from egressd.wire.stream import Stream
from egressd.wire.table import Pair
from egressd.wire.tls_records import TlsStream, looks_like_tls

if TYPE_CHECKING:  # four bytes to mypyc instead of eight, and nothing at run time
    from mypy_extensions import i32

# What a direction carries.
MORE: Final = -1  # too few bytes to say
UNKNOWN: Final = 0
HTTP: Final = 1
TLS: Final = 2
DNS: Final = 3
SOCKS: Final = 4
OVER: Final = 5  # nothing more to learn

DNS_PORT: Final = 53
_DNS_TELLS: Final = 14  # length and header of a message over TCP: what is none hardly has such a header
# Segments of an unknown direction whose start is looked at for a request: STARTTLS comes in the third of SMTP's, the
# tenth of a talkative IMAP client's; after a lost segment the next request begins within a few.
TRIES: Final = 24
MAX_HEAD: Final = 256  # bytes that identification may wait for: the longest usual PROXY header is 232
# HAProxy's PROXY protocol (version 1 text, version 2 binary) stands before what it announces.
_PROXY_1: Final = b"PROXY "
_PROXY_1_MAX: Final = 107  # its specification, section 2.1
_PROXY_2: Final = b"\r\n\r\n\x00\r\nQUIT\n"

# How either begins: they may be cut short.
PROXY_1_FIRST: Final = 0x50
PROXY_2_FIRST: Final = 0x0D

# What clients of databases ask in the clear before their hello. PostgreSQL's SSLRequest (its manual, "Message Formats")
# is always the same; MySQL's is packet 1, of 32 bytes, with CLIENT_SSL among the capabilities.
_POSTGRES_SSL: Final = b"\0\0\0\x08\x04\xd2\x16\x2f"
_MYSQL_SSL: Final = b"\x20\0\0\x01"
_MYSQL_SSL_BYTES: Final = 36
_MYSQL_CLIENT_SSL: Final = 0x08  # of the second byte

POSTGRES_FIRST: Final = 0x00
MYSQL_FIRST: Final = 0x20

Parser = HttpStream | TlsStream | DnsStream | SocksStream


# What nearly every direction has put off, one for all: nothing is ever put into it.
_NOTHING_PUT_OFF: Final[list[bytes]] = []


@mypyc_attr(acyclic=True)
class Side(Stream):
    """One direction of a conversation and the parser that reads it."""

    __slots__ = (
        "compared",
        "end_seq",
        "ends",
        "head",
        "incoming",
        "is_carried",
        "kind",
        "last_seq",
        "looked_seq",
        "parser",
        "proxied",
        "put_off",
        "resumes",
        "sampled_us",
        "sent_bytes",
        "since_over",
        "stalled_us",
        "strays",
        "told",
        "told_bytes",
        "tries",
        "waiting",
    )

    def __init__(self) -> None:
        super().__init__(-1)
        # What is true or not stands together, and so do small numbers: compiled, they take a byte and four each.
        self.proxied = False  # what comes is for another host than this connection's server (CONNECT, SOCKS)
        self.resumes = False  # bytes were lost, or were not what they seemed: it may begin again at any segment
        self.incoming = False  # live: some of what it sent came in from the hosts
        self.is_carried = False  # some came inside another packet
        self.ends = False  # no more will come behind `put_off`
        self.kind: i32 = UNKNOWN
        self.tries: i32 = TRIES
        self.since_over: i32 = 0
        self.strays: i32 = 0  # segments in a row that lay outside any plausible window
        self.parser: Parser | None = None
        self.head = b""
        self.stalled_us = 0
        self.end_seq = -1  # the sequence number after the last byte, once a FIN has told it
        self.looked_seq = -1  # up to where a message that is not whole was read last
        self.told = ""  # the server name in the hello, until it is answered
        self.waiting = 0  # bytes accounted for in wire/memory.py: of unfinished messages
        self.compared = 0  # and to compare with
        self.put_off: list[bytes] = _NOTHING_PUT_OFF  # bytes to be read later, b"" where some are missing
        self.last_seq = -1  # of wire/meter.py: the sequence number after what was sampled last, and when that was
        self.sampled_us = 0
        self.sent_bytes = 0
        self.told_bytes = 0

    def is_inside(self) -> bool:
        """Whether bytes of a message are kept that is not whole."""
        parser = self.parser
        return self.head != b"" or bool(self.held) or (parser is not None and parser.buffered() > 0)

    def is_half_way(self) -> bool:
        """Whether bytes are kept that wait for more."""
        return self.parser is not None or self.head != b"" or bool(self.held) or bool(self.put_off)


@mypyc_attr(acyclic=True)
class Conversation(Pair):
    """A TCP connection. `sure` when SYN or content told the client; `isn` is the SYN's, -1 when that was not seen;
    `next_isn` that of another SYN, which counts once its server has answered it; `was_reset` when its client has ended
    it in the middle of a message, and may not mean it."""

    __slots__ = ("_server", "announced", "client", "isn", "next_isn", "replied", "sure", "syn_seen", "was_reset")

    def __init__(self, forward: bytes, sure: bool, flow: FlowKey | None = None) -> None:
        super().__init__(TCP, forward, flow)
        self.sure = sure
        self.syn_seen = False
        self.announced = False
        self.replied = False
        self.was_reset = False
        self.client = Side()
        self._server: Side | None = None
        self.isn = -1
        self.next_isn = -1

    @property
    def server(self) -> Side:
        """The server's direction; it takes memory only once something is sent in it."""
        server = self._server
        if server is None:
            server = self._server = Side()
        return server

    def sides(self) -> list[Side]:
        """The directions in which something was sent, the client's first."""
        return [self.client] if self._server is None else [self.client, self._server]

    def answering(self) -> Side | None:
        """The server's direction if something was sent in it."""
        return self._server

    def has_unfinished(self) -> bool:
        """Whether there may be more to tell once it ends: bytes that wait, or a parser that may know a part."""
        side = self.client
        if side.parser is not None or side.put_off or side.held or side.rivals:
            return True
        other = self._server
        return other is not None and (
            other.parser is not None or bool(other.put_off) or bool(other.held) or bool(other.rivals)
        )

    def turn_round(self) -> None:
        """The guess was wrong: the other side is the client."""
        self.swap()
        self.client, self._server = self.server, self.client
        if not self.announced:
            self.replied = False  # that was the client


def identify(head: bytes, server_port: int) -> int:
    """What the bytes that begin a direction (or a segment of it) are; MORE when more bytes could tell."""
    first = head[0]
    verdict = 0
    as_dns = 0
    if server_port == DNS_PORT:  # length and number of a question can spell another protocol: padding makes any length
        as_dns = looks_like_dns_stream(head)
        if as_dns > 0:
            return DNS
    if first == 0x16 or first >= 0x80:
        verdict = looks_like_tls(head)
        kind = TLS
    elif first == 5 or first == 4:
        verdict = looks_like_socks(head)
        kind = SOCKS
    else:
        verdict = looks_like_http(head)
        kind = HTTP
    if verdict > 0:
        return kind if as_dns == 0 else DNS if len(head) >= _DNS_TELLS else MORE
    if server_port == DNS_PORT:  # a server may listen there for something else, and be sent it in morsels
        return MORE if verdict < 0 and len(head) < _DNS_TELLS else DNS
    as_dns = looks_like_dns_stream(head)
    if as_dns > 0:
        return DNS
    return MORE if verdict < 0 or as_dns < 0 else UNKNOWN


def new_parser(kind: int) -> Parser:
    """The parser for what `identify` found."""
    if kind == TLS:
        return TlsStream()
    if kind == HTTP:
        return HttpStream()
    if kind == DNS:
        return DnsStream()
    return SocksStream()


def past_proxy_header(head: bytes) -> bytes:
    """`head` without a PROXY protocol header; as it is when it has none, empty when the header's end is not there."""
    if head.startswith(_PROXY_1):
        end = head.find(b"\r\n", 0, _PROXY_1_MAX)
        return head[end + 2 :] if end > 0 else head[_PROXY_1_MAX:]
    if head.startswith(_PROXY_2):
        return head[16 + (head[14] << 8 | head[15]) :] if len(head) >= 16 else b""
    return head


def past_tls_request(head: bytes) -> bytes:
    """`head` without a database client's request for TLS; as it is when it has none, empty while that is not whole."""
    size = len(head)
    if head[:8] == _POSTGRES_SSL[:size]:
        return head[8:]
    if head[:4] == _MYSQL_SSL[:size] and (size < 6 or head[5] & _MYSQL_CLIENT_SSL):
        return head[_MYSQL_SSL_BYTES:]
    return head
