"""Incidents, one per client and campaign, and the campaigns that tie them.

Who belongs together is decided in detect/campaigns.py; here its state is kept, and what people did to it. Every
function runs inside `Database.run`, `read` or `call`.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

from egressd.model import Campaign, Incident, Target
from egressd.store import audit
from egressd.store.attempts import add_counts, known_counts
from egressd.store.audit import Act
from egressd.store.errors import refused
from egressd.store.notes import Note, add_notes
from egressd.store.records import (
    CAMPAIGN,
    INCIDENT,
    claim_number,
    is_given,
    number_of,
    parse_addresses,
    parse_counts,
    parse_match,
    parse_reasons,
    parse_texts,
    plus,
    render_addresses,
    render_counts,
    render_match,
    render_reasons,
    render_texts,
)
from egressd.store.unread import Unread, match_about

OPEN: Final = "open"
ACKNOWLEDGED: Final = "acknowledged"
CLOSED: Final = "closed"


class IncidentRow(NamedTuple):
    """An incident as the ledger has it."""

    incident: Incident
    segment: str
    state: str
    leaks: int
    acked_us: int
    acked_by: str
    closed_us: int


def merge_campaigns(connection: Connection, one: str, other: str) -> list[tuple[str, str]]:
    """Two campaigns turned out to be one: the older takes over the younger. Returns (gone, kept) incidents of clients
    that had one in both. The same id twice changes nothing."""
    into, gone = sorted((number_of(one, CAMPAIGN), number_of(other, CAMPAIGN)))
    return _merge(connection, into, gone) if into != gone else []


def put_incident(connection: Connection, incident: Incident, segment: str = "", leaks: int = 0) -> bool:
    """Keep an incident as a process that counts alone has it; True when it is new. Its campaign must be there. What
    people did to it stays."""
    number = claim_number(connection, incident.id, INCIDENT)
    updated = connection.execute(
        "UPDATE incidents SET campaign = ?, first_us = ?, last_us = ?, contacts = ?, attempts = ?, answered = ?,"
        " leaks = max(leaks, ?), retro = ?, names = ?, via = ?, match = ?, sources = ?, device = ?, addresses = ?,"
        " volume = ?, let_through = ?, segment = CASE WHEN ? = '' THEN segment ELSE ? END WHERE number = ?",
        (
            number_of(incident.campaign, CAMPAIGN), incident.first_us, incident.last_us, incident.contacts,
            incident.attempts, incident.answered, leaks, incident.retro, render_counts(incident.names),
            render_counts(incident.via), render_match(incident.match), render_counts(incident.sources), incident.device,
            render_addresses(incident.addresses), incident.volume, incident.let_through, segment, segment, number,
        ),
    ).rowcount  # fmt: skip
    if not updated:
        _insert(connection, number, incident, segment, leaks)
    return not updated


def put_campaign(connection: Connection, campaign: Campaign) -> None:
    """Keep a campaign; the keys that it has here are added to those that it had. One that another held moves."""
    number = claim_number(connection, campaign.id, CAMPAIGN)
    connection.execute(
        "INSERT INTO campaigns VALUES(?, ?, ?, ?, ?) ON CONFLICT(number) DO UPDATE SET"
        " first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us),"
        " ties = excluded.ties, candidates = excluded.candidates",
        (
            number,
            campaign.first_us,
            campaign.last_us,
            render_texts(campaign.ties),
            render_reasons(campaign.candidates),
        ),
    )
    connection.executemany(
        "INSERT INTO campaign_keys VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET campaign = excluded.campaign"
        " WHERE campaign <> excluded.campaign",
        [(key, number) for key in campaign.keys],
    )


def fold_incidents(connection: Connection, kept: str, gone: str) -> None:
    """One device was behind both: the older takes over the younger. Nothing happens when that is done already."""
    into, other = number_of(kept, INCIDENT), number_of(gone, INCIDENT)
    found = connection.execute("SELECT count(*) FROM incidents WHERE number IN (?, ?)", (into, other)).fetchone()[0]
    if found == 2 and into != other:
        _take_over(connection, into, other)


def reject_tie(connection: Connection, campaign: str, candidate: str, ts_us: int, act: Act) -> None:
    """A person says that two campaigns do not belong together."""
    pair = (number_of(campaign, CAMPAIGN), number_of(candidate, CAMPAIGN))
    connection.execute("INSERT OR IGNORE INTO rejected_ties VALUES(?, ?)", pair)
    audit.append(connection, act._replace(object=campaign), ts_us)


def load_rejected(connection: Connection) -> list[tuple[str, str]]:
    """Pairs of campaigns that a person said do not belong together."""
    rows = connection.execute("SELECT campaign, candidate FROM rejected_ties ORDER BY campaign, candidate")
    return [(f"{CAMPAIGN}{one}", f"{CAMPAIGN}{other}") for one, other in rows]


def acknowledge(connection: Connection, id_: str, ts_us: int, by: str, act: Act) -> bool:
    """A person knows of it; False when that was so before. Raises StoreError when it is closed or not there."""
    number = number_of(id_, INCIDENT)
    row = connection.execute("SELECT state FROM incidents WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise refused(f"there is no incident {id_}")
    (state,) = row
    if state == CLOSED:
        raise refused(f"{id_} is closed")
    if state == ACKNOWLEDGED:
        return False
    connection.execute(
        "UPDATE incidents SET state = 'acknowledged', acked_us = ?, acked_by = ? WHERE number = ?", (ts_us, by, number)
    )
    audit.append(connection, act._replace(object=id_, before={"state": state}, after={"state": ACKNOWLEDGED}), ts_us)
    return True


def take_back_acknowledgement(connection: Connection, id_: str, ts_us: int, act: Act) -> bool:
    """Nobody has it in hand; False when that is so already, or it is closed."""
    number = number_of(id_, INCIDENT)
    changed = connection.execute(
        "UPDATE incidents SET state = 'open', acked_us = 0, acked_by = '' WHERE number = ? AND state = 'acknowledged'",
        (number,),
    ).rowcount
    if changed:
        audit.append(connection, act._replace(object=id_, before={"state": ACKNOWLEDGED}, after={"state": OPEN}), ts_us)
    return bool(changed)


def close(connection: Connection, id_: str, ts_us: int, act: Act) -> None:
    """A person is done with it. Raises StoreError when it is closed already or not there."""
    number = number_of(id_, INCIDENT)
    row = connection.execute("SELECT state FROM incidents WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise refused(f"there is no incident {id_}")
    if row[0] == CLOSED:
        raise refused(f"{id_} is closed already")
    connection.execute("UPDATE incidents SET state = 'closed', closed_us = ? WHERE number = ?", (ts_us, number))
    _on_record(connection, id_, ts_us, "closed", act._replace(before={"state": row[0]}, after={"state": CLOSED}))


def reopen(connection: Connection, id_: str, ts_us: int, act: Act) -> bool:
    """That was a mistake: it is as it was before. False when it is not there, or not closed."""
    row = connection.execute(
        "UPDATE incidents SET state = iif(acked_us > 0, 'acknowledged', 'open'), closed_us = 0"
        " WHERE number = ? AND state = 'closed' RETURNING state",
        (number_of(id_, INCIDENT),),
    ).fetchone()
    if row is not None:
        _on_record(
            connection, id_, ts_us, "opened again", act._replace(before={"state": CLOSED}, after={"state": row[0]})
        )
    return row is not None


def _on_record(connection: Connection, id_: str, ts_us: int, what: str, act: Act) -> None:
    add_notes(connection, [Note(id_, ts_us, f"{what} by {act.actor}: {act.reason}", "")])
    audit.append(connection, act._replace(object=id_), ts_us)


def load_incidents(connection: Connection, unread: Unread | None = None) -> list[IncidentRow]:
    """Every incident that is not closed, in order of discovery."""
    return load_where(connection, "WHERE state <> 'closed' ORDER BY number", (), unread)


def load_incident(connection: Connection, id_: str) -> IncidentRow | None:
    """One incident; None when there is none of that id."""
    found = load_where(connection, "WHERE number = ?", (number_of(id_, INCIDENT),))
    return found[0] if found else None


def load_campaigns(connection: Connection, unread: Unread | None = None) -> list[Campaign]:
    """Every campaign with its keys and its incidents that are not closed, in order of discovery. What cannot be read is
    left out, and `unread` told."""
    unread = unread or Unread()
    campaigns: dict[int, Campaign] = {}
    for number, first_us, last_us, ties, candidates in connection.execute(
        "SELECT number, first_us, last_us, ties, candidates FROM campaigns ORDER BY number"
    ):
        id_ = f"{CAMPAIGN}{number}"
        row = f"campaign {id_}"
        if not unread.numbered(row, number):
            continue
        campaigns[number] = Campaign(
            id_, [], [], first_us, last_us, unread.parsed(parse_texts, ties, [], row, "its ties"),
            unread.parsed(parse_reasons, candidates, {}, row, "its candidates"),
        )  # fmt: skip
    for key, number in connection.execute("SELECT key, campaign FROM campaign_keys ORDER BY rowid"):
        row = f"a key of campaign {CAMPAIGN}{number}"
        if number not in campaigns:
            unread.tell(row, "the campaign is not there; it is left out")
        elif not unread.garbled(row, (key,)):
            campaigns[number].keys.append(key)
    for incident, number, first_us, last_us in connection.execute(
        "SELECT number, campaign, first_us, last_us FROM incidents WHERE state <> 'closed' ORDER BY number"
    ):
        if not (is_given(incident) and is_given(number)):
            continue  # left out, as `load_where` tells
        if number not in campaigns:
            unread.tell(f"campaign {CAMPAIGN}{number}", "it is not there, and begins anew with its incidents")
            campaigns[number] = Campaign(f"{CAMPAIGN}{number}", [], [], first_us, last_us)
        campaigns[number].incidents.append(f"{INCIDENT}{incident}")
    return list(campaigns.values())


def load_where(
    connection: Connection, where: str, values: tuple[Any, ...], unread: Unread | None = None
) -> list[IncidentRow]:
    """The incidents that fit. `where` is SQL of this room's own, never of anybody else's making. What cannot be read of
    a row is left out, and `unread` told."""
    unread = unread or Unread()
    rows = connection.execute(
        "SELECT number, campaign, client, match, opened_us, first_us, last_us, contacts, attempts, answered, retro,"
        " names, via, sources, device, addresses, volume, registered_domain, segment, state, leaks, acked_us, acked_by,"
        f" closed_us, let_through FROM incidents {where}",
        values,
    )
    return [_row(row, unread) for row in rows if unread.numbered(f"incident {INCIDENT}{row[0]}", *row[:2])]


def _row(row: Sequence[Any], unread: Unread) -> IncidentRow:
    number, campaign, client, text, opened_us, first_us, last_us, contacts, attempts, answered, retro, *rest = row
    names, via, sources, device, addresses, volume, domain, segment, state, leaks, acked_us, acked_by, *rest = rest
    closed_us, through = rest
    id_ = f"{INCIDENT}{number}"
    told = f"incident {id_}"
    unread.garbled(told, row)
    about = match_about(Target("registered_domain", domain), domain)

    def counts(column: str, what: str) -> dict[str, int]:
        return unread.parsed(parse_counts, column, {}, told, what)

    incident = Incident(
        id_, f"{CAMPAIGN}{campaign}", client, unread.parsed(parse_match, text, about, told, "its reasons"), opened_us,
        first_us, last_us, unread.counted(contacts, told, "its contacts"),
        unread.counted(attempts, told, "its attempts"), unread.counted(answered, told, "its answers"), bool(retro), 0,
        counts(names, "its names"), counts(via, "its ways"), counts(sources, "its sources"), device,
        unread.parsed(parse_addresses, addresses, [], told, "its addresses"), volume,
        let_through=unread.counted(through, told, "its attempts that were let through"),
    )  # fmt: skip
    leaks = unread.counted(leaks, told, "its leaks")
    return IncidentRow(incident, segment, state, leaks, acked_us, acked_by, closed_us)


def _insert(connection: Connection, number: int, incident: Incident, segment: str, leaks: int) -> None:
    connection.execute(
        "INSERT INTO incidents(number, campaign, client, segment, state, match, registered_domain, opened_us, first_us,"
        " last_us, contacts, attempts, answered, leaks, retro, names, via, sources, device, addresses, volume,"
        " let_through) VALUES(?, ?, ?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number, number_of(incident.campaign, CAMPAIGN), incident.client, segment, render_match(incident.match),
            incident.match.registered_domain, incident.opened_us, incident.first_us, incident.last_us,
            incident.contacts, incident.attempts, incident.answered, leaks, incident.retro,
            render_counts(incident.names), render_counts(incident.via), render_counts(incident.sources),
            incident.device, render_addresses(incident.addresses), incident.volume, incident.let_through,
        ),
    )  # fmt: skip


def _merge(connection: Connection, into: int, gone: int) -> list[tuple[str, str]]:
    """Campaign `into` takes over `gone`; of a client with an open incident in both the older takes over the younger."""
    connection.execute(
        "INSERT OR IGNORE INTO campaigns(number, first_us, last_us)"
        " SELECT ?, first_us, last_us FROM campaigns WHERE number = ?",
        (into, gone),
    )  # the older one may have had nothing to write yet
    # From what goes to what stays, which may have thousands, and there by client or device: CROSS JOIN and the plus
    # keep SQLite from choosing otherwise (https://www.sqlite.org/optoverview.html).
    twins = connection.execute(
        "SELECT min(a.number, b.number), max(a.number, b.number) FROM incidents b CROSS JOIN incidents a"
        " ON a.campaign = ?1 AND a.client = b.client AND a.device = '' AND a.state <> 'closed'"
        " WHERE b.campaign = ?2 AND b.device = '' AND b.state <> 'closed'"
        " UNION ALL SELECT min(a.number, b.number), max(a.number, b.number) FROM incidents b CROSS JOIN incidents a"
        " ON +a.campaign = ?1 AND a.device = b.device AND a.device <> '' AND a.state <> 'closed'"
        " WHERE b.campaign = ?2 AND b.device <> '' AND b.state <> 'closed'",
        (into, gone),
    ).fetchall()
    for kept, other in twins:
        _take_over(connection, kept, other)
    connection.execute("UPDATE incidents SET campaign = ? WHERE campaign = ?", (into, gone))
    connection.execute("UPDATE decisions SET campaign = ? WHERE campaign = ?", (into, gone))
    connection.execute("UPDATE campaign_keys SET campaign = ? WHERE campaign = ?", (into, gone))
    connection.execute(
        "UPDATE campaigns AS k SET first_us = min(k.first_us, o.first_us), last_us = max(k.last_us, o.last_us)"
        " FROM (SELECT first_us, last_us FROM campaigns WHERE number = ?) AS o WHERE k.number = ?",
        (gone, into),
    )
    connection.execute("DELETE FROM campaigns WHERE number = ?", (gone,))
    return [(f"{INCIDENT}{other}", f"{INCIDENT}{kept}") for kept, other in twins]


def _take_over(connection: Connection, kept: int, other: int) -> None:
    """Incident `kept` takes over what `other` counted, its notes and its addresses."""
    one = connection.execute(
        "SELECT names, via, addresses, sources FROM incidents WHERE number = ?", (kept,)
    ).fetchone()
    gone = connection.execute(
        "SELECT names, via, addresses, sources FROM incidents WHERE number = ?", (other,)
    ).fetchone()
    connection.execute(
        "UPDATE incidents AS k SET (first_us, last_us, contacts, attempts, answered, leaks, let_through) ="
        f" (SELECT min(k.first_us, o.first_us), max(k.last_us, o.last_us), {plus('k.contacts', 'o.contacts')},"
        f"  {plus('k.attempts', 'o.attempts')}, {plus('k.answered', 'o.answered')}, {plus('k.leaks', 'o.leaks')},"
        f"  {plus('k.let_through', 'o.let_through')}"
        "  FROM incidents o WHERE number = ?),"
        " names = ?, via = ?, sources = ?, addresses = ? WHERE number = ?",
        (
            other,
            add_counts(one[0], known_counts(gone[0]).items()),
            add_counts(one[1], known_counts(gone[1]).items()),
            add_counts(one[3], known_counts(gone[3]).items()),
            render_addresses(list(dict.fromkeys(known_addresses(one[2]) + known_addresses(gone[2])))),
            kept,
        ),
    )
    connection.execute("UPDATE incident_notes SET incident = ? WHERE incident = ?", (kept, other))
    connection.execute("DELETE FROM incidents WHERE number = ?", (other,))


def known_addresses(text: str) -> list[bytes]:
    """Packed addresses as stored; of what cannot be read none."""
    return Unread().parsed(parse_addresses, text, [], "", "")
