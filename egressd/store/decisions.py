"""Decisions are made, extended, approved, ended; each change with its audit row in one transaction.

Every function runs inside `Database.run` or `call`. Ids are `D12`; addresses are packed; times are `_us`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

from egressd.model import Decision, Target
from egressd.store import audit
from egressd.store.audit import Act
from egressd.store.errors import refused
from egressd.store.records import DECISION, campaign_number, claim_number, next_number, number_of, render_match

PROPOSED: Final = "proposed"  # waits for a person
ACTIVE: Final = "active"
WITHDRAWN: Final = "withdrawn"
EXPIRED: Final = "expired"
UNDONE: Final = "undone"  # taken back by a person; also a proposal that was rejected
OPEN: Final = (PROPOSED, ACTIVE)
ENDED: Final = (WITHDRAWN, EXPIRED, UNDONE)

TOLD_TARGETS: Final = 64  # named in an audit row; of more only the number is

_PUT: Final = """
INSERT INTO targets(decision, kind, value, state, added_us, expires_us, level, renewed_us)
VALUES(?, ?, ?, 'active', ?, ?, ?, ?)
ON CONFLICT(decision, kind, value) DO UPDATE SET
    expires_us = CASE WHEN state <> 'active' THEN excluded.expires_us
        WHEN expires_us = 0 OR excluded.expires_us = 0 THEN 0 ELSE max(expires_us, excluded.expires_us) END,
    level = CASE WHEN state = 'active' THEN max(level, excluded.level) ELSE excluded.level END,
    added_us = CASE WHEN state = 'active' THEN added_us ELSE excluded.added_us END,
    renewed_us = excluded.renewed_us, withdrawn_by = '', state = 'active'"""


class NewTarget(NamedTuple):
    """A target to add. `expires_us` 0: as long as the decision stands. `level` counts the steps of escalation."""

    target: Target
    expires_us: int = 0
    level: int = 0


def commit(
    connection: Connection,
    decision: Decision,
    targets: Sequence[NewTarget],
    author: str,
    state: str = ACTIVE,
    act: Act | None = None,
) -> str:
    """A new decision, its targets and its audit row; the id of what stands then. `targets[0]` is the main target, what
    the decision is about.

    When an open decision has that main target already, it gets these targets too, and a proposal that comes again as
    active is approved; so two packet processes that see the same name make one decision. `decision.id` "" asks for the
    next number; an id given must be new. `act` is the audit row; without one it is made from the decision.
    """
    if not targets:
        raise refused("a decision without targets")
    act = act or _act_of(decision, author)
    known = find_open(connection, targets[0].target)
    if known is not None:
        id_, is_approved = known[0], known[1] == PROPOSED and state == ACTIVE
        _add_to(connection, id_, is_approved, targets, decision.ts_us, act)
        return id_
    return _insert(connection, decision, targets, author, state, act)


def _add_to(
    connection: Connection, id_: str, is_approved: bool, targets: Sequence[NewTarget], ts_us: int, act: Act
) -> None:
    """An open decision gets these targets too, and takes effect when that makes it `is_approved`."""
    number = number_of(id_, DECISION)
    added = _put_targets(connection, number, targets, ts_us)
    if is_approved:
        connection.execute("UPDATE decisions SET state = 'active' WHERE number = ?", (number,))
    if added or is_approved:
        audit.append(connection, act._replace(object=id_, after=_told(targets)), ts_us)


def _insert(
    connection: Connection, decision: Decision, targets: Sequence[NewTarget], author: str, state: str, act: Act
) -> str:
    """A new decision; its id."""
    if decision.id:
        number = claim_number(connection, decision.id, DECISION)
        if connection.execute("SELECT 1 FROM decisions WHERE number = ?", (number,)).fetchone():
            raise refused(f"there is a decision {decision.id} already")
    else:
        number = next_number(connection, DECISION)
    main = targets[0].target
    connection.execute(
        "INSERT INTO decisions(number, created_us, action, state, mode, author, reason, rule, evidence, match,"
        " registered_domain, client, name, campaign, main_kind, main_value)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number, decision.ts_us, decision.action, state, decision.mode, author, decision.reason, decision.rule,
            decision.evidence, render_match(decision.match), decision.match.registered_domain, decision.client,
            decision.name, campaign_number(decision.campaign), main.kind, main.value,
        ),
    )  # fmt: skip
    _put_targets(connection, number, targets, decision.ts_us)
    id_ = f"{DECISION}{number}"
    told: dict[str, Any] = {"state": state, "mode": decision.mode} | _told(targets)
    audit.append(connection, act._replace(object=id_, after=told), decision.ts_us)
    return id_


def extend(connection: Connection, id_: str, targets: Sequence[NewTarget], ts_us: int, act: Act) -> int:
    """More targets for an open decision; returns how many were not active before. One that is active already keeps the
    longer of both times. Nothing new: no audit row. Raises StoreError when the decision is not open."""
    number = _open_number(connection, id_)
    added = _put_targets(connection, number, targets, ts_us)
    if added:
        audit.append(connection, act._replace(object=id_, after=_told(targets)), ts_us)
    return added


def withdraw(connection: Connection, id_: str, targets: Iterable[Target], ts_us: int, act: Act) -> int:
    """Take active targets back from a decision; returns how many were active."""
    number = _known_number(connection, id_)
    wanted = list(targets)
    before = connection.total_changes
    connection.executemany(
        "UPDATE targets SET state = 'withdrawn', renewed_us = ?, withdrawn_by = ? WHERE decision = ? AND kind = ?"
        " AND value = ? AND state = 'active'",
        [(ts_us, act.actor, number, target.kind, target.value) for target in wanted],
    )
    gone = connection.total_changes - before
    if gone:
        told = _told([NewTarget(target) for target in wanted])
        audit.append(connection, act._replace(object=id_, before=told), ts_us)
    return gone


def end(connection: Connection, id_: str, state: str, ts_us: int, by: str, reason: str, act: Act) -> bool:
    """End an open decision as withdrawn, expired or undone, and its active targets with it; False when it had ended."""
    number = _known_number(connection, id_)
    row = connection.execute("SELECT state FROM decisions WHERE number = ?", (number,)).fetchone()
    if not _end_numbers(connection, [number], state, ts_us, by, reason):
        return False
    audit.append(connection, act._replace(object=id_, before={"state": row[0]}, after={"state": state}), ts_us)
    return True


def approve(connection: Connection, id_: str, ts_us: int, act: Act) -> bool:
    """A proposal takes effect; its targets' time begins now. False when it is active already. Raises StoreError when it
    has ended."""
    number = _open_number(connection, id_)
    changed = connection.execute(
        "UPDATE decisions SET state = 'active' WHERE number = ? AND state = 'proposed'", (number,)
    ).rowcount
    if not changed:
        return False
    connection.execute(
        "UPDATE targets SET expires_us = CASE WHEN expires_us > 0 THEN expires_us + (? - added_us) ELSE 0 END,"
        " added_us = ?, renewed_us = ? WHERE decision = ? AND state = 'active'",
        (ts_us, ts_us, ts_us, number),
    )
    audit.append(connection, act._replace(object=id_, before={"state": PROPOSED}, after={"state": ACTIVE}), ts_us)
    return True


class Change(NamedTuple):
    """What policy makes of a decision of its own that stands: its columns of these names."""

    state: str
    mode: str
    action: str
    rule: str
    client: bytes


def change(connection: Connection, id_: str, to: Change, ts_us: int, act: Act) -> None:
    """An open decision stands otherwise from now on. Raises StoreError when it has ended."""
    number = _open_number(connection, id_)
    columns = "state, mode, action, rule"
    before = connection.execute(f"SELECT {columns} FROM decisions WHERE number = ?", (number,)).fetchone()
    connection.execute(
        "UPDATE decisions SET state = ?, mode = ?, action = ?, rule = ?, client = ? WHERE number = ?", (*to, number)
    )
    names = columns.split(", ")
    told = dict(zip(names, to[:4], strict=True))
    audit.append(connection, act._replace(object=id_, before=dict(zip(names, before, strict=True)), after=told), ts_us)


def propose_again(connection: Connection, id_: str, ts_us: int, act: Act) -> None:
    """What was approved waits for a person again. Raises StoreError when it has ended."""
    number = _open_number(connection, id_)
    connection.execute("UPDATE decisions SET state = 'proposed' WHERE number = ?", (number,))
    audit.append(connection, act._replace(object=id_, before={"state": ACTIVE}, after={"state": PROPOSED}), ts_us)


def find_open(connection: Connection, main: Target) -> tuple[str, str] | None:
    """(id, state) of the open decision about a main target."""
    row = connection.execute(
        "SELECT number, state FROM decisions WHERE main_kind = ? AND main_value = ?"
        " AND state IN ('proposed', 'active')",
        main,
    ).fetchone()
    return (f"{DECISION}{row[0]}", row[1]) if row else None


def change_mode(
    connection: Connection, ids: Sequence[str], mode: str, proposed: Sequence[str], active: Sequence[str] = ()
) -> None:
    """Decisions `ids` stand in another mode now; of them `proposed` wait for a person from now on, and `active` do not
    wait any more."""
    connection.executemany(
        "UPDATE decisions SET mode = ? WHERE number = ?", [(mode, number_of(one, DECISION)) for one in ids]
    )
    connection.executemany(
        "UPDATE decisions SET state = 'proposed' WHERE number = ? AND state = 'active'",
        [(number_of(one, DECISION),) for one in proposed],
    )
    connection.executemany(
        "UPDATE decisions SET state = 'active' WHERE number = ? AND state = 'proposed'",
        [(number_of(one, DECISION),) for one in active],
    )


def _put_targets(connection: Connection, number: int, targets: Sequence[NewTarget], ts_us: int) -> int:
    count = "SELECT count(*) FROM targets WHERE decision = ? AND state = 'active'"
    before = connection.execute(count, (number,)).fetchone()[0]
    connection.executemany(
        _PUT,
        [
            (number, one.target.kind, one.target.value, ts_us, one.expires_us, one.level, ts_us)
            for one in targets
        ],
    )  # fmt: skip
    return int(connection.execute(count, (number,)).fetchone()[0]) - int(before)


def _end_numbers(connection: Connection, numbers: Sequence[int], state: str, ts_us: int, by: str, reason: str) -> int:
    if state not in ENDED:
        raise refused(f"a decision does not end as {state!a}; choose one of {', '.join(ENDED)}")
    before = connection.total_changes
    connection.executemany(
        "UPDATE decisions SET ended_from = state, state = ?, ended_us = ?, ended_by = ?, ended_reason = ?"
        " WHERE number = ? AND state IN ('proposed', 'active')",
        [(state, ts_us, by, reason, number) for number in numbers],
    )
    ended = connection.total_changes - before
    connection.executemany(
        "UPDATE targets SET state = ?, renewed_us = ? WHERE decision = ? AND state = 'active'",
        [(EXPIRED if state == EXPIRED else WITHDRAWN, ts_us, number) for number in numbers],
    )
    return ended


def _open_number(connection: Connection, id_: str) -> int:
    number = number_of(id_, DECISION)
    row = connection.execute("SELECT state FROM decisions WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise refused(f"there is no decision {id_}")
    if row[0] not in OPEN:
        raise refused(f"{id_} has ended: it is {row[0]}")
    return number


def _known_number(connection: Connection, id_: str) -> int:
    number = number_of(id_, DECISION)
    if connection.execute("SELECT 1 FROM decisions WHERE number = ?", (number,)).fetchone() is None:
        raise refused(f"there is no decision {id_}")
    return number


def _act_of(decision: Decision, author: str) -> Act:
    return Act(author, "policy", decision.action, decision.id, decision.reason)


def _told(targets: Sequence[NewTarget]) -> dict[str, Any]:
    named = [f"{one.target.kind} {one.target.value}" for one in targets[:TOLD_TARGETS]]
    return {"count": len(targets), "targets": named}
