"""Reads the bytes of TCP directions: which protocol, which names, also where two copies of the bytes disagree.

No packet may cost much, though a large segment, or many that were held until a missing one came, can carry thousands of
the shortest requests. So what is read for one packet is bounded, and the rest is put off: each packet that follows, of
whatever conversation, first works off a part of it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from egressd.errors import Malformed
from egressd.model import ClientHello, HttpRequest
from egressd.wire.conversation import (
    HTTP,
    MAX_HEAD,
    MORE,
    MYSQL_FIRST,
    OVER,
    POSTGRES_FIRST,
    PROXY_1_FIRST,
    PROXY_2_FIRST,
    TLS,
    TRIES,
    UNKNOWN,
    Conversation,
    Side,
    identify,
    new_parser,
    past_proxy_header,
    past_tls_request,
)
from egressd.wire.dns import DnsStream
from egressd.wire.http import HttpStream
from egressd.wire.socks import SocksStream
from egressd.wire.stream import MAX_RIVAL_BYTES, Rival
from egressd.wire.telling import Teller
from egressd.wire.tls_records import TlsStream

# Of one packet, and again of what was put off: 32 messages, and the slice that passes the bound may have as many. When
# each of them is a sighting that costs 3 ms. An ordinary packet has at most 91 (16 bytes each): 5 ms.
MAX_TOLD: Final = 32
MAX_READ_BYTES: Final = 16_384  # messages that tell nothing cost less, but are as short
SLICE_BYTES: Final = 512
WHOLE_BYTES: Final = 2_048  # not cut into slices: ordinary packets, hellos that came in two
MAX_PUT_OFF_BYTES: Final = 1 << 20  # of all conversations together; a burst of sixteen full segments of offloading
PUT_OFF_COST_BYTES: Final = 64  # what keeping a piece costs beside its bytes
SHORT_COPY_BYTES: Final = 512  # copies that lost are read with each byte until then: four, and what was taken for them
MAX_RIVAL_NAMES: Final = 16  # told of one other copy; more are no names but noise


class ContentReader:
    """Feeds directions to their parsers and tells what these find.

    Before each packet the caller sets `read_bytes` and the teller's `told` to 0, and calls `work_off` if there is
    anything in `put_off`.
    """

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self.put_off: deque[tuple[Conversation, Side]] = deque()
        self._put_off_bytes = 0
        self.read_bytes = 0
        self.malformed = 0
        self.ambiguous = 0
        self.dropped_bytes = 0  # put off, and no room for it

    def finish_all(self) -> None:
        """There will be no more packets: read all that was put off."""
        while True:
            self._teller.told = 0
            self.read_bytes = 0
            if not self.put_off:
                return
            self.work_off()

    def consume(self, conversation: Conversation, side: Side, data: bytes) -> None:
        """Read the next bytes of a direction."""
        if side.put_off:
            self._keep(conversation, side, data)
            return
        size = len(data)
        if size <= WHOLE_BYTES and self._teller.told < MAX_TOLD and self.read_bytes < MAX_READ_BYTES:
            self.read_bytes += size
            self._read(conversation, side, data)
        else:
            rest = self._read_slices(conversation, side, data)
            if rest:
                self._keep(conversation, side, rest)

    def salvage(self, conversation: Conversation, side: Side) -> None:
        """No more bytes will come: tell what a half-received message has told so far."""
        if side.rivals:
            self.other_copies(conversation, side, True)
        if side.put_off:
            side.ends = True
            return
        parser = side.parser
        if isinstance(parser, TlsStream):
            for hello in parser.finish():
                if not parser.again or hello.raw_sni != side.told:
                    self._teller.hello(conversation, side, hello, "partial")
                side.kind = OVER
        elif isinstance(parser, HttpStream):
            for request in parser.finish():
                if request.raw_host != side.told:
                    self._teller.request(conversation, side, request, "partial")

    def tell_so_far(self, conversation: Conversation, side: Side) -> None:
        """It seems that no more bytes will come: tell what a half-received message has told, and go on reading. Who
        sends an end that never reaches the server wants that nobody reads what follows.

        Ends cost their sender nothing, and 64 KB of a head take 10 ms: what was read is read again only with more of
        it, and what is long once it is half as long again. The rest is told when the connection is forgotten."""
        if side.rivals:
            self.other_copies(conversation, side, so_far=True)
        parser = side.parser
        if side.put_off:
            side.ends = True
            return
        if parser is None:
            return
        kept = parser.buffered()
        more = (side.next_seq - side.looked_seq) & 0xFFFFFFFF
        if side.looked_seq >= 0 and (not more or (kept > WHOLE_BYTES and more < kept // 3)):
            return
        side.looked_seq = side.next_seq
        if isinstance(parser, TlsStream):
            for hello in parser.so_far():
                if not parser.again or hello.raw_sni != side.told:
                    self._teller.hello(conversation, side, hello, "partial")
                parser.again = True  # told
                side.told = hello.raw_sni
        elif isinstance(parser, HttpStream):
            for request in parser.so_far():
                if request.raw_host != side.told:
                    self._teller.request(conversation, side, request, "partial")
                side.told = request.raw_host

    def read_again(self, side: Side) -> None:
        """The server asks for another hello (HelloRetryRequest)."""
        side.kind = TLS
        side.parser = TlsStream(True)
        side.since_over = 0
        side.await_answer()

    def lose(self, conversation: Conversation, side: Side, lost: int) -> None:
        """`lost` bytes will not come (-1: nobody knows how many); what comes next may begin anywhere."""
        parser = side.parser
        if lost == 0:
            return
        if side.put_off:
            side.put_off.append(b"")
        elif isinstance(parser, HttpStream) and 0 < lost <= parser.skip:
            parser.skipped(lost)  # they lie in a body: nothing is missed
        else:
            self.salvage(conversation, side)
            self._start_over(side)

    def _start_over(self, side: Side) -> None:
        if side.parser is not None:  # it was read before: the next request may be a long body away
            side.tries = TRIES
        if side.kind != OVER:
            side.kind = UNKNOWN
        side.parser = None
        side.head = b""
        side.resumes = True

    # -- work that was put off

    def _keep(self, conversation: Conversation, side: Side, data: bytes) -> None:
        cost = len(data) + PUT_OFF_COST_BYTES
        if self._put_off_bytes + cost > MAX_PUT_OFF_BYTES:
            self.dropped_bytes += len(data)
            self.lose(conversation, side, -1)
            return
        if not side.put_off:
            self.put_off.append((conversation, side))
            side.put_off = []
        side.put_off.append(data)
        self._put_off_bytes += cost

    def work_off(self) -> None:
        """Read some of what was put off. Nobody waits because of others: the packet at hand has a share of its own."""
        while self.put_off and self._teller.told < MAX_TOLD and self.read_bytes < MAX_READ_BYTES:
            conversation, side = self.put_off[0]
            data = side.put_off.pop(0)
            if data:
                self._put_off_bytes -= len(data) + PUT_OFF_COST_BYTES
            rest = b""
            if data and side.kind != OVER:
                rest = self._read_slices(conversation, side, data)
            if rest:
                side.put_off.insert(0, rest)
                self._put_off_bytes += len(rest) + PUT_OFF_COST_BYTES
            elif not side.put_off:
                self.put_off.popleft()
            if not data:  # a hole
                behind = side.put_off
                side.put_off = []
                self.lose(conversation, side, -1)
                side.put_off = behind
            if side.ends and not side.put_off:
                side.ends = False
                self.salvage(conversation, side)
        self._teller.told = 0
        self.read_bytes = 0

    def _read_slices(self, conversation: Conversation, side: Side, data: bytes) -> bytes:
        """Read as much as one packet may cost; returns what is left, b"" when it was all read or needs no reading."""
        at = 0
        size = len(data)
        while at < size:
            if self._teller.told >= MAX_TOLD or self.read_bytes >= MAX_READ_BYTES:
                return data[at:]
            piece = data[at : at + SLICE_BYTES]
            at += len(piece)
            self.read_bytes += len(piece)
            if not self._read(conversation, side, piece) or side.kind == OVER:
                return b""
            parser = side.parser
            if isinstance(parser, HttpStream) and parser.skip:
                body = min(parser.skip, size - at)
                parser.skipped(body)
                at += body
        return b""

    # -- reading

    def _read(self, conversation: Conversation, side: Side, data: bytes) -> bool:
        """Identify what is not yet identified, and read. False when the bytes are no known protocol's (any more)."""
        for _ in range(TRIES):  # each turn is a protocol inside the last (CONNECT, SOCKS); they do not nest for ever
            if side.kind == UNKNOWN:
                data = self._identified(conversation, side, data)
                if not data:
                    return side.head != b""
            rest = self._feed(conversation, side, data)
            if rest is None:
                return False
            if not rest:
                return True
            data = rest
        return False

    def _identified(self, conversation: Conversation, side: Side, data: bytes) -> bytes:
        """Give `side` a parser if its bytes so far tell which; returns what that parser is to read, else b""."""
        # Only a direction whose beginning was seen is believed to be DNS because of its port alone.
        port = conversation.flow.server_port if conversation.syn_seen and not side.resumes else 0
        joined = side.head + data if side.head else data
        if (joined[0] == 0x0D or joined[0] == 0x0A) and not joined.strip(b"\r\n"):
            side.head = joined[:4]  # blank lines, of which servers pass over any number; a PROXY header begins so too
            return b""
        whole = joined
        if joined[0] == PROXY_1_FIRST or joined[0] == PROXY_2_FIRST:
            whole = past_proxy_header(joined)
        kind = identify(whole, port) if whole else MORE
        if kind <= UNKNOWN and (joined[0] == POSTGRES_FIRST or joined[0] == MYSQL_FIRST):
            behind = past_tls_request(joined)
            if len(behind) < len(joined):
                whole = behind
                kind = identify(whole, port) if whole else MORE
        if kind <= UNKNOWN and side.head:
            # A keep-alive byte or another protocol's short lines may have come first (STARTTLS): begin at this segment.
            alone = identify(data, port)
            if alone > UNKNOWN:
                kind = alone
                whole = data
        if kind == MORE and len(joined) < MAX_HEAD:
            side.head = joined
            return b""
        side.head = b""
        if kind <= UNKNOWN:
            side.tries -= 1
            if side.tries <= 0:
                side.kind = OVER
            return b""
        side.kind = kind
        side.parser = new_parser(kind)
        return whole

    def _feed(self, conversation: Conversation, side: Side, data: bytes) -> bytes | None:
        """One parser's turn; returns the bytes that belong to another protocol, None when these were not its own."""
        teller = self._teller
        parser = side.parser
        try:
            if isinstance(parser, TlsStream):
                for hello in parser.feed(data):
                    if not parser.again or hello.raw_sni != side.told:
                        teller.hello(conversation, side, hello, "")
                    side.told = hello.raw_sni
                if parser.server_side and not conversation.sure:
                    teller.decide(conversation, side, False)
            elif isinstance(parser, HttpStream):
                if parser.skip >= len(data):
                    parser.skipped(len(data))
                else:
                    for request in parser.feed(data):
                        teller.request(conversation, side, request, "")
                    if parser.failed:
                        raise Malformed(parser.failed)
            elif isinstance(parser, DnsStream):
                for message in parser.feed(data):
                    teller.dns(conversation, side, message)
            elif isinstance(parser, SocksStream):
                for asked in parser.feed(data):
                    teller.socks(conversation, side, asked)
        except Malformed:
            self.malformed += 1
            side.tries -= 1
            side.kind = UNKNOWN if side.tries > 0 else OVER
            side.parser = None
            side.resumes = True
            return None
        if parser is None:
            return b""
        rest: bytes | None = parser.rest
        if rest is not None:
            side.kind = UNKNOWN
            side.parser = None
            side.tries = TRIES
            return rest
        if parser.done:
            side.kind = OVER
            side.parser = None
        return b""

    # -- two copies of the same bytes

    def other_copies(self, conversation: Conversation, side: Side, last: bool = False, so_far: bool = False) -> None:
        """Read the copies that lost. Those too short to tell yet grow with the stream: they are read again when they
        have grown twice as much, and when there is no more to come (`last`). Where that only seems so (`so_far`, and
        behind what was all read) the long ones have to be half as long again: bytes come one by one there, too."""
        so_far = so_far or side.kind == OVER
        self.ambiguous += side.disagreed
        side.disagreed = 0
        for rival in side.rivals:
            if rival.first_size == 0:
                _begin_at_message(rival)
                rival.first_size = len(rival.other)
            size = len(rival.other)
            more = size - rival.seen_size
            if (
                size >= rival.next_size
                or (last and more)
                or (so_far and more and (size <= SHORT_COPY_BYTES or more >= size // 3))
            ):
                rival.seen_size = size
                rival.next_size = size + (size - rival.first_size) + 1
                self.other_copy(conversation, side, rival)
        if not side.keeps_first:
            side.rivals = [rival for rival in side.rivals if len(rival.other) <= MAX_RIVAL_BYTES]

    def other_copy(self, conversation: Conversation, side: Side, rival: Rival) -> None:
        """A name in a copy that lost, and not in what was taken, counts too, marked as ambiguous."""
        hellos, requests = self._read_alone(rival.other[:MAX_RIVAL_BYTES])
        if not hellos and not requests:
            return
        known_hellos, known_requests = self._read_alone(rival.taken[:MAX_RIVAL_BYTES])
        known = {hello.raw_sni for hello in known_hellos}
        known.update(request.raw_host for request in known_requests)
        for hello in hellos:
            if hello.raw_sni not in known and rival.is_news(hello.raw_sni, MAX_RIVAL_NAMES):
                self._teller.hello(conversation, side, hello, "ambiguous")
        for request in requests:
            if request.raw_host not in known and rival.is_news(request.raw_host, MAX_RIVAL_NAMES):
                self._teller.request(conversation, side, request, "ambiguous")

    def _read_alone(self, data: bytes) -> tuple[list[ClientHello], list[HttpRequest]]:
        """What bytes tell that begin a hello or a request and may end anywhere."""
        kind = identify(data, 0) if data else UNKNOWN
        try:
            if kind == TLS:
                tls = TlsStream()
                return tls.feed(data) or tls.finish(), []
            if kind == HTTP:
                http = HttpStream()
                return [], http.feed(data) + http.finish()
        except Malformed:
            self.malformed += 1
        return [], []


def _begin_at_message(rival: Rival) -> None:
    """Leave out the requests that are over before the difference: reading them again would cost more than a packet."""
    other = rival.other
    if identify(other, 0) != HTTP:
        return
    start = max(other.rfind(b"\n\n", 0, rival.place) + 2, other.rfind(b"\n\r\n", 0, rival.place) + 3)
    if start <= 3:
        return  # no head ends before it
    if identify(other[start:] or b"\n", 0) != HTTP:
        start = rival.place  # a body lies between: a copy of a segment mostly begins where a request does
    rival.begin_at(start)
