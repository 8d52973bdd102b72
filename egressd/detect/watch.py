"""The watch: what still tries to reach a blocked target, per client (DESIGN section 7).

One contact may show itself many times: a SYN, its retransmissions, the ClientHello in it. Each conversation counts
once; every further HTTP request in it is a contact of its own. A question repeated within a second (A beside AAAA, an
eager stub) counts once.
"""

from __future__ import annotations

from typing import Final

from egressd.detect.blocks import Block
from egressd.model import DNS_ANSWER, DNS_QUERY, HTTP_HOST, Attempt, FlowKey, Sighting
from egressd.wire.table import RecentTable

SAME_QUESTION_US: Final = 1_000_000
MAX_CLIENTS: Final = 65_536  # per watch; more are counted in `uncounted`


class ClientWatch:
    """One client's attempts at one blocked target."""

    __slots__ = ("count", "first_us", "last_us", "leaks")

    def __init__(self, ts_us: int) -> None:
        self.first_us = ts_us
        self.last_us = ts_us
        self.count = 0
        self.leaks = 0


class Watch:
    """Counts contacts once and collects the attempts at each block."""

    def __init__(self, enforced: bool, limit: int = 65_536) -> None:
        """`enforced`: blocks are in the kernel, so an answer is a leak. `limit` bounds the conversations remembered."""
        self._enforced = enforced
        self._conversations: RecentTable[tuple[FlowKey, str], int] = RecentTable(limit)
        self._questions: RecentTable[tuple[bytes, str], int] = RecentTable(limit)
        self._tried: RecentTable[FlowKey, Attempt] = RecentTable(limit)
        self.by_block: dict[str, dict[bytes, ClientWatch]] = {}
        self.uncounted = 0

    def is_new_contact(self, sighting: Sighting) -> bool:
        """Whether this sighting is a contact not counted yet."""
        if sighting.via in (DNS_QUERY, DNS_ANSWER):
            key = (sighting.flow.client, sighting.name)
            before_us = self._questions.get(key)
            if before_us is not None and 0 <= sighting.ts_us - before_us <= SAME_QUESTION_US:
                return False
            self._questions.put(key, sighting.ts_us)
            return True
        place = (sighting.flow, sighting.match.registered_domain)
        requests = self._conversations.get(place)
        is_request = sighting.via == HTTP_HOST
        self._conversations.put(place, (requests or 0) + is_request)
        return requests is None or (is_request and requests > 0)

    def attempt(self, block: Block, sighting: Sighting) -> Attempt:
        """A contact with a blocked target."""
        clients = self.by_block.setdefault(block.id, {})
        client = sighting.flow.client
        watch = clients.get(client)
        first = watch is None
        if watch is None:
            watch = ClientWatch(sighting.ts_us)
            if len(clients) < MAX_CLIENTS:
                clients[client] = watch
            else:
                self.uncounted += 1
        watch.count += 1
        watch.last_us = sighting.ts_us
        tried = Attempt(
            ts_us=sighting.ts_us,
            number=sighting.number,
            flow=sighting.flow,
            name=sighting.name,
            via=sighting.via,
            decision_id=block.id,
            target=block.target,
            match=sighting.match,
            first=first,
            count=watch.count,
            leak=False,
            campaign=sighting.campaign,
            incident=sighting.incident,
        )
        if sighting.via not in (DNS_QUERY, DNS_ANSWER):
            self._tried.put(sighting.flow, tried)
        return tried

    def answered(self, flow: FlowKey, ts_us: int, number: int) -> Attempt | None:
        """The server of `flow` answered. Where blocks are enforced and this was an attempt, that is a leak."""
        tried = self._tried.get(flow)
        if tried is None or tried.leak or not self._enforced:
            return None
        tried.leak = True
        watch = self.by_block[tried.decision_id].get(flow.client)
        if watch is not None:
            watch.leaks += 1
        return Attempt(
            ts_us, number, flow, tried.name, tried.via, tried.decision_id, tried.target, tried.match, False,
            tried.count, True, tried.campaign, tried.incident,
        )  # fmt: skip
