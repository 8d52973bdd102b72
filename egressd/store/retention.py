"""What is forgotten, and when: bounds by age, by rows and by size; never what is in force, and never in silence.

Each call deletes a bounded part, so that it does not hold up commits: call again while `more`. Audit rows go only up to
a head that was written outside (audit.cut).
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection
from typing import Final, NamedTuple

from egressd.store import audit
from egressd.store.audit import Act
from egressd.store.heads import Head
from egressd.store.records import INCIDENT
from egressd.units import DAY_US, HOUR_US

AT_ONCE: Final = 500  # decisions or incidents; each may have many rows
ROWS_AT_ONCE: Final = 5_000
TOLD_INCIDENTS: Final = 64  # named in an audit row; of more only the number is
AUDIT_ROW_BYTES: Final = 60  # hash, number and page overhead of an audit row beside its body
BATCHES_KEPT_US: Final = 7 * DAY_US  # a packet process does not send a batch again after so long


class Bounds(NamedTuple):
    """How much is kept. `age_us` counts from a decision's end, an incident's closing, a client's last attempt, and from
    when a decision in force held a target last. The others are most rows, and most bytes in the file; audit rows, which
    have bounds of their own, are not among them."""

    age_us: int = 400 * DAY_US
    ended_decisions: int = 100_000
    closed_incidents: int = 100_000
    watches: int = 262_144
    size_bytes: int = 2 << 30
    audit_age_us: int = 3 * 365 * DAY_US
    audit_rows: int = 10_000_000


class Trimmed(NamedTuple):
    """Rows that were deleted, and whether more are due."""

    decisions: int = 0
    incidents: int = 0
    campaigns: int = 0
    watches: int = 0
    timeline: int = 0
    entries: int = 0
    batches: int = 0
    targets: int = 0  # of decisions in force, which have not held them for so long
    more: bool = False

    def is_empty(self) -> bool:
        """Nothing was deleted."""
        return not any(self)


def trim(connection: Connection, bounds: Bounds, now_us: int, act: Act) -> Trimmed:
    """Delete what is beyond the bounds, oldest first; an audit row tells how much."""
    before_us = now_us - bounds.age_us
    is_large = used_bytes(connection) - audit_bytes(connection) > bounds.size_bytes
    done = Trimmed(
        decisions=_delete(
            connection, "decisions", "ended_us > 0", "ended_us", before_us, 0 if is_large else bounds.ended_decisions
        ),
        incidents=_delete(
            connection, "incidents", "closed_us > 0", "closed_us", before_us, 0 if is_large else bounds.closed_incidents
        ),
        watches=_trim_watches(connection, before_us, bounds.watches),
        timeline=connection.execute(
            "DELETE FROM timeline WHERE (hour, decision) IN"
            " (SELECT hour, decision FROM timeline WHERE hour < ? ORDER BY hour LIMIT ?)",
            (before_us // HOUR_US, ROWS_AT_ONCE),
        ).rowcount,
        entries=connection.execute(
            "DELETE FROM entries WHERE number IN (SELECT number FROM entries WHERE (removed_us > 0 AND removed_us < ?)"
            " OR (expires_us > 0 AND expires_us < ?) LIMIT ?)",
            (before_us, before_us, ROWS_AT_ONCE),
        ).rowcount,
        batches=connection.execute("DELETE FROM batches WHERE ts_us < ?", (now_us - BATCHES_KEPT_US,)).rowcount,
    )
    done = done._replace(campaigns=_trim_campaigns(connection, before_us), targets=_trim_targets(connection, before_us))
    done = done._replace(
        more=max(done.decisions, done.incidents, done.campaigns) >= AT_ONCE
        or max(done.watches, done.timeline, done.entries, done.targets) >= ROWS_AT_ONCE
    )
    told = {name: count for name, count in done._asdict().items() if count and name not in ("more", "batches")}
    if told:
        audit.append(connection, act._replace(after=told), now_us)
    return done


def trim_audit(connection: Connection, heads: Iterable[Head], bounds: Bounds, now_us: int, act: Act) -> int:
    """Cut audit rows that are too old or too many, up to a head of the file outside; returns how many went, at most
    about 20,000 at a time."""
    up_to = audit.cuttable(connection, heads, now_us - bounds.audit_age_us, bounds.audit_rows)
    return audit.cut(connection, up_to, act, now_us) if up_to is not None else 0


def close_quiet(connection: Connection, before_us: int, now_us: int, act: Act) -> list[str]:
    """Close every acknowledged incident that has been quiet since `before_us`; returns their ids. One audit row."""
    numbers = [
        number
        for (number,) in connection.execute(
            "SELECT number FROM incidents WHERE state = 'acknowledged' AND last_us < ? ORDER BY number", (before_us,)
        )
    ]
    connection.executemany(
        "UPDATE incidents SET state = 'closed', closed_us = ? WHERE number = ?",
        [(now_us, number) for number in numbers],
    )
    ids = [f"{INCIDENT}{number}" for number in numbers]
    if ids:
        audit.append(connection, act._replace(after={"closed": len(ids), "incidents": ids[:TOLD_INCIDENTS]}), now_us)
    return ids


def used_bytes(connection: Connection) -> int:
    """What the rows take in the file; pages that were given back are not counted, they are used again first."""
    pages = (
        connection.execute("PRAGMA page_count").fetchone()[0]
        - connection.execute("PRAGMA freelist_count").fetchone()[0]
    )
    return int(pages) * int(connection.execute("PRAGMA page_size").fetchone()[0])


def audit_bytes(connection: Connection) -> int:
    """About what the audit rows take, by the newest of them."""
    rows, length = connection.execute(
        "SELECT (SELECT max(seq) - min(seq) + 1 FROM audit), avg(length(body)) FROM"
        " (SELECT body FROM audit ORDER BY seq DESC LIMIT 100)"
    ).fetchone()
    return int(rows * (length + AUDIT_ROW_BYTES)) if rows else 0


def _delete(connection: Connection, table: str, which: str, column: str, before_us: int, most: int) -> int:
    """`table`, `which` and `column` are this module's own words."""
    count = connection.execute(f"SELECT count(*) FROM {table} WHERE {which}").fetchone()[0]
    over = min(AT_ONCE, max(0, count - most))
    oldest = f"SELECT number FROM {table} WHERE {which}"
    return connection.execute(
        f"DELETE FROM {table} WHERE number IN ({oldest} AND {column} < ? ORDER BY {column} LIMIT ?)"
        f" OR number IN ({oldest} ORDER BY {column} LIMIT ?)",
        (before_us, AT_ONCE, over),
    ).rowcount


def _trim_watches(connection: Connection, before_us: int, most: int) -> int:
    count = connection.execute("SELECT count(*) FROM watches").fetchone()[0]
    over = min(ROWS_AT_ONCE, max(0, count - most))
    oldest = "SELECT decision, client FROM watches"
    return connection.execute(
        f"DELETE FROM watches WHERE (decision, client) IN ({oldest} WHERE last_us < ? ORDER BY last_us LIMIT ?)"
        f" OR (decision, client) IN ({oldest} ORDER BY last_us LIMIT ?)",
        (before_us, ROWS_AT_ONCE, over),
    ).rowcount


def _trim_targets(connection: Connection, before_us: int) -> int:
    """Those that decisions in force do not hold any more; the others go with their decision. CROSS JOIN: from the few
    that are in force to what each led to, by the index of that."""
    return connection.execute(
        "DELETE FROM targets WHERE id IN (SELECT t.id FROM decisions d CROSS JOIN targets t ON t.decision = d.number"
        " WHERE d.state IN ('proposed', 'active') AND t.state <> 'active' AND t.renewed_us < ?"
        " AND (t.kind, t.value) <> (d.main_kind, d.main_value) LIMIT ?)",
        (before_us, ROWS_AT_ONCE),
    ).rowcount


def _trim_campaigns(connection: Connection, before_us: int) -> int:
    """Campaigns that nothing refers to any more."""
    return connection.execute(
        "DELETE FROM campaigns WHERE number IN (SELECT number FROM campaigns c WHERE last_us < ?"
        " AND NOT EXISTS(SELECT 1 FROM incidents WHERE campaign = c.number)"
        " AND NOT EXISTS(SELECT 1 FROM decisions WHERE campaign = c.number) LIMIT ?)",
        (before_us, AT_ONCE),
    ).rowcount
