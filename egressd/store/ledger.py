"""The ledger: the one truth of what was decided, what is in force and who tried. Opened here, loaded whole at start.

What is written and asked lies in the files beside: decisions, targets, attempts, incidents, entries, audit, queries,
retention. Their functions take the connection first: `await ledger.run(decisions.commit, decision, targets, author)`.
"""

from __future__ import annotations

from pathlib import Path
from sqlite3 import Connection
from typing import Final, NamedTuple

from egressd.model import Campaign
from egressd.store.attempts import WatchRow, load_watches
from egressd.store.ballast import DEFAULT_BALLAST_BYTES
from egressd.store.db import Database
from egressd.store.decisions import DecisionRow, load_lifted, load_open
from egressd.store.entries import ALLOWANCE, Entry, in_force, lapsed_since
from egressd.store.incidents import IncidentRow, load_allowed, load_campaigns, load_incidents, load_rejected
from egressd.store.migrations import LEDGER

DAY_US: Final = 86_400_000_000
LIFTED_US: Final = 30 * DAY_US  # what an allowance lifted longer ago does not stand again: its addresses are stale
MAX_LIFTED: Final = 10_000


class Loaded(NamedTuple):
    """Everything that the daemon carries on with. `last` is the number given out last of each kind (D, I, C, E);
    `lifted` are decisions that an allowance ended, `lapsed` allowances of the last day, `allowed` what lets incidents'
    contacts be, by incident; `rejected` pairs of campaigns that a person said do not belong together."""

    decisions: list[DecisionRow]
    watches: list[WatchRow]
    incidents: list[IncidentRow]
    campaigns: list[Campaign]
    entries: list[Entry]
    last: dict[str, int]
    lifted: list[DecisionRow]
    lapsed: list[Entry]
    allowed: dict[str, str]
    rejected: list[tuple[str, str]]


def open_ledger(path: Path, now_us: int, ballast_bytes: int = DEFAULT_BALLAST_BYTES) -> Database:
    """The ledger at `path`, made if there is none; the caller closes it. Raises StoreError (see Database.open)."""
    ledger = Database(path, "FULL", steps=LEDGER, ballast_bytes=ballast_bytes)
    ledger.open(now_us)
    return ledger


def load_all(connection: Connection, now_us: int, resting_us: int = 0) -> Loaded:
    """What was open when the daemon stopped, with targets that came to rest in the last `resting_us`."""
    return Loaded(
        decisions=load_open(connection, max(0, now_us - resting_us) if resting_us else -1, now_us - LIFTED_US),
        watches=load_watches(connection),
        incidents=load_incidents(connection),
        campaigns=load_campaigns(connection),
        entries=in_force(connection, now_us),
        last=dict(connection.execute("SELECT kind, last FROM numbers").fetchall()),
        lifted=load_lifted(connection, now_us - LIFTED_US, MAX_LIFTED),
        lapsed=lapsed_since(connection, now_us - DAY_US, now_us, ALLOWANCE),
        allowed=load_allowed(connection),
        rejected=load_rejected(connection),
    )
