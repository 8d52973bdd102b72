"""The ledger: the one truth of what was decided, what is in force and who tried. Opened here, loaded whole at start.

What is written and asked lies in the files beside: decisions and decision_rows, targets, attempts, incidents, entries,
audit, queries, retention. Their functions take the connection first: `await ledger.run(decisions.commit,
decision, targets, author)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from sqlite3 import Connection
from types import MappingProxyType
from typing import Final, NamedTuple

from egressd.model import Campaign
from egressd.store.attempts import WatchRow, load_watches
from egressd.store.ballast import DEFAULT_BALLAST_BYTES
from egressd.store.db import Database
from egressd.store.decision_rows import DecisionRow, load_lifted, load_open
from egressd.store.entries import ALLOWANCE, Entry, in_force, lapsed_since
from egressd.store.incidents import IncidentRow, load_campaigns, load_incidents, load_rejected
from egressd.store.migrations import LEDGER
from egressd.store.moments import BEGAN, WAITS
from egressd.store.notes import load_allowed
from egressd.store.records import last_numbers
from egressd.store.spared import Spared
from egressd.store.spared import load as load_spared
from egressd.store.unread import Unread, is_address, text_of
from egressd.units import DAY_US

LIFTED_US: Final = 30 * DAY_US  # what an allowance lifted longer ago does not stand again: its addresses are stale
MAX_LIFTED: Final = 10_000


class Loaded(NamedTuple):
    """Everything that the daemon carries on with. `last` is the number given out last of each kind (D, I, C, E);
    `lifted` are decisions that an allowance ended, `lapsed` allowances of the last day, `allowed` what lets incidents'
    contacts be, by incident; `rejected` pairs of campaigns that a person said do not belong together; `unread` says
    which rows could not be read whole; `spared` is what decisions do not cover, and why; `waits` since when
    decisions wait for a person that have not done so since they were made; `began` when those stood first that stand
    again."""

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
    unread: tuple[str, ...] = ()
    spared: Mapping[str, Spared] = MappingProxyType({})
    waits: Mapping[str, int] = MappingProxyType({})
    began: Mapping[str, int] = MappingProxyType({})


def open_ledger(path: Path, now_us: int, ballast_bytes: int = DEFAULT_BALLAST_BYTES) -> Database:
    """The ledger at `path`, made if there is none; the caller closes it. Raises StoreError (see Database.open)."""
    ledger = Database(
        path, "FULL", steps=LEDGER, ballast_bytes=ballast_bytes, text_of=text_of, keeps_old=True,
        may_be_in_memory=True, sets_aside=True,
    )  # fmt: skip
    ledger.open(now_us)
    return ledger


def load_all(connection: Connection, now_us: int, resting_us: int = 0) -> Loaded:
    """What was open when the daemon stopped, with targets that came to rest in the last `resting_us`. A row that cannot
    be read takes no other one down."""
    unread = Unread()
    resting_since_us = max(0, now_us - resting_us) if resting_us else -1
    found, strange = _split(load_incidents(connection, unread))
    for id_ in strange:
        unread.tell(f"incident {id_}", "the client is no address; it is left out")
    campaigns = load_campaigns(connection, unread)
    for campaign in campaigns if strange else ():
        campaign.incidents[:] = [one for one in campaign.incidents if one not in strange]
    spared, waits = load_spared(connection, unread), WAITS.load(connection, unread)
    began = BEGAN.load(connection, unread)
    return Loaded(
        decisions=_with_targets(load_open(connection, resting_since_us, now_us - LIFTED_US, unread), unread),
        watches=[_counted(one, unread) for one in load_watches(connection) if _is_whole(one, unread)],
        incidents=found,
        campaigns=campaigns,
        entries=[one for one in in_force(connection, now_us) if not unread.garbled(f"entry {one.id}", one)],
        last=last_numbers(connection),
        lifted=load_lifted(connection, now_us - LIFTED_US, MAX_LIFTED, unread),
        lapsed=[
            one
            for one in lapsed_since(connection, now_us - DAY_US, now_us, ALLOWANCE)
            if not unread.garbled(f"entry {one.id}", one)
        ],
        allowed=load_allowed(connection),
        rejected=load_rejected(connection),
        unread=tuple(unread.told),
        spared=spared,
        waits=waits,
        began=began,
    )


def _with_targets(rows: list[DecisionRow], unread: Unread) -> list[DecisionRow]:
    for row in rows:
        if not row.targets:
            unread.tell(f"decision {row.id}", "what it is about is not there; it is not in force")
    return [row for row in rows if row.targets]


def _split(rows: list[IncidentRow]) -> tuple[list[IncidentRow], list[str]]:
    """Those of clients that have an address, and the ids of others."""
    whole = [row for row in rows if row.incident.client and is_address(row.incident.client)]
    return whole, sorted({row.incident.id for row in rows} - {row.incident.id for row in whole})


def _is_whole(watch: WatchRow, unread: Unread) -> bool:
    whole = is_address(watch.client)
    if not whole:
        unread.tell(f"watch of {watch.decision_id}", "the client is no address; it is left out")
    return whole


def _counted(watch: WatchRow, unread: Unread) -> WatchRow:
    row = f"watch of {watch.decision_id}"
    return watch._replace(
        attempts=unread.counted(watch.attempts, row, "its attempts"),
        leaks=unread.counted(watch.leaks, row, "its leaks"),
    )
