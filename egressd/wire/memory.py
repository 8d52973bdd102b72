"""How many bytes of unfinished messages are kept, for all conversations together and for each sender.

A direction alone is bounded by its stream and its parser (some 64 KB each). Tens of thousands of conversations that
stop half-way would still fill any memory, so their sum is bounded too, and one sender gets an eighth of it, an IPv6
network of 64 bits (in which a host has as many addresses as it likes) a half. Who is over gives up what it has: what is
whole in it is told, and the next request is found again. Bytes kept only to compare with retransmissions have a bound
of their own; beyond it they are let go at once, and two copies that differ go unnoticed.
"""

from __future__ import annotations

from typing import Final

from egressd.wire.conversation import Conversation, Side

MAX_WAITING_BYTES: Final = 32 << 20
MAX_SENDER_BYTES: Final = MAX_WAITING_BYTES // 8
# What nobody has answered yet: at a round trip of a tenth of a second 4,000 hellos are what 40,000 new connections a
# second leave, which is more than one process reads.
MAX_COMPARED_BYTES: Final = MAX_WAITING_BYTES // 4


class Memory:
    """Accounts of bytes kept. `given_up` counts the directions that had to let go of unfinished messages."""

    def __init__(self, waiting: int = MAX_WAITING_BYTES, sender: int = MAX_SENDER_BYTES) -> None:
        """Bounds of unfinished messages; a quarter of the first is what may be kept to compare with."""
        self._limit = waiting
        self._sender_limit = sender
        self._compared_limit = waiting // 4
        self.waiting = 0
        self.compared = 0
        self.given_up = 0
        self._network_limit = waiting // 2
        self._by_sender: dict[bytes, int] = {}  # and by the first 8 bytes of IPv6 ones: a host has many addresses

    def settle(self, conversation: Conversation, side: Side) -> bool:
        """Account for what `side` keeps now. False when that is more than it may: the caller gives it up and settles
        again."""
        compared = len(side.window)
        if compared != side.compared:
            self.compared += compared - side.compared
            side.compared = compared
            if self.compared > self._compared_limit:
                side.window = b""
                self.compared -= compared
                side.compared = 0
        waiting = side.held_bytes
        parser = side.parser
        if parser is not None:
            waiting += parser.buffered()
        change = waiting - side.waiting
        if change == 0:
            return True
        is_over_share = self._add(conversation, side, change)
        if change > 0 and (self.waiting > self._limit or is_over_share):
            self.given_up += 1
            return False
        return True

    def release(self, conversation: Conversation) -> None:
        """The conversation is over; what is kept of it goes with it, as soon as what was put off is read."""
        for side in conversation.sides():
            self.compared -= side.compared
            side.compared = 0
            if side.waiting:
                self._add(conversation, side, -side.waiting)

    def _add(self, conversation: Conversation, side: Side, change: int) -> bool:
        """Put `change` on the accounts; returns whether the sender has more than its share. Who sent a direction's
        bytes stays the same when it turns out that the other side is the client."""
        key = conversation.forward if side is conversation.client else conversation.backward
        sender = key[:4] if len(key) == 12 else key[:16]
        side.waiting += change
        self.waiting += change
        is_over = self._put(sender, change) > self._sender_limit
        if len(sender) == 16:
            is_over = self._put(sender[:8], change) > self._network_limit or is_over
        return is_over

    def _put(self, sender: bytes, change: int) -> int:
        before = self._by_sender.get(sender, 0)
        total = before + change
        if total > 0:
            self._by_sender[sender] = total
        elif before:
            del self._by_sender[sender]
        return total
