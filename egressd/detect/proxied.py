"""Which conversations go by a proxy, so that the names in them are not those of the server the packets go to."""

from __future__ import annotations

from typing import Final

from egressd.model import FLOW, SOCKS_HOST, FlowKey, HttpRequest, Observation
from egressd.wire.table import RecentTable

MAX_CONVERSATIONS: Final = 65_536


class Proxied:
    """Conversations that were seen to ask for somebody else than their server, bounded."""

    def __init__(self, limit: int = MAX_CONVERSATIONS) -> None:
        self._table: RecentTable[FlowKey, bool] = RecentTable(limit)
        self._any = False  # there has been one: most networks have no proxy

    def is_direct(self, seen: Observation) -> bool:
        """Whether the packet went to the server that it names. A request to a proxy names somebody else, and so does
        all that follows in that conversation: to block the way to the proxy would cut off everything."""
        if seen.kind == FLOW:
            if self._any:
                self._table.pop(seen.flow)  # another conversation on the same ports
            return True
        detail = seen.detail
        elsewhere = seen.note == "proxied" or seen.kind == SOCKS_HOST
        if isinstance(detail, HttpRequest):  # absolute-form and CONNECT, RFC 9112 section 3.2
            elsewhere = elsewhere or not (detail.target.startswith("/") or detail.target == "*")
        if elsewhere:
            self._table.put(seen.flow, True)
            self._any = True
        return not self._any or self._table.get(seen.flow) is None
