"""Who resolved what: our own passive DNS, bounded.

Three questions are answered from it. Does an answer match a question that this client asked (evidence level E2,
DESIGN section 6)? Which other registered domains live on an address (co-tenants: a shared address is never blocked)?
Which name did this client resolve to reach this address (so that a connection without a name has one)?
"""

from __future__ import annotations

from typing import Final

from egressd.model import FlowKey, Observation
from egressd.names import Suffixes
from egressd.wire.table import RecentTable

ANSWER_WITHIN_US: Final = 10_000_000  # stub resolvers give up after 5 s, one retry
ATTRIBUTE_WITHIN_US: Final = 3_600_000_000  # how long a client is assumed to use an address it resolved
TENANT_WITHIN_US: Final = 86_400_000_000  # "seen on it in the last day", DESIGN section 6
MAX_TENANTS: Final = 32  # per address; more would not change a verdict


class Resolutions:
    """Bounded passive DNS by packet time."""

    def __init__(self, suffixes: Suffixes, limit: int = 65_536) -> None:
        """`limit` bounds the outstanding questions, the addresses and the (client, address) pairs, each."""
        self._suffixes = suffixes
        self._asked: RecentTable[tuple[FlowKey, int], tuple[str, int]] = RecentTable(limit)
        self._tenants: RecentTable[bytes, dict[str, int]] = RecentTable(limit)
        self._reached: RecentTable[tuple[bytes, bytes], tuple[str, int]] = RecentTable(limit)

    def asked(self, question: Observation, txid: int) -> None:
        """A client asked a question."""
        self._asked.put((question.flow, txid), (question.name, question.ts_us))

    def was_asked(self, answer: Observation, txid: int) -> bool:
        """Whether `answer` matches an outstanding question: same client and port, server, transaction id and name."""
        asked = self._asked.get((answer.flow, txid))
        return asked is not None and asked[0] == answer.name and answer.ts_us - asked[1] <= ANSWER_WITHIN_US

    def learn(self, client: bytes, name: str, address: bytes, ts_us: int) -> None:
        """`client` was told, or showed by SNI or Host, that `name` is at `address`."""
        self._reached.put((client, address), (name, ts_us))
        domain = self._suffixes.registered_domain(name) or name
        tenants = self._tenants.get(address)
        if tenants is None:
            self._tenants.put(address, {domain: ts_us})
        elif domain in tenants or len(tenants) < MAX_TENANTS:
            tenants[domain] = ts_us

    def co_tenants(self, address: bytes, domains: frozenset[str], ts_us: int) -> list[str]:
        """Registered domains other than `domains` seen on `address` within the last day, in order of first sight."""
        tenants = self._tenants.get(address)
        if tenants is None:
            return []
        return [d for d, seen_us in tenants.items() if d not in domains and ts_us - seen_us <= TENANT_WITHIN_US]

    def name_for(self, client: bytes, address: bytes, ts_us: int) -> str:
        """The name that `client` resolved last to reach `address`, or "" when none is recent."""
        reached = self._reached.get((client, address))
        if reached is None or ts_us - reached[1] > ATTRIBUTE_WITHIN_US:
            return ""
        return reached[0]

    @property
    def evicted(self) -> int:
        """Entries forgotten because a table was full."""
        return self._asked.evicted + self._tenants.evicted + self._reached.evicted
