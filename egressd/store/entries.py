"""What operators add while the daemon runs: indicators and allowances, kept as the text of a list line."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final, NamedTuple

from egressd.store import audit
from egressd.store.audit import Act
from egressd.store.errors import refused
from egressd.store.records import ENTRY, next_number, number_of

INDICATOR: Final = "indicator"
ALLOWANCE: Final = "allowance"


class Entry(NamedTuple):
    """One line. `expires_us` 0: never."""

    id: str
    kind: str
    text: str
    author: str
    reason: str
    created_us: int
    expires_us: int


def add(
    connection: Connection, kind: str, text: str, author: str, reason: str, now_us: int, expires_us: int, act: Act
) -> Entry:
    """A new line. The same text of the same kind again replaces the earlier one: its time and reason are the new.
    Raises StoreError for another kind."""
    if kind not in (INDICATOR, ALLOWANCE):
        raise refused(f"no kind of entry {kind!a}; choose {INDICATOR} or {ALLOWANCE}")
    connection.execute(
        "UPDATE entries SET removed_us = ?, removed_by = ? WHERE kind = ? AND text = ? AND removed_us = 0",
        (now_us, author, kind, text),
    )
    number = next_number(connection, ENTRY)
    connection.execute(
        "INSERT INTO entries(number, kind, text, author, reason, created_us, expires_us) VALUES(?, ?, ?, ?, ?, ?, ?)",
        (number, kind, text, author, reason, now_us, expires_us),
    )
    entry = Entry(f"{ENTRY}{number}", kind, text, author, reason, now_us, expires_us)
    after = {"kind": kind, "text": text, "expires_us": expires_us}
    audit.append(connection, act._replace(object=entry.id, after=after), now_us)
    return entry


def remove(connection: Connection, id_: str, now_us: int, by: str, act: Act) -> Entry:
    """Take a line back. Raises StoreError when it is not in force."""
    number = number_of(id_, ENTRY)
    row = connection.execute(
        "UPDATE entries SET removed_us = ?, removed_by = ? WHERE number = ? AND removed_us = 0"
        " RETURNING kind, text, author, reason, created_us, expires_us",
        (now_us, by, number),
    ).fetchone()
    if row is None:
        raise refused(f"there is no entry {id_} in force")
    audit.append(connection, act._replace(object=id_, before={"kind": row[0], "text": row[1]}), now_us)
    return Entry(id_, *row)


def in_force(connection: Connection, now_us: int, kind: str = "") -> list[Entry]:
    """Every line that counts now, in order of addition; of one kind if given."""
    return [
        Entry(f"{ENTRY}{number}", *rest)
        for number, *rest in connection.execute(
            "SELECT number, kind, text, author, reason, created_us, expires_us FROM entries WHERE removed_us = 0"
            " AND (expires_us = 0 OR expires_us > ?) AND (? = '' OR kind = ?) ORDER BY number",
            (now_us, kind, kind),
        )
    ]


def lapsed_since(connection: Connection, since_us: int, now_us: int, kind: str) -> list[Entry]:
    """Lines of a kind whose time was over between `since_us` and now, and that nobody took back before."""
    return [
        Entry(f"{ENTRY}{number}", *rest)
        for number, *rest in connection.execute(
            "SELECT number, kind, text, author, reason, created_us, expires_us FROM entries WHERE removed_us = 0"
            " AND expires_us > ? AND expires_us <= ? AND kind = ? ORDER BY expires_us, number",
            (since_us, now_us, kind),
        )
    ]
