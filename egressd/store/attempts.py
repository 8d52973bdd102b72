"""What was stopped, and what got an answer: counted exactly, once, per decision and client.

Packet processes send their counts in numbered batches and send a batch again when they do not know whether it arrived.
The number of the last batch that was counted stands in the same transaction as the counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection
from typing import NamedTuple

from egressd.detect.incident_sums import MAX_NAMES
from egressd.model import Target
from egressd.store.records import DECISION, INCIDENT, MAX_GIVEN, number_of, parse_counts, plus, render_counts
from egressd.store.unread import Unread
from egressd.units import HOUR_US


class AttemptCount(NamedTuple):
    """Attempts of one client at one decision since the batch before. `target` is what they were stopped by, None when
    not known; `leaks` of them got an answer; `let_through` of them nothing stopped, the mode being monitor."""

    decision_id: str
    client: bytes
    target: Target | None
    first_us: int
    last_us: int
    attempts: int
    leaks: int = 0
    let_through: int = 0


class ContactCount(NamedTuple):
    """What an incident gained since the batch before."""

    incident_id: str
    first_us: int
    last_us: int
    contacts: int = 0
    attempts: int = 0
    answered: int = 0
    leaks: int = 0
    names: tuple[tuple[str, int], ...] = ()
    via: tuple[tuple[str, int], ...] = ()


class Batch(NamedTuple):
    """Counts of one packet process. `process` is unique to one start of it; `number` counts up from 1, in order."""

    process: str
    number: int
    attempts: tuple[AttemptCount, ...] = ()
    contacts: tuple[ContactCount, ...] = ()


class Counted(NamedTuple):
    """`counted` is False for a batch that had been counted before. `new` are the (decision id, client) pairs seen for
    the first time. `unknown` counts belong to decisions or incidents that are no longer kept."""

    counted: bool
    new: tuple[tuple[str, bytes], ...] = ()
    unknown: int = 0


class WatchRow(NamedTuple):
    """A client's attempts at one decision's targets."""

    decision_id: str
    client: bytes
    first_us: int
    last_us: int
    attempts: int
    leaks: int


def record_batch(connection: Connection, batch: Batch, now_us: int) -> Counted:
    """Count a batch, unless it was counted before."""
    last = connection.execute("SELECT last FROM batches WHERE process = ?", (batch.process,)).fetchone()
    if last is not None and batch.number <= last[0]:
        return Counted(False)
    connection.execute(
        "INSERT INTO batches VALUES(?, ?, ?)"
        " ON CONFLICT(process) DO UPDATE SET last = excluded.last, ts_us = excluded.ts_us",
        (batch.process, batch.number, now_us),
    )
    new: list[tuple[str, bytes]] = []
    unknown = sum(not _count_attempts(connection, one, new) for one in batch.attempts)
    unknown += sum(not _count_contacts(connection, one) for one in batch.contacts)
    return Counted(True, tuple(new), unknown)


def _count_attempts(connection: Connection, one: AttemptCount, new: list[tuple[str, bytes]]) -> bool:
    number = number_of(one.decision_id, DECISION)
    if connection.execute("SELECT 1 FROM decisions WHERE number = ?", (number,)).fetchone() is None:
        return False
    updated = connection.execute(
        f"UPDATE watches SET first_us = min(first_us, ?), last_us = max(last_us, ?), count = {plus('count')},"
        f" leaks = {plus('leaks')}, let_through = {plus('let_through')} WHERE decision = ? AND client = ?",
        (one.first_us, one.last_us, one.attempts, one.leaks, one.let_through, number, one.client),
    ).rowcount
    if not updated:
        connection.execute(
            "INSERT INTO watches VALUES(?, ?, ?, ?, ?, ?, ?)",
            (number, one.client, one.first_us, one.last_us, one.attempts, one.leaks, one.let_through),
        )
        new.append((one.decision_id, one.client))
    connection.execute(
        "INSERT INTO timeline VALUES(?, ?, ?, ?, ?) ON CONFLICT(hour, decision) DO UPDATE SET"
        f" attempts = {plus('attempts', 'excluded.attempts')}, leaks = {plus('leaks', 'excluded.leaks')},"
        f" let_through = {plus('let_through', 'excluded.let_through')}",
        (one.last_us // HOUR_US, number, one.attempts, one.leaks, one.let_through),
    )
    if one.target is not None:
        connection.execute(
            f"UPDATE targets SET attempts = {plus('attempts')}, last_attempt_us = max(last_attempt_us, ?)"
            " WHERE decision = ? AND kind = ? AND value = ?",
            (one.attempts, one.last_us, number, *one.target),
        )
    return True


def _count_contacts(connection: Connection, one: ContactCount) -> bool:
    number = number_of(one.incident_id, INCIDENT)
    row = connection.execute("SELECT names, via FROM incidents WHERE number = ?", (number,)).fetchone()
    if row is None:
        return False
    connection.execute(
        f"UPDATE incidents SET first_us = min(first_us, ?), last_us = max(last_us, ?), contacts = {plus('contacts')},"
        f" attempts = {plus('attempts')}, answered = {plus('answered')}, leaks = {plus('leaks')}, names = ?, via = ?"
        " WHERE number = ?",
        (
            one.first_us, one.last_us, one.contacts, one.attempts, one.answered, one.leaks,
            add_counts(row[0], one.names), add_counts(row[1], one.via), number,
        ),
    )  # fmt: skip
    return True


def add_counts(text: str, more: Iterable[tuple[str, int]]) -> str:
    """Counts by name as stored, with `more` added; of new names no more than fit in (a DGA would fill the ledger)."""
    counts = known_counts(text)
    for name, count in more:
        if name in counts or len(counts) < MAX_NAMES:
            counts[name] = counts.get(name, 0) + count
    return render_counts(counts)


def known_counts(text: str) -> dict[str, int]:
    """Counts by name as stored; of what cannot be read none."""
    return Unread().parsed(parse_counts, text, {}, "", "")


def load_watches(connection: Connection) -> list[WatchRow]:
    """The watches of every open decision, in order of first attempts."""
    return [
        WatchRow(f"{DECISION}{number}", *rest)
        for number, *rest in connection.execute(
            "SELECT w.decision, w.client, w.first_us, w.last_us, w.count, w.leaks FROM watches w"
            " JOIN decisions d ON d.number = w.decision WHERE d.state IN ('proposed', 'active')"
            " ORDER BY w.first_us, w.decision, w.client"
        )
    ]


def attempts_since(connection: Connection, since_us: int) -> tuple[int, int, int]:
    """(attempts, those of them that were let through, leaks) in the whole hours since a time, over all decisions;
    without counts that are damaged."""
    sums = (
        f"total({one}) FILTER (WHERE {one} BETWEEN 0 AND {MAX_GIVEN})" for one in ("attempts", "let_through", "leaks")
    )
    row = connection.execute(f"SELECT {', '.join(sums)} FROM timeline WHERE hour >= ?", (since_us // HOUR_US,))
    attempts, through, leaks = row.fetchone()
    return int(attempts), int(through), int(leaks)
