"""Which client contacted which name or address, when first, when last, how often: what a retro-hunt searches.

Bounded and in memory; the daemon keeps the same record on disk. URLs are not kept (they hold personal data), so an
indicator that is a URL finds nothing in the past.
"""

from __future__ import annotations

from typing import Final

from egressd.model import DNS_QUERY, FlowKey
from egressd.wire.table import RecentTable

DEFAULT_HISTORY: Final = 262_144


class Contact:
    """All contacts of one client with one name (or with one address, where no name was seen)."""

    __slots__ = ("count", "first_us", "flow", "last_us", "number", "via")

    def __init__(self, ts_us: int, number: int, flow: FlowKey, via: str) -> None:
        self.first_us = ts_us
        self.last_us = ts_us
        self.count = 1
        self.number = number
        self.flow = flow
        self.via = via


class History:
    """Bounded table of contacts. A key is (client, name) or (client, packed address)."""

    def __init__(self, limit: int) -> None:
        """`limit` bounds the pairs of client and name or address."""
        self._table: RecentTable[tuple[bytes, str | bytes], Contact] = RecentTable(limit)

    def record(self, flow: FlowKey, what: str | bytes, ts_us: int, number: int, via: str) -> None:
        """One more contact of `flow.client` with `what`."""
        key = (flow.client, what)
        contact = self._table.get(key)
        if contact is None:
            self._table.put(key, Contact(ts_us, number, flow, via))
        else:
            contact.last_us = ts_us
            if contact.via == DNS_QUERY:
                contact.via = via  # a connection says more than the question before it
                contact.flow = flow
            contact.count += 1

    def contacts(self) -> list[tuple[bytes, str | bytes, Contact]]:
        """Every contact held as (client, name or address, contact), by first time, then packet number."""
        rows = [(client, what, contact) for (client, what), contact in self._table.items()]
        rows.sort(key=lambda row: (row[2].first_us, row[2].number, row[0], str(row[1])))
        return rows

    @property
    def evicted(self) -> int:
        """Pairs forgotten because the table was full: a retro-hunt cannot find them."""
        return self._table.evicted
