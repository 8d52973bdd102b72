"""Decisions and their targets as the ledger has them: read whole, what cannot be read of a row left out and told.

Every function runs inside `Database.read` or `call`. Ids are `D12`; addresses are packed; times are `_us`.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

from egressd.model import Match, Target
from egressd.store.errors import StoreError
from egressd.store.records import DECISION, campaign_id, number_of, parse_match
from egressd.store.unread import Unread, is_address, match_about
from egressd.store.variables import chunks, marks

# Who ends a decision, or frees what it covers, because somebody allows it: the kinds of allowances, as rules.
LIFTING: Final = ("rule:ignore-indicator", "rule:allow-destination", "rule:ignore-client", "rule:never-block")
_LIFTING: Final = str(LIFTING)  # as SQL has it
UNLISTED: Final = "rule:unlisted"  # who ends a decision because no list names any more what it is about


class TargetRow(NamedTuple):
    """A target as the ledger has it."""

    target: Target
    state: str
    added_us: int
    expires_us: int
    level: int
    renewed_us: int
    attempts: int
    last_attempt_us: int
    withdrawn_by: str = ""  # who took it back from its decision


class DecisionRow(NamedTuple):
    """A decision as the ledger has it; the first target is the main one."""

    id: str
    created_us: int
    action: str
    state: str
    mode: str
    author: str
    reason: str
    rule: str
    evidence: str
    match: Match
    client: bytes
    name: str
    campaign: str
    ended_us: int
    ended_by: str
    ended_reason: str
    targets: tuple[TargetRow, ...]
    ended_from: str = ""  # the state that it ended in, "" where that was not written down yet


def load_open(
    connection: Connection, resting_since_us: int = -1, lifted_since_us: int = -1, unread: Unread | None = None
) -> list[DecisionRow]:
    """Every open decision with its active targets in order of addition; with those that expired since a time too, if
    given: somebody who tries them brings them back; and with those that an allowance freed since a time."""
    which = "t.state = 'active'"
    if resting_since_us >= 0:
        which += f" OR (t.state = 'expired' AND t.renewed_us > {int(resting_since_us)})"
    if lifted_since_us >= 0:
        which += f" OR (t.state = 'withdrawn' AND t.withdrawn_by IN {_LIFTING} AND t.renewed_us > {lifted_since_us:d})"
    return load_where(connection, "state IN ('proposed', 'active')", (), -1, f"AND ({which})", unread)


def load_lifted(connection: Connection, since_us: int, limit: int, unread: Unread | None = None) -> list[DecisionRow]:
    """Decisions that an allowance, or a list that named them no more, ended since a time, if nothing was decided about
    the same target later: the youngest `limit`, those of allowances first, with the targets that they had at their end,
    and with those that an allowance had freed before."""
    numbers = [
        number
        for (number,) in connection.execute(
            f"SELECT number FROM decisions d WHERE state = 'withdrawn' AND ended_by IN {(*LIFTING, UNLISTED)}"
            " AND ended_us > ?"
            " AND NOT EXISTS(SELECT 1 FROM decisions o WHERE o.main_kind = d.main_kind AND o.main_value = d.main_value"
            "  AND (o.ended_us = 0 OR (o.ended_us, o.number) > (d.ended_us, d.number)))"
            " ORDER BY ended_by = ?, ended_us DESC, number DESC LIMIT ?",
            (since_us, UNLISTED, limit),
        )
    ]
    covered = (
        "AND t.state = 'withdrawn' AND ((t.withdrawn_by = '' AND t.renewed_us ="
        " (SELECT ended_us FROM decisions WHERE number = t.decision))"
        f" OR (t.withdrawn_by IN {_LIFTING} AND t.renewed_us > {since_us:d}))"
    )
    rows: list[DecisionRow] = []
    for some in chunks(numbers):
        rows += load_where(connection, f"number IN ({marks(some)})", some, -1, covered, unread)
    return [row for row in rows if row.targets]


def load(connection: Connection, id_: str) -> DecisionRow | None:
    """One decision with all its targets; None when there is none of that id."""
    found = load_where(connection, "number = ?", (number_of(id_, DECISION),))
    return found[0] if found else None


def load_where(
    connection: Connection,
    which: str,
    values: tuple[Any, ...],
    newest: int = -1,
    and_targets: str = "",
    unread: Unread | None = None,
) -> list[DecisionRow]:
    """The newest decisions that fit, all if negative, oldest first. `which` and `and_targets` are SQL of this room's
    own, never of anybody else's making. What cannot be read of a row is left out, and `unread` told."""
    unread = unread or Unread()
    wanted = f"SELECT number FROM decisions WHERE {which} ORDER BY number DESC LIMIT {newest}"
    targets: dict[int, list[TargetRow]] = {}
    headless: set[int] = set()  # the first target is what a decision is about; without it the others say nothing
    for number, kind, value, *rest in connection.execute(
        "SELECT t.decision, t.kind, t.value, t.state, t.added_us, t.expires_us, t.level, t.renewed_us, t.attempts,"
        f" t.last_attempt_us, t.withdrawn_by FROM targets t WHERE t.decision IN ({wanted}) {and_targets} ORDER BY t.id",
        values,
    ):
        its = targets.setdefault(number, [])
        if number in headless or unread.garbled(f"a target of decision {DECISION}{number}", (kind, value)):
            headless.update([] if its else [number])
        else:
            state, added_us, expires_us, level, renewed_us, tries, *more = rest
            tries = unread.counted(tries, f"a target of decision {DECISION}{number}", "its attempts")
            its.append(TargetRow(Target(kind, value), state, added_us, expires_us, level, renewed_us, tries, *more))
    rows = connection.execute(
        "SELECT number, created_us, action, state, mode, author, reason, rule, evidence, match, client, name, campaign,"
        f" registered_domain, ended_us, ended_by, ended_reason, ended_from FROM decisions WHERE number IN ({wanted})"
        " ORDER BY number",
        values,
    )
    return [
        _row(row, tuple(targets.get(row[0], ())), unread)
        for row in rows
        if unread.numbered(f"decision {DECISION}{row[0]}", row[0])
    ]


def _row(row: Sequence[Any], targets: tuple[TargetRow, ...], unread: Unread) -> DecisionRow:
    number, created_us, action, state, mode, author, reason, rule, evidence, text, client, name, campaign, *more = row
    id_, (domain, *end) = f"{DECISION}{number}", more
    unread.garbled(f"decision {id_}", row)
    try:
        match = parse_match(text)
    except StoreError:
        unread.tell(f"decision {id_}", "why it was made cannot be read; it stands by what it is about")
        match = match_about(targets[0].target if targets else Target("host", domain), domain)
    if not is_address(client):
        unread.tell(f"decision {id_}", "the client is no address; it counts as none")
        client = b""
    return DecisionRow(
        id_, created_us, action, state, mode, author, reason, rule, evidence, match, client, name,
        campaign_id(campaign), end[0], end[1], end[2], targets, end[3],
    )  # fmt: skip
