"""What a retro-hunt asks of history: contacts that were not told yet, page by page, and the mark that they were.

A page ends where the next one begins (`Mark`), so that a hunt can rest between pages, and goes on however much is
written meanwhile. Every function runs inside `Database.read` or `run_large`.
A `+` before a column keeps SQLite from its index, which would find more rows than that of the other condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import Final, NamedTuple

from egressd.store.records import bounded
from egressd.store.variables import marks
from egressd.units import HOUR_US

PAGE_ROWS: Final = 2_000


class Mark(NamedTuple):
    """After which row a page begins: of a name's number, a client and an address. The first page begins at START."""

    name: int
    client: bytes
    address: bytes


START: Final = Mark(-1, b"", b"")


class Untold(NamedTuple):
    """Contacts of a client with a name at an address that nobody was told of. `name` is "" for an address alone."""

    mark: Mark
    name: str
    contacts: int
    first_us: int
    last_us: int


_SPAN: Final = f"{bounded('min(c.first_us)')}, {bounded('max(c.last_us)')}"
_COLUMNS: Final = (
    f"SELECT n.id, c.client, c.address, n.name, {bounded('total(c.count - c.told)')}, {_SPAN}"
    " FROM names n JOIN contacts c ON c.name = n.id WHERE c.count > c.told AND "
)
_AFTER: Final = " AND (n.id, c.client, c.address) > (?, ?, ?)"
_PAGE: Final = " GROUP BY n.id, c.client, c.address ORDER BY n.id, c.client, c.address LIMIT ?"

_OF_MARK: Final = "name = ? AND client = ? AND address = ?"
_UNTOLD_HOURS: Final = (
    f"SELECT hour, {bounded('count - told')} FROM contacts WHERE {_OF_MARK} AND count > told ORDER BY hour"
)
_TOLD_IN_HOUR: Final = f"UPDATE contacts SET told = iif(?, count, told + ?) WHERE {_OF_MARK} AND hour = ?"


def untold_of_domains(
    connection: Connection, domains: Sequence[str], after: Mark = START, limit: int = PAGE_ROWS
) -> list[Untold]:
    """Contacts with any name of these registered domains; a few hundred domains at a time (SQLite's variables)."""
    return _page(connection, f"n.registered_domain IN ({marks(domains)})", domains, after, limit)


def untold_below(connection: Connection, suffix: str, after: Mark = START, limit: int = PAGE_ROWS) -> list[Untold]:
    """Contacts with any name of a registered domain right below a public suffix. Reads every name there is."""
    return _page(connection, "+n.registered_domain GLOB ?", (f"*.{suffix}",), after, limit)


def untold_of_addresses(
    connection: Connection, low: bytes, high: bytes, after: Mark = START, limit: int = PAGE_ROWS
) -> list[Untold]:
    """Connections to the addresses from `low` to `high`, of one family, for which no name was known."""
    which = "c.address BETWEEN ? AND ? AND length(c.address) = ? AND +n.name = ''"
    return _page(connection, which, (low, high, len(low)), after, limit)


def untold_at_addresses(
    connection: Connection, low: bytes, high: bytes, after: Mark = START, limit: int = PAGE_ROWS
) -> list[Untold]:
    """Contacts at the addresses from `low` to `high`, of one family, whatever name they were for."""
    return _page(connection, "c.address BETWEEN ? AND ? AND length(c.address) = ?", (low, high, len(low)), after, limit)


def untold_of_clients(
    connection: Connection, low: bytes, high: bytes, after: Mark = START, limit: int = PAGE_ROWS
) -> list[Untold]:
    """Every contact of the clients from `low` to `high`, of one family."""
    return _page(connection, "c.client BETWEEN ? AND ? AND length(c.client) = ?", (low, high, len(low)), after, limit)


def _page(
    connection: Connection, which: str, values: Sequence[str | bytes | int], after: Mark, limit: int
) -> list[Untold]:
    rows = connection.execute(_COLUMNS + which + _AFTER + _PAGE, (*values, *after, limit))
    return [Untold(Mark(*row[:3]), *row[3:]) for row in rows]


def mark_told(connection: Connection, rows: Iterable[Untold]) -> None:
    """These were told, so many contacts each; what was added to them since, to whichever hour, was not. The oldest
    hours are taken for those that were told; by their number alone, for a time may be damaged."""
    for row in rows:
        left = row.contacts
        hours = connection.execute(_UNTOLD_HOURS, row.mark).fetchall()
        for hour, untold in hours:
            connection.execute(_TOLD_IN_HOUR, (untold <= left, left, *row.mark, hour))
            left -= min(untold, left)
            if not left:
                break


def domains_after(connection: Connection, number: int, limit: int = PAGE_ROWS) -> list[tuple[int, str, str]]:
    """(number, name, registered domain) of names that anybody contacted, in order of their numbers."""
    rows = connection.execute(
        "SELECT id, name, registered_domain FROM names WHERE id > ? ORDER BY id LIMIT ?", (number, limit)
    )
    return rows.fetchall()


def addresses_after(connection: Connection, address: bytes, limit: int = PAGE_ROWS) -> list[bytes]:
    """Addresses that anybody connected to, in order. One step in the index for each, however often it was contacted."""
    rows = connection.execute(
        "WITH RECURSIVE next(address) AS (SELECT min(address) FROM contacts WHERE address > ? UNION ALL"
        " SELECT (SELECT min(address) FROM contacts WHERE address > next.address) FROM next WHERE address IS NOT NULL)"
        " SELECT address FROM next WHERE address IS NOT NULL LIMIT ?",
        (address, limit),
    )
    return [row[0] for row in rows]


# Every client as `next`, NULL the last: one step in the index for each, however much it contacted.
_CLIENTS: Final = (
    "WITH RECURSIVE next(client) AS (SELECT min(client) FROM contacts UNION ALL"
    " SELECT (SELECT min(client) FROM contacts WHERE client > next.client) FROM next WHERE client IS NOT NULL) "
)


def hosts_seen(connection: Connection, since_us: int) -> int:
    """How many clients contacted anything since a time; those of whom nothing is known since then are few, and counted
    by one step in the index each."""
    row = connection.execute(
        _CLIENTS + "SELECT count(*) FROM next WHERE client IS NOT NULL"
        " AND EXISTS(SELECT 1 FROM contacts c WHERE c.client = next.client AND +c.hour >= ? AND c.last_us >= ?)",
        (since_us // HOUR_US, since_us),
    ).fetchone()
    return int(row[0])


def clients_known(connection: Connection, limit: int) -> tuple[list[bytes], int]:
    """Clients that contacted anything, found by a step in the index each; and since when any is known, 0: none."""
    rows = connection.execute(
        _CLIENTS + "SELECT client FROM next WHERE client IS NOT NULL LIMIT ?",
        (limit,),
    )
    clients = [row[0] for row in rows]
    hour = connection.execute("SELECT min(hour) FROM contacts").fetchone()[0] or 0
    return clients, hour * HOUR_US


class Hit(NamedTuple):
    """All contacts of a client with a name at an address within a time, told or not."""

    client: bytes
    name: str
    address: bytes
    contacts: int
    first_us: int
    last_us: int


_HITS: Final = (
    f"SELECT c.client, n.name, c.address, {bounded('total(c.count)')}, {_SPAN}"
    " FROM names n JOIN contacts c ON c.name = n.id WHERE +c.hour >= ? AND c.last_us >= ? AND "
)
_BY_WHOM: Final = " GROUP BY n.id, c.client, c.address ORDER BY n.id, c.client, c.address LIMIT ?"


def hits_of_domains(connection: Connection, domains: Sequence[str], since_us: int, limit: int) -> list[Hit]:
    """Who contacted any name of these registered domains since a time; a few hundred domains at a time."""
    which = f"n.registered_domain IN ({marks(domains)})"
    rows = connection.execute(_HITS + which + _BY_WHOM, (since_us // HOUR_US, since_us, *domains, limit))
    return [Hit(*row) for row in rows]


def hits_of_addresses(connection: Connection, low: bytes, high: bytes, since_us: int, limit: int) -> list[Hit]:
    """Who connected to the addresses from `low` to `high`, of one family."""
    which = "c.address BETWEEN ? AND ? AND length(c.address) = ? AND +n.name = ''"
    rows = connection.execute(_HITS + which + _BY_WHOM, (since_us // HOUR_US, since_us, low, high, len(low), limit))
    return [Hit(*row) for row in rows]


def tenants_of(connection: Connection, addresses: Sequence[bytes], since_us: int) -> list[str]:
    """Which registered domains were seen at any of these addresses since a time; a few hundred addresses at a time."""
    rows = connection.execute(
        "SELECT DISTINCT registered_domain FROM pdns"
        f" WHERE address IN ({marks(addresses)}) AND last_us >= ? ORDER BY 1",
        (*addresses, since_us),
    )
    return [row[0] for row in rows]
