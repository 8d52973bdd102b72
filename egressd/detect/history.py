"""Which client contacted which name or address, when first, when last, how often: what a retro-hunt searches.

Only contacts that matched nothing are kept: the others were told when they happened, and a retro-hunt that counted them
again would count them twice. Bounded and in memory; the daemon keeps the same record on disk. URLs are not kept (they
hold personal data), so an indicator that is a URL finds nothing in the past; nor are the names that an answer leads
through, so one is found only by those who asked for it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressd.model import DNS_QUERY, FlowKey
from egressd.native import mypyc_attr
from egressd.wire.table import RecentTable

DEFAULT_HISTORY: Final = 131_072


class PastContact(NamedTuple):
    """Contacts of `flow.client` with a name, or with an address when `name` is "". Of a name, `address` is where the
    client connected to for it last, b"" when it only asked, or went by a proxy. A flow that nobody remembers has
    protocol and ports 0."""

    flow: FlowKey
    name: str
    address: bytes
    via: str
    contacts: int
    first_us: int
    last_us: int


@mypyc_attr(acyclic=True)
class Contact:
    """All contacts of one client with one name (or with one address). `server` is where it connected to for that name
    last, b"" when it only asked, or went by a proxy. `told` has how often each sensor told of it, None while our own
    tap is the only one: who sees most sees all, as far as that can be told."""

    __slots__ = ("count", "first_us", "flow", "last_us", "number", "server", "told", "via")

    def __init__(self, ts_us: int, number: int, flow: FlowKey, via: str) -> None:
        self.first_us = ts_us
        self.last_us = ts_us
        self.count = 0
        self.number = number
        self.flow = flow
        self.via = via
        self.server = b""
        self.told: dict[str, int] | None = None

    def tell(self, sensor: str, new: bool) -> None:
        """A sensor, "" for our own tap, tells of it."""
        if self.told is None:
            self.told = {"": self.count}
        self.told[sensor] = self.told.get(sensor, 0) + new
        self.count = max(self.told.values())


class History:
    """Bounded table of contacts. A key is (client, name) or (client, packed address)."""

    def __init__(self, limit: int) -> None:
        """`limit` bounds the pairs of client and name or address."""
        self._table: RecentTable[tuple[bytes, str | bytes], Contact] = RecentTable(limit)

    def record(
        self, flow: FlowKey, what: str | bytes, ts_us: int, number: int, via: str, new: bool = True,
        server: bytes = b"", sensor: str = "",
    ) -> None:  # fmt: skip
        """`flow.client` contacted `what`; `new` when this is not one more sign of a contact recorded before, as far as
        that `sensor` knows."""
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
        if sensor or contact.told is not None:
            contact.tell(sensor, new)
        else:
            contact.count += new

    def contacts(self) -> list[tuple[bytes, str | bytes, Contact]]:
        """Every contact held as (client, name or address, contact), by first time, then packet number."""
        rows = [(client, what, contact) for (client, what), contact in self._table.items()]
        rows.sort(key=_order)
        return rows

    def rows(self) -> list[PastContact]:
        """Every contact held, in the same order: for a retro-hunt."""
        return [_past(what, contact) for _, what, contact in self.contacts()]

    def holds(self, row: PastContact) -> bool:
        """Whether that contact was not told yet."""
        return self._table.peek((row.flow.client, row.name or row.address)) is not None

    def forget(self, row: PastContact) -> None:
        """A contact was told: it will not be found again."""
        self._table.pop((row.flow.client, row.name or row.address))

    @property
    def evicted(self) -> int:
        """Pairs forgotten because the table was full: a retro-hunt cannot find them."""
        return self._table.evicted


def _past(what: str | bytes, contact: Contact) -> PastContact:
    name = what if isinstance(what, str) else ""
    address = contact.server if isinstance(what, str) else what
    return PastContact(
        contact.flow, name, address, contact.via, contact.count, contact.first_us, contact.last_us
    )  # fmt: skip


def _order(row: tuple[bytes, str | bytes, Contact]) -> tuple[int, int, bytes, str]:
    client, what, contact = row
    return contact.first_us, contact.number, client, what if isinstance(what, str) else what.hex()
