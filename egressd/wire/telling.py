"""What is told of a TCP conversation: observations, each with the right side as client.

Content is the second rule of who the client is (wire/direction.py), so telling what was read and deciding that are one.
"""

from __future__ import annotations

from collections.abc import Callable

from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    EARLIER,
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
from egressd.wire.conversation import Conversation, Side
from egressd.wire.direction import flow_of

Emit = Callable[[Observation], None]


class Teller:
    """Emits the observations of TCP. `ts_us` and `number` are those of the packet at hand; `told` counts what content
    has told since it was last set to 0. `incoming` and `is_carried` are of what is emitted, as a Side has them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.ts_us = 0
        self.number = 0
        self.told = 0
        self.incoming = False
        self.is_carried = False

    def announce(self, conversation: Conversation) -> None:
        """The client has sent something: FLOW, and REPLY if it was answered before that was seen."""
        conversation.announced = True
        self._emit(Observation(FLOW, self.ts_us, self.number, conversation.flow, "", "", None))
        if conversation.replied:
            server = conversation.answering()
            note = "" if server is not None and server.incoming else EARLIER
            self._emit(Observation(REPLY, self.ts_us, self.number, conversation.flow, "", "", None, 0, note))

    def replied(self, conversation: Conversation) -> None:
        """The server has sent something: REPLY, the first time, but nothing as long as its client is not seen to send:
        anybody can send a host what looks like an answer, under any address."""
        if not conversation.replied:
            conversation.replied = True
            if conversation.announced:
                self._emit(Observation(REPLY, self.ts_us, self.number, conversation.flow, "", "", None))
            elif self.incoming:
                conversation.server.incoming = True

    def decide(self, conversation: Conversation, side: Side, is_client: bool) -> FlowKey:
        """Rule 2 of the direction rule: `side` sent what only a client (or only a server) sends. Returns the flow as
        its client sees it; a request from the side that took the SYN (a back door) has that side as client."""
        if not conversation.sure:
            conversation.sure = True
            if (side is conversation.client) != is_client:
                conversation.turn_round()
        if is_client and not conversation.announced and side is conversation.client:
            self.announce(conversation)
        if (side is conversation.client) != is_client:
            return flow_of(TCP, conversation.backward)
        return conversation.flow

    def hello(self, conversation: Conversation, side: Side, hello: ClientHello, note: str) -> None:
        """`side` sent a ClientHello."""
        flow = self._flow(conversation, side)
        if side.proxied and not note:
            note = "proxied"
        self._tells(side)
        self._emit(Observation(TLS_SNI, self.ts_us, self.number, flow, hello.sni, hello.raw_sni, hello, 0, note))

    def request(self, conversation: Conversation, side: Side, request: HttpRequest, note: str) -> None:
        """`side` sent a request of HTTP."""
        flow = self._flow(conversation, side)
        if side.proxied and not note:
            note = "proxied"
        self._tells(side)
        self._emit(
            Observation(HTTP_HOST, self.ts_us, self.number, flow, request.host, request.raw_host, request, 0, note)
        )
        if request.method == "CONNECT":
            side.proxied = True

    def socks(self, conversation: Conversation, side: Side, asked: SocksRequest) -> None:
        """`side` sent a request of SOCKS."""
        flow = self._flow(conversation, side)
        self._tells(side)
        self._emit(Observation(SOCKS_HOST, self.ts_us, self.number, flow, asked.host, asked.raw_host, asked))
        side.proxied = True

    def dns(self, conversation: Conversation, side: Side, message: DnsMessage) -> None:
        """`side` sent a message of DNS."""
        flow = self.decide(conversation, side, not message.is_response)
        name = raw_name = ""
        if message.questions:
            question = message.questions[0]
            name = question.name
            raw_name = question.raw_name
        kind = DNS_ANSWER if message.is_response else DNS_QUERY
        self._tells(side)
        self._emit(Observation(kind, self.ts_us, self.number, flow, name, raw_name, message))

    def _tells(self, side: Side) -> None:
        self.told += 1
        self.incoming = side.incoming
        self.is_carried = side.is_carried

    def _flow(self, conversation: Conversation, side: Side) -> FlowKey:
        """The flow of what only a client sends."""
        if side is conversation.client and conversation.sure and conversation.announced:
            return conversation.flow  # nearly always
        return self.decide(conversation, side, True)
