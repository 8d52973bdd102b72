"""TCP conversations: who opened them, which protocol they carry, and what names the client sends in them.

Content decides which parser reads a direction, never the port alone. A direction is *quiet* once nothing more can be
learned from it; quiet directions are what the prefilter throws away, and `segment` leaves them out by the same table,
so results do not depend on the prefilter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.errors import Malformed
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    REPLY,
    SOCKS_HOST,
    TCP,
    TLS_SNI,
    ClientHello,
    DnsMessage,
    FlowKey,
    HttpRequest,
    Observation,
    SocksRequest,
)
from egressd.wire.conversation import (
    DNS,
    HTTP,
    MAX_HEAD,
    MORE,
    OVER,
    TLS,
    TRIES,
    UNKNOWN,
    Conversation,
    Side,
    identify,
    new_parser,
    past_proxy_header,
)
from egressd.wire.direction import flow_of, reverse_key, sender_is_client
from egressd.wire.dns import DnsStream
from egressd.wire.frame import Frames
from egressd.wire.http import HttpStream
from egressd.wire.quiet import Quiet
from egressd.wire.socks import SocksStream
from egressd.wire.table import RecentTable
from egressd.wire.tls import TlsStream

Emit = Callable[[Observation], None]

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
ACK: Final = 16

# After the name was found, this many more client segments are compared with what was sent before (an attacker may send
# a harmless copy first), unless the server's answer shows earlier which copy it took.
SEGMENTS_AFTER: Final = 3
QUIET_US: Final = 300_000_000  # then a conversation is looked at anew; a SYN ends quiet at once
HOLE_US: Final = 3_000_000  # a missing segment that has not come by then was not captured
IDLE_ROTATE_US: Final = 300_000_000  # conversations idle for one to two of these are forgotten
SHARE: Final = 10  # one client may fill at most 1/SHARE of the table in a generation


class TcpTracker:
    """Reads TCP segments and emits FLOW, REPLY, TLS_SNI, HTTP_HOST, SOCKS_HOST and DNS observations."""

    def __init__(self, emit: Emit, limit: int) -> None:
        """`limit` bounds the conversations held at once."""
        self.quiet = Quiet(limit)
        self._emit = emit
        self._table: RecentTable[bytes, Conversation] = RecentTable(2 * limit)  # both keys of each
        self._share = max(16, limit // SHARE)
        self._opened: dict[bytes, int] = {}
        self._generation = 0
        self._rotated_us = 0
        self._ts_us = 0
        self._number = 0
        self.skipped_quiet = 0
        self.over_share = 0
        self.malformed = 0
        self.ambiguous = 0
        self.holes = 0
        self.lost_bytes = 0

    @property
    def evicted(self) -> int:
        """Conversations forgotten while they may have had more to say."""
        return self._table.evicted // 2

    def segment(self, frame: Frames, ts_us: int, number: int) -> None:
        """Take the TCP segment that `frame` has just decoded."""
        key = frame.key
        flags = frame.flags
        if not flags & (FIN | SYN | RST) and self.quiet.until.get(key, 0) > ts_us:
            self.skipped_quiet += 1
            return
        self._ts_us = ts_us
        self._number = number
        size = frame.payload_end - frame.payload_start
        conversation = self._table.get(key)
        seq = frame.seq
        if flags & SYN:
            conversation = self._opening(conversation, key, seq, flags)
            seq = (seq + 1) & 0xFFFFFFFF
        elif conversation is None:
            if size <= 0:
                return
            conversation = self._midway(key)
        from_client = key == conversation.forward
        if size > 0 and not flags & RST:
            data = frame.buf[frame.payload_start : frame.payload_end]
            self._payload(conversation, from_client, seq, data)
            if key == conversation.backward:  # content may just have told who is who
                self._replied(conversation)
            if frame.cut:
                self._lose_tail(conversation, conversation.client if from_client else conversation.server)
        if not conversation.announced:
            self._announce(conversation)
        if flags & (FIN | RST):
            self._closing(conversation, flags)

    def flush(self) -> None:
        """The capture has ended: tell what half-received messages still reveal."""
        for conversation in self._table.values():
            self._finish(conversation)

    # -- opening and closing

    def _opening(self, known: Conversation | None, key: bytes, seq: int, flags: int) -> Conversation:
        """A SYN or SYN-ACK: rule 1 of the direction rule."""
        from_server = bool(flags & ACK)
        if known is not None and known.syn_seen:
            side_is_client = key == known.forward
            if side_is_client != from_server and (from_server or known.isn == seq):
                if from_server:
                    self._replied(known)
                    if known.server.stream.next_seq < 0:
                        known.server.stream.next_seq = (seq + 1) & 0xFFFFFFFF
                return known  # the usual SYN-ACK, or a retransmitted SYN
        if known is not None:
            self._finish(known)
            self._forget(known)
        conversation = Conversation(reverse_key(key) if from_server else key, True)
        conversation.syn_seen = True
        self.quiet.end(conversation.forward)
        self.quiet.end(conversation.backward)
        if from_server:
            conversation.server.stream.next_seq = (seq + 1) & 0xFFFFFFFF
            self._announce(conversation)
            self._replied(conversation)
        else:
            conversation.isn = seq
            conversation.client.stream.next_seq = (seq + 1) & 0xFFFFFFFF
            self._announce(conversation)
        self._keep(conversation)
        return conversation

    def _midway(self, key: bytes) -> Conversation:
        """A conversation whose beginning was not captured: rules 3 to 6, until content says more."""
        flow = flow_of(TCP, key)
        conversation = Conversation(key if sender_is_client(flow) else reverse_key(key), False)
        self._keep(conversation)
        return conversation

    def _keep(self, conversation: Conversation) -> None:
        table = self._table
        if self._ts_us - self._rotated_us > IDLE_ROTATE_US:
            table.rotate()
            self._rotated_us = self._ts_us
        if table.generation != self._generation:
            self._generation = table.generation
            self._opened.clear()
        client = conversation.flow.client
        opened = self._opened.get(client, 0)
        if opened >= self._share:
            self.over_share += 1  # not kept: of this conversation only what one segment tells is seen
            return
        self._opened[client] = opened + 1
        table.put(conversation.forward, conversation)
        table.put(conversation.backward, conversation)

    def _forget(self, conversation: Conversation) -> None:
        self._table.pop(conversation.forward)
        self._table.pop(conversation.backward)

    def _announce(self, conversation: Conversation) -> None:
        conversation.announced = True
        self._emit(Observation(FLOW, self._ts_us, self._number, conversation.flow, "", "", None))

    def _replied(self, conversation: Conversation) -> None:
        if not conversation.replied:
            conversation.replied = True
            if not conversation.announced:
                self._announce(conversation)
            self._emit(Observation(REPLY, self._ts_us, self._number, conversation.flow, "", "", None))

    def _closing(self, conversation: Conversation, flags: int) -> None:
        self._finish(conversation)
        if flags & RST:
            self._forget(conversation)

    def _finish(self, conversation: Conversation) -> None:
        for side in (conversation.client, conversation.server):
            while side.stream.held and side.kind != OVER:
                self._give_up_hole(conversation, side)
            self._salvage(conversation, side)

    def _salvage(self, conversation: Conversation, side: Side) -> None:
        """What a message whose end will not come has told so far."""
        parser = side.parser
        if isinstance(parser, TlsStream):
            for hello in parser.finish():
                self._hello(conversation, side, hello, "partial")
                side.kind = OVER
        elif isinstance(parser, HttpStream):
            for request in parser.finish():
                self._request(conversation, side, request, "partial")

    # -- payload

    def _payload(self, conversation: Conversation, from_client: bool, seq: int, data: bytes) -> None:
        side = conversation.client if from_client else conversation.server
        if not from_client and conversation.sure and conversation.client.kind not in (UNKNOWN, DNS):
            self._quieten(conversation)
            return
        stream = side.stream
        if side.kind == UNKNOWN and not conversation.syn_seen and stream.next_seq >= 0:
            if stream.overtaken_by(seq, data):
                side.head = b""
                stream.window = data + stream.window
                self._consume(conversation, side, stream.window)
                return
        ready = stream.add(seq, data)
        if stream.conflict:
            self.ambiguous += 1
            self._other_copy(conversation, side, stream.conflict)
        if side.kind == OVER:
            side.since_over += 1
            if side.since_over > SEGMENTS_AFTER:
                self.quiet.begin(conversation.forward if from_client else conversation.backward, self._ts_us + QUIET_US)
            return
        if ready:
            self._consume(conversation, side, ready)
        if stream.held:
            if side.stalled_us == 0:
                side.stalled_us = self._ts_us
            elif stream.over_bound() or self._ts_us - side.stalled_us > HOLE_US:
                self._give_up_hole(conversation, side)
        else:
            side.stalled_us = 0

    def _quieten(self, conversation: Conversation) -> None:
        """The client's protocol is known and is none that answers with names: the server's side is of no interest. When
        the client's name was found too, this answer shows that it was taken."""
        until_us = self._ts_us + QUIET_US
        self.quiet.begin(conversation.backward, until_us)
        if conversation.client.kind == OVER:
            self.quiet.begin(conversation.forward, until_us)

    def _give_up_hole(self, conversation: Conversation, side: Side) -> None:
        lost = side.stream.skip_hole()
        self.holes += 1
        self.lost_bytes += lost
        side.stalled_us = 0
        if isinstance(side.parser, HttpStream) and side.parser.skip >= lost:
            side.parser.skipped(lost)  # the hole lies in a body: nothing is missed
        else:
            self._salvage(conversation, side)
            self._start_over(side)
        for ready in side.stream.drain():  # one by one: a request may begin at any of them, but not inside
            if side.kind != OVER:
                self._consume(conversation, side, ready)

    def _lose_tail(self, conversation: Conversation, side: Side) -> None:
        """The packet was captured in part: what follows in sequence is not what comes next in the buffer."""
        side.stream.next_seq = -1
        self._salvage(conversation, side)
        if side.kind != OVER:
            self._start_over(side)

    def _start_over(self, side: Side) -> None:
        if side.kind != OVER:
            side.kind = UNKNOWN
        side.parser = None
        side.head = b""

    def _consume(self, conversation: Conversation, side: Side, data: bytes) -> None:
        """Feed contiguous bytes to the side's parser; identify it first where that is still open."""
        for _ in range(
            TRIES
        ):  # each turn is another protocol inside the last (CONNECT, SOCKS): they cannot nest for ever
            if side.kind == UNKNOWN:
                data = self._identified(conversation, side, data)
                if not data:
                    return
            rest = self._feed(conversation, side, data)
            if not rest:
                return
            data = rest

    def _identified(self, conversation: Conversation, side: Side, data: bytes) -> bytes:
        """Give `side` a parser if its bytes so far tell which; returns what that parser is to read, else b""."""
        port = conversation.flow.server_port
        whole = past_proxy_header(side.head + data if side.head else data)
        kind = identify(whole, port) if whole else MORE
        if kind <= UNKNOWN and side.head:
            # A keep-alive byte or another protocol's short lines may have come first (STARTTLS): begin at this segment.
            alone = identify(data, port)
            if alone > UNKNOWN:
                kind = alone
                whole = data
        if kind == MORE and len(whole) < MAX_HEAD:
            side.head = whole
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

    def _feed(self, conversation: Conversation, side: Side, data: bytes) -> bytes:
        """One parser's turn; returns the bytes that belong to another protocol, b"" when there are none."""
        parser = side.parser
        try:
            if isinstance(parser, TlsStream):
                for hello in parser.feed(data):
                    self._hello(conversation, side, hello, "")
                if parser.server_side and not conversation.sure:
                    self._decide(conversation, side, False)
            elif isinstance(parser, HttpStream):
                if parser.skip >= len(data):
                    parser.skipped(len(data))
                else:
                    for request in parser.feed(data):
                        self._request(conversation, side, request, "")
                    if parser.failed:
                        raise Malformed(parser.failed)
            elif isinstance(parser, DnsStream):
                for message in parser.feed(data):
                    self._dns(conversation, side, message)
            elif isinstance(parser, SocksStream):
                for asked in parser.feed(data):
                    self._socks(conversation, side, asked)
        except Malformed:
            self.malformed += 1
            side.tries -= 1
            side.kind = UNKNOWN if side.tries > 0 else OVER
            side.parser = None
            return b""
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

    def _other_copy(self, conversation: Conversation, side: Side, data: bytes) -> None:
        """Read the copy that lost: a name in it counts too, marked as ambiguous."""
        kind = identify(data, 0)
        try:
            if kind == TLS:
                for hello in TlsStream().feed(data):
                    self._hello(conversation, side, hello, "ambiguous")
            elif kind == HTTP:
                for request in HttpStream().feed(data):
                    self._request(conversation, side, request, "ambiguous")
        except Malformed:
            self.malformed += 1

    # -- what was found

    def _decide(self, conversation: Conversation, side: Side, is_client: bool) -> FlowKey:
        """Rule 2 of the direction rule: `side` sent what only a client (or only a server) sends. Returns the flow as
        its client sees it; a request from the side that took the SYN (a back door) has that side as client."""
        if not conversation.sure:
            conversation.sure = True
            if (side is conversation.client) != is_client:
                conversation.turn_round()
        if not conversation.announced:
            self._announce(conversation)
        if (side is conversation.client) != is_client:
            return flow_of(TCP, conversation.backward)
        return conversation.flow

    def _hello(self, conversation: Conversation, side: Side, hello: ClientHello, note: str) -> None:
        flow = self._decide(conversation, side, True)
        self._tell(TLS_SNI, flow, hello.sni, hello.raw_sni, hello, note or _proxied(side))

    def _request(self, conversation: Conversation, side: Side, request: HttpRequest, note: str) -> None:
        flow = self._decide(conversation, side, True)
        self._tell(HTTP_HOST, flow, request.host, request.raw_host, request, note or _proxied(side))
        if request.method == "CONNECT":
            side.proxied = True

    def _socks(self, conversation: Conversation, side: Side, asked: SocksRequest) -> None:
        flow = self._decide(conversation, side, True)
        self._tell(SOCKS_HOST, flow, asked.host, asked.raw_host, asked, "")
        side.proxied = True

    def _dns(self, conversation: Conversation, side: Side, message: DnsMessage) -> None:
        flow = self._decide(conversation, side, not message.is_response)
        name, raw_name = (message.questions[0][0], message.questions[0][1]) if message.questions else ("", "")
        self._tell(DNS_ANSWER if message.is_response else DNS_QUERY, flow, name, raw_name, message, "")

    def _tell(
        self,
        kind: str,
        flow: FlowKey,
        name: str,
        raw_name: str,
        detail: DnsMessage | HttpRequest | ClientHello | SocksRequest,
        note: str,
    ) -> None:
        self._emit(Observation(kind, self._ts_us, self._number, flow, name, raw_name, detail, 0, note))


def _proxied(side: Side) -> str:
    return "proxied" if side.proxied else ""
