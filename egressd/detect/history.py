"""Which client contacted which name or address, when first, when last, how often: what a retro-hunt searches.

Only contacts that matched nothing are kept: the others were told when they happened, and a retro-hunt that counted them
again would count them twice. Bounded and in memory; the daemon keeps the same record on disk. URLs are not kept (they
hold personal data), so an indicator that is a URL finds nothing in the past; nor are the names that an answer leads
through, so one is found only by those who asked for it.
"""

from __future__ import annotations

from typing import Final

from egressd.model import DNS_QUERY, FlowKey
from egressd.wire.table import RecentTable

DEFAULT_HISTORY: Final = 131_072


class Contact:
    """All contacts of one client with one name (or with one address). `server` is where it connected to for that name
    last, b"" when it only asked, or went by a proxy."""

    __slots__ = ("count", "first_us", "flow", "last_us", "number", "server", "via")

    def __init__(self, ts_us: int, number: int, flow: FlowKey, via: str) -> None:
        self.first_us = ts_us
        self.last_us = ts_us
        self.count = 0
        self.number = number
        self.flow = flow
        self.via = via
        self.server = b""


class History:
    """Bounded table of contacts. A key is (client, name) or (client, packed address)."""

    def __init__(self, limit: int) -> None:
        """`limit` bounds the pairs of client and name or address."""
        self._table: RecentTable[tuple[bytes, str | bytes], Contact] = RecentTable(limit)

    def record(
        self, flow: FlowKey, what: str | bytes, ts_us: int, number: int, via: str, new: bool = True, server: bytes = b""
    ) -> None:
        """`flow.client` contacted `what`; `new` when this is not one more sign of a contact recorded before."""
        key = (flow.client, what)
        contact = self._table.get(key)
        if contact is None:
            contact = Contact(ts_us, number, flow, via)
            self._table.add(key, contact)
        elif ts_us > contact.last_us:
            contact.last_us = ts_us
        elif ts_us < contact.first_us:
            contact.first_us = ts_us
        if via != DNS_QUERY and (contact.via == DNS_QUERY or server):
            contact.via = via  # a connection says more than the question before it
            contact.flow = flow
        if server:
            contact.server = server
        contact.count += new

    def keys(self) -> list[tuple[bytes, str | bytes]]:
        """Every (client, name or address) held, in the order of the table. As quick for many as can be."""
        return self._table.keys()

    def peek(self, client: bytes, what: str | bytes) -> Contact | None:
        """That contact; to look keeps nothing."""
        return self._table.peek((client, what))

    def contacts(self) -> list[tuple[bytes, str | bytes, Contact]]:
        """Every contact held as (client, name or address, contact), by first time, then packet number."""
        rows = [(client, what, contact) for (client, what), contact in self._table.items()]
        rows.sort(key=order_of)
        return rows

    def forget(self, client: bytes, what: str | bytes) -> None:
        """A contact was told: it will not be found again."""
        self._table.pop((client, what))

    @property
    def evicted(self) -> int:
        """Pairs forgotten because the table was full: a retro-hunt cannot find them."""
        return self._table.evicted


def order_of(row: tuple[bytes, str | bytes, Contact]) -> tuple[int, int, bytes, str]:
    """The order in which contacts are told: by first time, then packet number."""
    client, what, contact = row
    return contact.first_us, contact.number, client, what if isinstance(what, str) else what.hex()
