"""Targets in force: their time, and what adapters made of them.

Every function runs inside `Database.run`, `read` or `call`.
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection
from typing import NamedTuple

from egressd.model import Target
from egressd.store import audit
from egressd.store.audit import Act
from egressd.store.decisions import EXPIRED, TOLD_TARGETS
from egressd.store.records import DECISION, number_of, plus


class Renewal(NamedTuple):
    """A target's new time."""

    decision_id: str
    target: Target
    expires_us: int
    level: int


class Enforcement(NamedTuple):
    """What an adapter made of a target."""

    decision_id: str
    target: Target
    state: str
    detail: str = ""


def renew(connection: Connection, renewals: Iterable[Renewal], now_us: int) -> int:
    """Give active targets a new time; returns how many. Renewals leave no audit row: the decision's own said that
    attempts renew it, and each is counted in `attempts`."""
    before = connection.total_changes
    connection.executemany(
        "UPDATE targets SET expires_us = ?, level = ?, renewed_us = ? WHERE decision = ? AND kind = ? AND value = ?"
        " AND state = 'active'",
        [(one.expires_us, one.level, now_us, number_of(one.decision_id, DECISION), *one.target) for one in renewals],
    )
    return connection.total_changes - before


def expire(connection: Connection, targets: Iterable[tuple[str, Target]], now_us: int, act: Act) -> list[str]:
    """End (decision id, target) pairs whose time is over; a decision whose main target is among them ends as expired,
    with all its targets. Returns the ids of those that ended. One audit row."""
    wanted = [(number_of(id_, DECISION), target) for id_, target in targets]
    before = connection.total_changes
    connection.executemany(
        "UPDATE targets SET state = 'expired', renewed_us = ? WHERE decision = ? AND kind = ? AND value = ?"
        " AND state = 'active'",
        [(now_us, number, *target) for number, target in wanted],
    )
    changed = connection.total_changes - before
    ended: list[str] = []
    for number in sorted({number for number, _ in wanted}):
        over = connection.execute(
            "UPDATE decisions SET state = 'expired', ended_us = ?, ended_by = ?, ended_reason = ? WHERE number = ?"
            " AND state IN ('proposed', 'active') AND NOT EXISTS(SELECT 1 FROM targets t WHERE t.decision = number"
            "  AND t.state = 'active' AND (t.kind, t.value) = (main_kind, main_value))",
            (now_us, act.actor, act.reason, number),
        ).rowcount
        if over:
            ended.append(f"{DECISION}{number}")
            connection.execute(
                "UPDATE targets SET state = 'expired', renewed_us = ? WHERE decision = ? AND state = 'active'",
                (now_us, number),
            )
    if changed or ended:
        named = [f"{DECISION}{number} {target.kind} {target.value}" for number, target in wanted[:TOLD_TARGETS]]
        after = {"count": changed, "targets": named, "state": EXPIRED, "decisions": ended[:TOLD_TARGETS]}
        audit.append(connection, act._replace(after=after), now_us)
    return ended


def set_enforcements(connection: Connection, adapter: str, rows: Iterable[Enforcement], ts_us: int) -> int:
    """What an adapter made of targets, in bulk; returns how many states changed. Unknown targets are passed over (they
    were deleted meanwhile). `ts_us` is when a state began, so a row that says what is known changes nothing."""
    before = connection.total_changes
    connection.executemany(
        "INSERT INTO enforcements SELECT id, ?, ?, ?, ? FROM targets WHERE decision = ? AND kind = ? AND value = ?"
        " ON CONFLICT(target, adapter) DO UPDATE SET state = excluded.state, detail = excluded.detail,"
        " ts_us = excluded.ts_us WHERE state <> excluded.state OR detail <> excluded.detail",
        [
            (adapter, one.state, one.detail, ts_us, number_of(one.decision_id, DECISION), *one.target) for one in rows
        ],
    )  # fmt: skip
    return connection.total_changes - before


def shift_deadlines(connection: Connection, delta_us: int) -> int:
    """The clock was set by `delta_us`: every deadline that is still to come moves with it, so that what should last an
    hour lasts an hour. Returns how many moved."""
    if not delta_us:
        return 0
    moved = connection.execute(
        f"UPDATE targets SET expires_us = max(1, {plus('expires_us')}), added_us = {plus('added_us')},"
        f" renewed_us = {plus('renewed_us')},"
        f" last_attempt_us = CASE WHEN last_attempt_us > 0 THEN {plus('last_attempt_us')} ELSE 0 END"
        " WHERE state = 'active' AND expires_us > 0",
        (delta_us, delta_us, delta_us, delta_us),
    ).rowcount
    moved += connection.execute(
        f"UPDATE entries SET expires_us = max(1, {plus('expires_us')}) WHERE removed_us = 0 AND expires_us > 0",
        (delta_us,),
    ).rowcount
    return moved


def load_enforcements(connection: Connection, adapter: str) -> list[Enforcement]:
    """What an adapter made of the targets that are in force, as it was told last."""
    return [
        Enforcement(f"{DECISION}{number}", Target(kind, value), state, detail)
        for number, kind, value, state, detail in connection.execute(
            "SELECT t.decision, t.kind, t.value, e.state, e.detail FROM enforcements e"
            " JOIN targets t ON t.id = e.target WHERE e.adapter = ? AND t.state = 'active'",
            (adapter,),
        )
    ]


def enforcement_counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Per adapter, how many active targets are in which state."""
    counts: dict[str, dict[str, int]] = {}
    for adapter, state, count in connection.execute(
        "SELECT e.adapter, e.state, count(*) FROM enforcements e JOIN targets t ON t.id = e.target"
        " WHERE t.state = 'active' GROUP BY e.adapter, e.state"
    ):
        counts.setdefault(adapter, {})[state] = count
    return counts
