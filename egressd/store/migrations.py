"""How a database comes to the shape that this version knows: numbered steps, each in a transaction with its own record.

A step that was released is never changed; a change of shape is a new step at the end. There is no way back: a database
that a newer version has touched is refused, for this one cannot know what its rows mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from egressd.store.errors import SCHEMA, StoreError
from egressd.store.records import MAX_GIVEN
from egressd.units import HOUR_US

Step = Callable[[Connection], None]

_RECORD: Final = """
CREATE TABLE IF NOT EXISTS migrations(
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_us INTEGER NOT NULL
) STRICT"""


def old_copy(path: Path, shape: int) -> Path:
    """Where the copy of a database lies that is made before its upgrade; `shape` is how many steps it had taken."""
    return path.with_name(f"{path.name}.shape-{shape}")


def migrate(
    connection: Connection,
    steps: Sequence[Step],
    path: Path,
    now_us: int,
    before: Callable[[Connection, int], None] | None = None,
) -> list[str]:
    """Take every step that was not taken yet; returns their names. The connection must be outside a transaction.
    `before` is called with the steps taken so far when there are some and more are to come.

    Raises StoreError when the database was made by a newer version or by something else.
    """
    known = [name_of(step) for step in steps]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "migrations" not in tables:
        raise StoreError(f"{path}: a database of something else, not of egressd; name another file", SCHEMA)
    taken = []
    if tables:
        taken = [name for (name,) in connection.execute("SELECT name FROM migrations ORDER BY number")]
    if len(taken) > len(known):
        raise StoreError(
            f"{path}: made by a newer egressd (shape {len(taken)}, this one knows {len(known)});"
            f" install that version again, or put the copy that it made at its first start,"
            f" {old_copy(path, len(known)).name}, in its place (docs/operating.md)",
            SCHEMA,
        )
    if taken != known[: len(taken)]:
        raise StoreError(f"{path}: its shape is not one that egressd had: {', '.join(taken)}", SCHEMA)
    if before is not None and 0 < len(taken) < len(known):
        before(connection, len(taken))
    for number in range(len(taken), len(known)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_RECORD)
            steps[number](connection)
            connection.execute("INSERT INTO migrations VALUES(?, ?, ?)", (number + 1, known[number], now_us))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    return known[len(taken) :]


def name_of(step: Step) -> str:
    """The name that a step is recorded under."""
    return str(getattr(step, "__name__", step))


def _make(connection: Connection, *statements: str) -> None:
    for statement in statements:  # not executescript: it would commit before its first statement
        connection.execute(statement)


# -- the ledger


def decisions_and_audit(connection: Connection) -> None:
    """Decisions with their targets, what adapters made of them, and the chain of audit rows."""
    _make(
        connection,
        """CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID""",
        # The last number given out of each kind: never again, whatever retention deletes.
        """CREATE TABLE numbers(kind TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        """INSERT INTO numbers VALUES('D', 0), ('I', 0), ('C', 0), ('E', 0)""",
        """CREATE TABLE decisions(
            number INTEGER PRIMARY KEY, created_us INTEGER NOT NULL, action TEXT NOT NULL, state TEXT NOT NULL,
            mode TEXT NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL, rule TEXT NOT NULL, evidence TEXT NOT NULL,
            match TEXT NOT NULL, registered_domain TEXT NOT NULL, client BLOB NOT NULL, name TEXT NOT NULL,
            campaign INTEGER NOT NULL, main_kind TEXT NOT NULL, main_value TEXT NOT NULL,
            ended_us INTEGER NOT NULL DEFAULT 0, ended_by TEXT NOT NULL DEFAULT '',
            ended_reason TEXT NOT NULL DEFAULT '',
            CHECK(state IN ('proposed', 'active', 'withdrawn', 'expired', 'undone'))
        ) STRICT""",
        # One decision in force per main target, however many packet processes come to it.
        """CREATE UNIQUE INDEX decisions_open ON decisions(main_kind, main_value)
            WHERE state IN ('proposed', 'active')""",
        """CREATE INDEX decisions_ended ON decisions(ended_us) WHERE ended_us > 0""",
        """CREATE INDEX decisions_by_campaign ON decisions(campaign)""",
        """CREATE TABLE targets(
            id INTEGER PRIMARY KEY, decision INTEGER NOT NULL REFERENCES decisions(number) ON DELETE CASCADE,
            kind TEXT NOT NULL, value TEXT NOT NULL, state TEXT NOT NULL, added_us INTEGER NOT NULL,
            expires_us INTEGER NOT NULL, level INTEGER NOT NULL, renewed_us INTEGER NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0, last_attempt_us INTEGER NOT NULL DEFAULT 0,
            UNIQUE(decision, kind, value), CHECK(state IN ('active', 'withdrawn', 'expired'))
        ) STRICT""",
        """CREATE INDEX targets_due ON targets(expires_us) WHERE state = 'active' AND expires_us > 0""",
        """CREATE INDEX targets_by_value ON targets(value, kind)""",
        """CREATE TABLE enforcements(
            target INTEGER NOT NULL REFERENCES targets(id) ON DELETE CASCADE, adapter TEXT NOT NULL,
            state TEXT NOT NULL, detail TEXT NOT NULL, ts_us INTEGER NOT NULL, PRIMARY KEY(target, adapter),
            CHECK(state IN ('pending', 'active', 'failed', 'unsupported', 'removed'))
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE audit(seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash BLOB NOT NULL) STRICT""",
    )


def watches_and_incidents(connection: Connection) -> None:
    """Who tries to reach what is blocked, and what a person handles."""
    _make(
        connection,
        """CREATE TABLE watches(
            decision INTEGER NOT NULL REFERENCES decisions(number) ON DELETE CASCADE, client BLOB NOT NULL,
            first_us INTEGER NOT NULL, last_us INTEGER NOT NULL, count INTEGER NOT NULL, leaks INTEGER NOT NULL,
            PRIMARY KEY(decision, client)
        ) STRICT, WITHOUT ROWID""",
        """CREATE INDEX watches_by_last ON watches(last_us)""",
        """CREATE TABLE timeline(
            hour INTEGER NOT NULL, decision INTEGER NOT NULL REFERENCES decisions(number) ON DELETE CASCADE,
            attempts INTEGER NOT NULL, leaks INTEGER NOT NULL, PRIMARY KEY(hour, decision)
        ) STRICT, WITHOUT ROWID""",
        """CREATE INDEX timeline_by_decision ON timeline(decision)""",
        # The last batch of each packet process that was counted: one that is sent again is not counted again.
        """CREATE TABLE batches(process TEXT PRIMARY KEY, last INTEGER NOT NULL, ts_us INTEGER NOT NULL)
            STRICT, WITHOUT ROWID""",
        """CREATE TABLE campaigns(
            number INTEGER PRIMARY KEY, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL
        ) STRICT""",
        """CREATE TABLE campaign_keys(
            key TEXT PRIMARY KEY, campaign INTEGER NOT NULL REFERENCES campaigns(number) ON DELETE CASCADE
        ) STRICT""",
        """CREATE INDEX campaign_keys_by_campaign ON campaign_keys(campaign)""",
        """CREATE TABLE incidents(
            number INTEGER PRIMARY KEY, campaign INTEGER NOT NULL REFERENCES campaigns(number), client BLOB NOT NULL,
            segment TEXT NOT NULL, state TEXT NOT NULL, match TEXT NOT NULL, registered_domain TEXT NOT NULL,
            opened_us INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
            contacts INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
            answered INTEGER NOT NULL DEFAULT 0, leaks INTEGER NOT NULL DEFAULT 0, retro INTEGER NOT NULL,
            names TEXT NOT NULL DEFAULT '{}', via TEXT NOT NULL DEFAULT '{}',
            acked_us INTEGER NOT NULL DEFAULT 0, acked_by TEXT NOT NULL DEFAULT '',
            closed_us INTEGER NOT NULL DEFAULT 0,
            CHECK(state IN ('open', 'acknowledged', 'closed'))
        ) STRICT""",
        """CREATE UNIQUE INDEX incidents_open ON incidents(campaign, client) WHERE state <> 'closed'""",
        """CREATE INDEX incidents_by_client ON incidents(client)""",
        """CREATE INDEX incidents_closed ON incidents(closed_us) WHERE closed_us > 0""",
    )


def operators_entries(connection: Connection) -> None:
    """Indicators and allowances that people add while the daemon runs."""
    _make(
        connection,
        """CREATE TABLE entries(
            number INTEGER PRIMARY KEY, kind TEXT NOT NULL, text TEXT NOT NULL, author TEXT NOT NULL,
            reason TEXT NOT NULL, created_us INTEGER NOT NULL, expires_us INTEGER NOT NULL,
            removed_us INTEGER NOT NULL DEFAULT 0, removed_by TEXT NOT NULL DEFAULT '',
            CHECK(kind IN ('indicator', 'allowance'))
        ) STRICT""",
        """CREATE INDEX entries_in_force ON entries(kind) WHERE removed_us = 0""",
    )


def feeds_and_verdicts(connection: Connection) -> None:
    """How each feed stands and what it met; what people say of incidents, by the source that they rest on."""
    _make(
        connection,
        """CREATE TABLE feeds(
            name TEXT PRIMARY KEY, last_try_us INTEGER NOT NULL DEFAULT 0, last_ok_us INTEGER NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT '', indicators INTEGER NOT NULL DEFAULT 0, added INTEGER NOT NULL DEFAULT 0,
            removed INTEGER NOT NULL DEFAULT 0, quarantined INTEGER NOT NULL DEFAULT 0,
            hits INTEGER NOT NULL DEFAULT 0, unique_hits INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID""",
        # No reference to incidents: a verdict outlives the retention of what it is about.
        """CREATE TABLE verdicts(
            incident INTEGER PRIMARY KEY, source TEXT NOT NULL, value TEXT NOT NULL, verdict TEXT NOT NULL,
            by TEXT NOT NULL, reason TEXT NOT NULL, ts_us INTEGER NOT NULL,
            CHECK(verdict IN ('false-positive', 'confirmed'))
        ) STRICT""",
        """CREATE INDEX verdicts_by_source ON verdicts(source)""",
    )


def allowances_and_notes(connection: Connection) -> None:
    """What an allowance lifted, so that it can stand again as it was; and what an incident has been told of since."""
    _make(
        connection,
        "ALTER TABLE decisions ADD COLUMN ended_from TEXT NOT NULL DEFAULT ''",  # the state before the end
        "ALTER TABLE targets ADD COLUMN withdrawn_by TEXT NOT NULL DEFAULT ''",  # by what rule or whom
        """CREATE INDEX decisions_by_main ON decisions(main_kind, main_value)""",
        """CREATE TABLE incident_notes(
            id INTEGER PRIMARY KEY, incident INTEGER NOT NULL REFERENCES incidents(number) ON DELETE CASCADE,
            ts_us INTEGER NOT NULL, text TEXT NOT NULL, allowance TEXT NOT NULL
        ) STRICT""",
        """CREATE INDEX incident_notes_by_incident ON incident_notes(incident)""",
    )


def sources_of_incidents(connection: Connection) -> None:
    """Which sensors told of an incident's contacts, and of how many. What there is was told by our own tap."""
    _make(
        connection,
        "ALTER TABLE incidents ADD COLUMN sources TEXT NOT NULL DEFAULT '{}'",
        "UPDATE incidents SET sources = json_object('tap', contacts) WHERE contacts > 0 AND retro = 0",
    )


def devices_and_ties(connection: Connection) -> None:
    """Whose an incident is beyond its address, and what ties a campaign. Two devices may have had one address, so an
    open incident is one of a device, or of a client without one."""
    _make(
        connection,
        "ALTER TABLE incidents ADD COLUMN device TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE incidents ADD COLUMN addresses TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE incidents ADD COLUMN volume TEXT NOT NULL DEFAULT ''",
        "DROP INDEX incidents_open",
        """CREATE UNIQUE INDEX incidents_open ON incidents(campaign, client, device) WHERE state <> 'closed'""",
        """CREATE INDEX incidents_by_device ON incidents(device) WHERE device <> ''""",
        "ALTER TABLE campaigns ADD COLUMN ties TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE campaigns ADD COLUMN candidates TEXT NOT NULL DEFAULT '{}'",
        # Pairs of campaigns that a person said do not belong together.
        """CREATE TABLE rejected_ties(
            campaign INTEGER NOT NULL, candidate INTEGER NOT NULL, PRIMARY KEY(campaign, candidate)
        ) STRICT, WITHOUT ROWID""",
    )


def incidents_of_campaigns(connection: Connection) -> None:
    """One campaign takes over another's incidents, closed ones too: without going through those of all campaigns."""
    _make(connection, "CREATE INDEX incidents_by_campaign ON incidents(campaign)")


def tries_let_through(connection: Connection) -> None:
    """Of an incident's attempts, and of a client's at a decision, those that nothing stopped: the mode was monitor."""
    _make(
        connection,
        "ALTER TABLE incidents ADD COLUMN let_through INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE watches ADD COLUMN let_through INTEGER NOT NULL DEFAULT 0",
    )
    since_us = _monitor_since(connection)
    if since_us:  # else screens would tell of three tries out of five hundred, once a person arms
        connection.execute("UPDATE incidents SET let_through = attempts WHERE opened_us >= ?", (since_us,))
        connection.execute("UPDATE watches SET let_through = count WHERE first_us >= ?", (since_us,))


def hours_let_through(connection: Connection) -> None:
    """The same of each hour's, which `egressd status` counts a day of."""
    _make(connection, "ALTER TABLE timeline ADD COLUMN let_through INTEGER NOT NULL DEFAULT 0")
    since_us = _monitor_since(connection)
    if since_us:
        connection.execute("UPDATE timeline SET let_through = attempts WHERE hour > ?", (since_us // HOUR_US,))


def _monitor_since(connection: Connection) -> int:
    """Since when nobody is kept from anything, as the last run left it (runtime/arming.py); 0 when somebody is, or that
    is not known."""
    try:
        left, how = (
            json.loads(text)
            for (text,) in connection.execute(
                "SELECT value FROM meta WHERE key IN ('modes', 'modes since') ORDER BY key"
            )
        )
        is_off = {left["mode"], *left["modes"].values()} == {"monitor"}
        since_us = max(row[0] for row in how.values()) if is_off and all(row[0] > 0 for row in how.values()) else 0
    except (ValueError, LookupError, TypeError, AttributeError):  # one row of two, or damaged
        return 0
    return since_us if type(since_us) is int and since_us <= MAX_GIVEN else 0


LEDGER: Final[tuple[Step, ...]] = (
    decisions_and_audit,
    watches_and_incidents,
    operators_entries,
    feeds_and_verdicts,
    allowances_and_notes,
    sources_of_incidents,
    devices_and_ties,
    incidents_of_campaigns,
    tries_let_through,
    hours_let_through,
)


# -- the history


def contacts_and_tenants(connection: Connection) -> None:
    """Contacts per client, name, address and hour; which registered domain was seen at which address."""
    _make(
        connection,
        """CREATE TABLE names(
            id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, registered_domain TEXT NOT NULL
        ) STRICT""",
        """CREATE INDEX names_by_domain ON names(registered_domain)""",
        """CREATE TABLE contacts(
            name INTEGER NOT NULL, client BLOB NOT NULL, address BLOB NOT NULL, hour INTEGER NOT NULL,
            count INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
            PRIMARY KEY(name, client, address, hour)
        ) STRICT, WITHOUT ROWID""",
        """CREATE INDEX contacts_by_hour ON contacts(hour)""",
        """CREATE INDEX contacts_by_client ON contacts(client)""",
        """CREATE INDEX contacts_by_address ON contacts(address)""",
        """CREATE TABLE pdns(
            address BLOB NOT NULL, registered_domain TEXT NOT NULL, first_us INTEGER NOT NULL,
            last_us INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY(address, registered_domain)
        ) STRICT, WITHOUT ROWID""",
        """CREATE INDEX pdns_by_last ON pdns(last_us)""",
    )


def told_contacts(connection: Connection) -> None:
    """How many of the contacts were told as incidents, because what they reached was listed later."""
    _make(connection, "ALTER TABLE contacts ADD COLUMN told INTEGER NOT NULL DEFAULT 0")


HISTORY: Final[tuple[Step, ...]] = (contacts_and_tenants, told_contacts)
