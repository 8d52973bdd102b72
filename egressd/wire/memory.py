"""How many bytes of unfinished messages are kept, for all conversations together and for each client.

A direction alone is bounded by its stream and its parser (some 64 KB each). Tens of thousands of conversations that
stop half-way would still fill any memory, so their sum is bounded too, and one client gets an eighth of it. Who is over
gives up what it has: what is whole in it is told, and the next request is found again. Bytes kept only to compare with
retransmissions have a bound of their own; beyond it they are let go at once, and two copies that differ go unnoticed.
"""

from __future__ import annotations

from typing import Final

from egressd.wire.conversation import Conversation, Side
from egressd.wire.dns import DnsStream
from egressd.wire.http import HttpStream
from egressd.wire.tls import TlsStream

MAX_WAITING_BYTES: Final = 32 << 20
MAX_CLIENT_BYTES: Final = MAX_WAITING_BYTES // 8
MAX_COMPARED_BYTES: Final = 16 << 20


class Memory:
    """Accounts of bytes kept. `given_up` counts the directions that had to let go of unfinished messages."""

    def __init__(self, waiting: int = MAX_WAITING_BYTES, client: int = MAX_CLIENT_BYTES) -> None:
        self._limit = waiting
        self._client_limit = client
        self.waiting = 0
        self.compared = 0
        self.given_up = 0
        self._by_client: dict[bytes, int] = {}

    def settle(self, conversation: Conversation, side: Side) -> bool:
        """Account for what `side` keeps now. False when that is more than it may: the caller gives it up and settles
        again."""
        stream = side.stream
        compared = len(stream.window)
        if compared != side.compared:
            self.compared += compared - side.compared
            side.compared = compared
            if self.compared > MAX_COMPARED_BYTES:
                stream.window = b""
                self.compared -= compared
                side.compared = 0
        waiting = stream.held_bytes
        parser = side.parser
        if isinstance(parser, HttpStream | TlsStream | DnsStream):
            waiting += parser.buffered()
        if waiting == side.waiting:
            return True
        client = conversation.forward[:4] if len(conversation.forward) == 12 else conversation.forward[:16]
        change = waiting - side.waiting
        side.waiting = waiting
        self.waiting += change
        total = self._by_client.get(client, 0) + change
        if total > 0:
            self._by_client[client] = total
        else:
            self._by_client.pop(client, None)
        if change > 0 and (self.waiting > self._limit or total > self._client_limit):
            self.given_up += 1
            return False
        return True

    def release(self, conversation: Conversation) -> None:
        """The conversation is over: nothing of it is kept."""
        for side in (conversation.client, conversation.server):
            side.stream.let_go()
            side.parser = None
            self.settle(conversation, side)
