"""What is one contact. A contact may show itself many times: a question for A and one for AAAA, a SYN, the ClientHello
after it. Each conversation counts once for what it reaches; every further HTTP request in it is a contact of its own.
A question repeated within a second (A beside AAAA, an eager stub) counts once, and so does one that is sent again.
"""

from __future__ import annotations

from typing import Final

from egressd.model import HTTP_HOST, TCP, FlowKey
from egressd.native import mypyc_attr
from egressd.wire.table import RecentTable

SAME_QUESTION_US: Final = 1_000_000
# A conversation that begins again on the same ports is a new one, unless it is a SYN sent again: the longest pause
# between two of them is 32 s (RFC 6298 section 5.5, six tries).
SAME_CONNECTION_US: Final = 35_000_000
# Destinations remembered of one conversation: with a proxy there is one conversation for all of them.
MAX_REACHED: Final = 64


@mypyc_attr(acyclic=True)
class _Conversation:
    """What a conversation was counted for: nearly always one destination, `reached`. `requests` are those to it,
    `others` the further destinations with theirs, None as long as there are none."""

    __slots__ = ("begun_us", "others", "reached", "requests")

    def __init__(self, begun_us: int, reached: str, requests: int) -> None:
        self.begun_us = begun_us
        self.reached = reached
        self.requests = requests
        self.others: dict[str, int] | None = None


class Contacts:
    """Tells a new contact from one more sign of the same, in bounded memory."""

    def __init__(self, limit: int = 32_768) -> None:
        """`limit` bounds the conversations, and the questions, that are remembered."""
        self._conversations: RecentTable[FlowKey, _Conversation] = RecentTable(limit)
        self._questions: RecentTable[bytes, int] = RecentTable(limit)
        self._begun: FlowKey | None = None  # the conversation that began last, as long as it was counted for nothing

    def begins(self, flow: FlowKey, ts_us: int) -> None:
        """The first packet of a conversation: what was counted for an earlier one on the same ports is over. TCP's
        tracker knows a SYN that is sent again by its number; of UDP only a pause tells."""
        before = self._conversations.get(flow)
        if before is not None:
            if flow.proto != TCP and ts_us - before.begun_us <= SAME_CONNECTION_US:
                return
            self._conversations.pop(flow)
        self._begun = flow

    def knows(self, flow: FlowKey, ts_us: int) -> bool:
        """Whether a packet of `flow` that somebody else tells of belongs to a conversation that was counted: its SYN,
        or that sent again, perhaps for minutes."""
        conversation = self._conversations.get(flow)
        if conversation is None or ts_us - conversation.begun_us > SAME_CONNECTION_US:
            return False
        conversation.begun_us = max(conversation.begun_us, ts_us)
        return True

    def is_new(self, kind: str, flow: FlowKey, reached: str, ts_us: int) -> bool:
        """Whether an observation of `kind` is the first sign of a contact with `reached`; it is remembered. `reached`
        is any name for the destination, such as its registered domain."""
        is_request = kind == HTTP_HOST
        conversation = None if flow is self._begun else self._conversations.get(flow)
        if conversation is None:
            self._begun = None
            self._conversations.add(flow, _Conversation(ts_us, reached, int(is_request)))
            return True
        if reached == conversation.reached:
            requests = conversation.requests
            conversation.requests = requests + is_request
            return is_request and requests > 0
        others = conversation.others
        if others is None:
            others = conversation.others = {}
        before = others.get(reached)
        if before is None:
            if len(others) >= MAX_REACHED:
                others.clear()
            others[reached] = int(is_request)
            return True
        others[reached] = before + is_request
        return is_request and before > 0

    def is_new_question(self, client: bytes, name: str, ts_us: int, again: bool) -> bool:
        """Whether a question for `name` is a contact not counted yet; `again` when it is the same message once more."""
        key = _question(client, name)
        before_us = self._questions.get(key)
        if again and before_us is not None:
            return False
        if before_us is not None and 0 <= ts_us - before_us <= SAME_QUESTION_US:
            return False
        self._questions.add(key, ts_us)
        return True

    def was_asked(self, client: bytes, name: str, ts_us: int, within_us: int) -> bool:
        """Whether a question for `name` was counted so shortly before that an answer at `ts_us` belongs to it."""
        before_us = self._questions.peek(_question(client, name))
        return before_us is not None and abs(ts_us - before_us) <= within_us


def _question(client: bytes, name: str) -> bytes:
    """A client and a name as one key, a third of what a tuple takes: no name has a slash in it, so that no two pairs
    make the same."""
    return client + b"/" + name.encode()
