"""What the control socket shows, as plain values with the field names of the control protocol.

Every key that ends in `_us` is a time in epoch microseconds, or None for "never"; whoever serves it renders the time
under the key without `_us`. Addresses are text. Every function runs inside `Database.read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import Any, Final

from egressd.intel.networks import render_address
from egressd.store import decision_rows, targets
from egressd.store.attempts import attempts_since
from egressd.store.decision_rows import DecisionRow
from egressd.store.decisions import ENDED, OPEN
from egressd.store.errors import refused
from egressd.store.incidents import ACKNOWLEDGED, CLOSED, IncidentRow, known_addresses, load_where
from egressd.store.incidents import OPEN as OPEN_INCIDENT
from egressd.store.notes import Note, load_notes
from egressd.store.records import CAMPAIGN, DECISION, INCIDENT, indicator_of, number_of
from egressd.store.variables import chunks, marks
from egressd.units import DAY_US, SECOND_US

DEFAULT_LIMIT: Final = 1_000
WATCHED_KINDS: Final = ("address", "network", "pair")  # what a watch lists as its addresses
_WATCHED: Final = "state = 'active' AND main_kind NOT IN ('client', 'segment')"  # those are of machines of ours


def status(connection: Connection, now_us: int, armed_us: int = 0) -> dict[str, Any]:
    """Counts for `status`: `adapters` by name, `blocks`, `watch` and `incidents`; the daemon adds the rest. Who tried
    before `armed_us` only, when nothing was blocked, tries nothing that is."""
    adapters = {
        name: {state: counts.get(state, 0) for state in ("active", "pending", "failed", "unsupported")}
        for name, counts in targets.enforcement_counts(connection).items()
    }
    return {
        "adapters": adapters,
        "blocks": _blocks(connection),
        "watch": _watch_counts(connection, now_us, armed_us),
        "incidents": {
            "open": _one(connection, "SELECT count(*) FROM incidents WHERE state <> 'closed'"),
            "new_24h": _one(connection, "SELECT count(*) FROM incidents WHERE opened_us > ?", now_us - DAY_US),
        },
    }


def hosts(connection: Connection) -> list[dict[str, Any]]:
    """The census: every device, or client without one, with an incident that is not closed, in order of its first.
    `client` is the address that it was seen under last."""
    isolated = {
        value
        for (value,) in connection.execute(
            "SELECT t.value FROM targets t JOIN decisions d ON d.number = t.decision"
            " WHERE t.kind = 'client' AND t.state = 'active' AND d.state = 'active'"
        )
    }
    found: dict[str | bytes, dict[str, Any]] = {}
    rows = connection.execute(
        "SELECT client, device, addresses, number, segment, registered_domain, contacts, attempts, leaks, first_us,"
        " last_us, opened_us, let_through FROM incidents WHERE state <> 'closed' ORDER BY number"
    )
    for (
        client,
        device,
        packed,
        number,
        segment,
        domain,
        contacts,
        attempts,
        leaks,
        first_us,
        last_us,
        opened_us,
        through,
    ) in rows:
        addresses = [render_address(one) for one in known_addresses(packed) or [client]]
        host = found.get(device or client)
        if host is None:
            host = found[device or client] = {
                "client": addresses[-1], "device": device or None, "addresses": [], "segment": segment,
                "incidents": [], "domains": [], "contacts": 0, "attempts": 0, "let_through": 0, "leaks": 0,
                "first_us": first_us, "last_us": last_us, "opened_us": opened_us, "isolated": False,
            }  # fmt: skip
        elif last_us > host["last_us"]:
            host["client"] = addresses[-1]
        host["addresses"] = list(dict.fromkeys(host["addresses"] + addresses))
        host["isolated"] = host["isolated"] or not isolated.isdisjoint(addresses)
        host["incidents"].append(f"{INCIDENT}{number}")
        if domain and domain not in host["domains"]:
            host["domains"].append(domain)
        host["segment"] = segment or host["segment"]
        host["contacts"] += contacts
        host["attempts"] += attempts
        host["let_through"] += through
        host["leaks"] += leaks
        host["first_us"] = min(host["first_us"], first_us)
        host["last_us"] = max(host["last_us"], last_us)
        host["opened_us"] = min(host["opened_us"], opened_us)
    return list(found.values())


def incidents(
    connection: Connection, state: str = "", client: bytes = b"", limit: int = DEFAULT_LIMIT
) -> list[dict[str, Any]]:
    """The newest incidents, oldest of them first: all that are not closed, or those of one state; of one client if
    given. Raises StoreError for an unknown state."""
    if state not in ("", "all", OPEN_INCIDENT, ACKNOWLEDGED, CLOSED):
        raise refused(f"no incident state {state!a}; choose open, acknowledged, closed or all")
    which = {"": "state <> 'closed'", "all": "1"}.get(state, "state = ?")
    values: list[Any] = [state] if which == "state = ?" else []
    if client:
        which += " AND (client = ? OR CASE WHEN json_valid(addresses) THEN"
        which += " EXISTS (SELECT 1 FROM json_each(addresses) WHERE value = ?) END)"
        values += [client, client.hex()]
    found = load_where(connection, f"WHERE {which} ORDER BY number DESC LIMIT ?", (*values, limit))[::-1]
    by_campaign = _decisions_of(connection, {row.incident.campaign for row in found})
    notes = load_notes(connection, [row.incident.id for row in found])
    return [_incident(row, by_campaign.get(row.incident.campaign, []), notes.get(row.incident.id, [])) for row in found]


def watches(connection: Connection, now_us: int, id_: str = "", limit: int = DEFAULT_LIMIT) -> list[dict[str, Any]]:
    """What each active block keeps from whom, with the clients that tried: the newest blocks, or one. `attempts` of an
    address is what the ledger counted; the kernel's `packets` are the daemon's to add. Raises StoreError for an unknown
    id."""
    if id_:
        rows = [_known(connection, id_)]
    else:
        rows = decision_rows.load_where(connection, _WATCHED, (), limit)
    wanted = [number_of(row.id, DECISION) for row in rows]
    clients = _clients_of(connection, wanted)
    return [_watch(row, clients.get(row.id, []), now_us) for row in rows if row.targets]


def decisions_told(
    connection: Connection, state: str = "", limit: int = DEFAULT_LIMIT, id_: str = ""
) -> list[dict[str, Any]]:
    """The newest decisions with all their targets and what adapters made of them, oldest first: all, those of one state
    (`open`: proposed and active), or one. Raises StoreError for an unknown state or id."""
    if id_:
        rows = [_known(connection, id_)]
    elif state == "open":
        rows = decision_rows.load_where(connection, "state IN ('proposed', 'active')", (), limit)
    elif state in ("", "all"):
        rows = decision_rows.load_where(connection, "1", (), limit)
    elif state in OPEN or state in ENDED:
        rows = decision_rows.load_where(connection, "state = ?", (state,), limit)
    else:
        raise refused(f"no decision state {state!a}; choose {', '.join((*OPEN, *ENDED))}, open or all")
    made = _enforcements_of(connection, [number_of(row.id, DECISION) for row in rows])
    return [_decision(row, made) for row in rows]


# -- parts


def _blocks(connection: Connection) -> dict[str, int]:
    states = dict(
        connection.execute("SELECT state, count(*) FROM decisions WHERE state IN ('proposed', 'active') GROUP BY state")
    )
    kinds = dict(
        connection.execute(
            "SELECT t.kind, count(*) FROM targets t JOIN decisions d ON d.number = t.decision"
            " WHERE t.state = 'active' AND d.state = 'active' GROUP BY t.kind"
        )
    )
    cut = "SELECT count(*) FROM decisions WHERE state = 'active' AND main_kind = 'segment'"
    return {
        "active": states.get("active", 0),
        "proposed": states.get("proposed", 0),
        "addresses": kinds.get("address", 0),
        "pairs": kinds.get("pair", 0),
        "clients_isolated": kinds.get("client", 0),
        "segments_cut": _one(connection, cut),
    }


def _watch_counts(connection: Connection, now_us: int, armed_us: int) -> dict[str, Any]:
    attempts, through, leaks = attempts_since(connection, now_us - DAY_US)
    last = connection.execute("SELECT max(last_us) FROM watches").fetchone()[0]
    trying = (
        "SELECT DISTINCT w.client FROM watches w JOIN decisions d ON d.number = w.decision"
        " WHERE w.last_us > ? AND d.state = 'active'"  # of what was lifted nobody is kept from anything,
        " AND d.main_kind <> 'url'"  # and of one page neither
    )
    since_us = max(now_us - DAY_US, armed_us)
    clients = [client for (client,) in connection.execute(trying, (since_us,))]
    return {
        "blocks_watched": _one(connection, f"SELECT count(*) FROM decisions WHERE {_WATCHED}"),
        "clients_trying": _machines(connection, clients, since_us),
        "attempts_24h": attempts,
        "let_through_24h": through,
        "leaks_24h": leaks,
        "last_attempt_us": last,
    }


def _machines(connection: Connection, clients: Sequence[bytes], since_us: int) -> int:
    """How many machines have these addresses, as `hosts` tells them apart: by the last incident of each since then,
    which may be of a machine without a known MAC."""
    if len(clients) < 2:
        return len(clients)
    devices: dict[bytes, str] = {}
    known = "SELECT device, client, addresses FROM incidents WHERE last_us > ? ORDER BY last_us"
    for device, client, packed in connection.execute(known, (since_us,)):
        devices.update(dict.fromkeys(known_addresses(packed) or [client], device))
    return len({devices.get(client) or client for client in clients})


def _incident(row: IncidentRow, ids: list[str], notes: list[Note]) -> dict[str, Any]:
    incident = row.incident
    return {
        "id": incident.id,
        "campaign": incident.campaign,
        "client": _address((incident.addresses or [incident.client])[-1]),
        "device": incident.device or None,
        "addresses": [_address(one) for one in incident.addresses or [incident.client]],
        "segment": row.segment,
        "state": row.state,
        "registered_domain": incident.match.registered_domain,
        "match_level": incident.match.level,
        "indicator": indicator_of(incident.match),
        "opened_us": incident.opened_us,
        "first_us": incident.first_us,
        "last_us": incident.last_us,
        "contacts": incident.contacts,
        "attempts": incident.attempts,
        "let_through": incident.let_through,
        "answered": incident.answered,
        "leaks": row.leaks,
        "names": incident.names,
        "via": incident.via,
        "sources": incident.sources,
        "retro": incident.retro,
        "volume": incident.volume or None,
        "acked_by": row.acked_by or None,
        "acked_us": row.acked_us or None,
        "decisions": ids,
        "notes": [{"ts_us": one.ts_us, "text": one.text} for one in notes],
    }


def _watch(row: DecisionRow, clients: list[dict[str, Any]], now_us: int) -> dict[str, Any]:
    last_us = max((one["last_us"] for one in clients), default=0)
    main = row.targets[0].target
    return {
        "decision_id": row.id,
        "target": {"kind": main.kind, "value": main.value},
        "state": row.state,
        "mode": row.mode,
        "since_us": row.created_us,
        "clients": clients,
        "attempts": sum(one["count"] for one in clients),
        "let_through": sum(one["let_through"] for one in clients),
        "leaks": sum(one["leaks"] for one in clients),
        "last_us": last_us or None,
        "addresses": [
            {
                "value": one.target.value, "kind": one.target.kind, "state": one.state,
                "expires_us": one.expires_us or None, "attempts": one.attempts, "level": one.level,
            }
            for one in row.targets
            if one.target.kind in WATCHED_KINDS
        ],
        "quiet_s": max(0, now_us - last_us) // SECOND_US if last_us else None,
    }  # fmt: skip


def _decision(row: DecisionRow, made: dict[tuple[str, str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "id": row.id,
        "action": row.action,
        "state": row.state,
        "created_us": row.created_us,
        "author": row.author,
        "mode": row.mode,
        "targets": [
            {
                "kind": one.target.kind, "value": one.target.value, "state": one.state,
                "expires_us": one.expires_us or None,
                "enforcements": made.get((row.id, one.target.kind, one.target.value), []),
            }
            for one in row.targets
        ],
        "reason": row.reason,
        "rule": row.rule,
        "evidence": row.evidence,
        "registered_domain": row.match.registered_domain,
        "name": row.name,
        "client": _address(row.client),
        "campaign": row.campaign,
        "match_level": row.match.level,
        "indicator": indicator_of(row.match),
        "ended_us": row.ended_us or None,
        "ended_by": row.ended_by or None,
        "ended_reason": row.ended_reason or None,
    }  # fmt: skip


def _clients_of(connection: Connection, numbers: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for some in chunks(numbers):
        for number, client, first_us, last_us, count, leaks, through in connection.execute(
            "SELECT decision, client, first_us, last_us, count, leaks, let_through FROM watches"
            f" WHERE decision IN ({marks(some)}) ORDER BY decision, first_us, client",
            some,
        ):
            found.setdefault(f"{DECISION}{number}", []).append(
                {
                    "client": _address(client), "first_us": first_us, "last_us": last_us, "count": count,
                    "leaks": leaks, "let_through": through,
                }
            )  # fmt: skip
    return found


def _enforcements_of(
    connection: Connection, numbers: Sequence[int]
) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for some in chunks(numbers):
        for number, kind, value, adapter, state, detail in connection.execute(
            "SELECT t.decision, t.kind, t.value, e.adapter, e.state, e.detail FROM targets t"
            f" JOIN enforcements e ON e.target = t.id WHERE t.decision IN ({marks(some)})"
            " ORDER BY t.id, e.adapter",
            some,
        ):
            made = found.setdefault((f"{DECISION}{number}", kind, value), [])
            made.append({"adapter": adapter, "state": state, "detail": detail})
    return found


def _decisions_of(connection: Connection, campaigns: Iterable[str]) -> dict[str, list[str]]:
    numbers = [number_of(one, CAMPAIGN) for one in campaigns if one]
    found: dict[str, list[str]] = {}
    for some in chunks(numbers):
        for campaign, number in connection.execute(
            f"SELECT campaign, number FROM decisions WHERE campaign IN ({marks(some)}) ORDER BY number",
            some,
        ):
            found.setdefault(f"{CAMPAIGN}{campaign}", []).append(f"{DECISION}{number}")
    return found


def _known(connection: Connection, id_: str) -> DecisionRow:
    row = decision_rows.load(connection, id_)
    if row is None:
        raise refused(f"there is no decision {id_}")
    return row


def _one(connection: Connection, sql: str, *values: int) -> int:
    return int(connection.execute(sql, values).fetchone()[0])


def _address(packed: bytes) -> str | None:
    return render_address(packed) if packed else None
