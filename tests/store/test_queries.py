"""What the control socket shows, field by field."""

from __future__ import annotations

import json
from sqlite3 import Connection

import pytest

from egressd.model import Incident
from egressd.store import attempts, decisions, incidents, notes, queries, targets
from egressd.store.attempts import AttemptCount, Batch, ContactCount
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.errors import StoreError
from egressd.store.notes import Note
from egressd.store.targets import Enforcement
from tests.store.scene import (
    ANNA,
    DAY,
    HOUR,
    SECOND,
    T0,
    V6,
    A,
    B,
    about,
    address,
    closed,
    match,
    opened,
    put,
    tied,
    verdict,
)

ONE = address("203.0.113.1")
PAIR = address("10.0.0.1>203.0.113.2")._replace(kind="pair")
CLIENT = address("10.0.0.1")._replace(kind="client")
INDICATOR = {"value": "bad.example", "source": "csirt.txt", "line": 7, "threat": "c2", "confidence": 90}
NOW = T0 + 10 * HOUR


@pytest.fixture
def busy(ledger: Database) -> Database:
    """A block with two clients that try, a proposal, an isolated client, a cut segment, an ended block."""
    made = verdict()
    tied(ledger, "C1", "registered domain bad.example")
    made.campaign = "C1"
    rows = [NewTarget(about()), NewTarget(ONE), NewTarget(PAIR, T0 + DAY, 2)]
    ledger.call(decisions.commit, made, rows, "rule:level-sibling")
    put(ledger, "asked.example", state="proposed")
    ledger.call(decisions.commit, verdict("c"), [NewTarget(CLIENT)], "uid:anna")
    cut = [NewTarget(address(one)._replace(kind="segment")) for one in ("10.2.0.0/16", "2001:db8:2::/48")]
    ledger.call(decisions.commit, verdict("s"), cut, "uid:anna")
    put(ledger, "gone.example")
    ledger.call(decisions.end, "D5", "undone", T0 + 9, "uid:anna", "mistake", ANNA)
    opened(ledger, "I1", "C1", A), opened(ledger, "I2", "C1", V6)
    batch = Batch(
        "p", 1,
        (AttemptCount("D1", A, ONE, T0, T0 + 5, 4, 1), AttemptCount("D1", B, None, T0 + HOUR, T0 + HOUR, 1, 0, 1)),
        (ContactCount("I1", T0 - 5, T0 + 9, 5, 4, 1, 1, (("b.bad.example", 5),), (("tls_sni", 5),)),),
    )  # fmt: skip
    ledger.call(attempts.record_batch, batch, T0)
    states = [Enforcement("D1", about(), "unsupported", "holds no names"), Enforcement("D1", ONE, "active")]
    ledger.call(targets.set_enforcements, "nftables", states, T0)
    return ledger


def test_status(busy: Database) -> None:
    assert busy.call(queries.status, NOW) == {
        "adapters": {"nftables": {"active": 1, "pending": 0, "failed": 0, "unsupported": 1}},
        "blocks": {
            "active": 3, "proposed": 1, "addresses": 1, "pairs": 1, "clients_isolated": 1, "segments_cut": 1,
        },
        "watch": {
            "blocks_watched": 1, "clients_trying": 2, "attempts_24h": 5, "let_through_24h": 1, "leaks_24h": 1,
            "last_attempt_us": T0 + HOUR,
        },
        "incidents": {"open": 2, "new_24h": 2},
    }  # fmt: skip
    later = busy.call(queries.status, T0 + 3 * DAY)
    assert (later["watch"]["clients_trying"], later["watch"]["attempts_24h"], later["incidents"]["new_24h"]) == (
        0,
        0,
        0,
    )


def test_a_machine_that_tries_under_two_addresses_is_one_client(busy: Database) -> None:
    """`status` said `2 clients STILL TRYING` of what `hosts` has in one line."""
    mac = "02:00:00:00:00:01"
    tied(busy, "C2", "other")
    both = f'["{A.hex()}", "{B.hex()}"]'
    opened(busy, "I3", "C2", B)
    sql = "UPDATE incidents SET device = ?, addresses = ?, last_us = ? WHERE number IN (1, 3)"
    busy.call(lambda connection: connection.execute(sql, (mac, both, T0 + HOUR)))
    assert [one["device"] for one in busy.call(queries.hosts)] == [mac, None]
    assert busy.call(queries.status, NOW)["watch"]["clients_trying"] == 1


def test_an_address_that_another_machine_has_now_is_another_client(busy: Database) -> None:
    """Of a machine without a known MAC under an address that a known one had, `status` counted nobody."""
    tied(busy, "C2", "other")
    both = f'["{A.hex()}", "{B.hex()}"]'
    opened(busy, "I3", "C2", B)
    sql = "UPDATE incidents SET device = ?, addresses = ?, last_us = ? WHERE number / 3 = ?"
    busy.call(lambda connection: connection.execute(sql, ("02:00:00:00:00:01", both, T0 + HOUR, 0)))
    busy.call(lambda connection: connection.execute(sql, ("", "", T0 + 2 * HOUR, 1)))
    assert len(busy.call(queries.hosts)) == 2
    assert busy.call(queries.status, NOW)["watch"]["clients_trying"] == 2


def test_nobody_is_still_trying_what_was_lifted(busy: Database) -> None:
    """`status` had `0 blocks watched; 1 client STILL TRYING` after an allowance and after panic."""
    busy.call(decisions.end, "D1", "withdrawn", NOW, "uid:anna", "ours", ANNA)
    watch = busy.call(queries.status, NOW)["watch"]
    assert (watch["blocks_watched"], watch["clients_trying"], watch["attempts_24h"]) == (0, 0, 5)


def test_status_of_an_empty_ledger(ledger: Database) -> None:
    told = ledger.call(queries.status, NOW)
    assert told["watch"]["last_attempt_us"] is None and told["adapters"] == {}
    assert set(told["blocks"].values()) == {0}


def test_hosts(busy: Database) -> None:
    tied(busy, "C2", "other")
    opened(busy, "I3", "C2", A, "other.example", "", last_us=T0 + HOUR)
    assert busy.call(queries.hosts) == [
        {"client": "10.0.0.1", "segment": "lan", "incidents": ["I1", "I3"], "domains": ["bad.example", "other.example"],
         "device": None, "addresses": ["10.0.0.1"],
         "contacts": 5, "attempts": 4, "let_through": 0, "leaks": 1, "first_us": T0 - 5, "last_us": T0 + HOUR,
             "opened_us": T0, "isolated": True},
        {"client": "2001:db8::1", "segment": "lan", "incidents": ["I2"], "domains": ["bad.example"],
         "device": None, "addresses": ["2001:db8::1"],
         "contacts": 0, "attempts": 0, "let_through": 0, "leaks": 0, "first_us": T0, "last_us": T0, "opened_us": T0,
             "isolated": False},
    ]  # fmt: skip


MAC = "02:1a:2b:00:00:01"


def test_the_census_counts_machines(busy: Database) -> None:
    tied(busy, "C2", "other")
    known = {"device": MAC, "addresses": [A, V6], "names": {"x": 1}}
    busy.call(incidents.put_incident, Incident("I1", "C1", A, match(), T0, T0, T0, **known))
    busy.call(incidents.put_incident, Incident("I7", "C2", B, match(), T0, T0, T0 + HOUR, **known | {"addresses": [B]}))
    busy.call(incidents.put_incident, Incident("I8", "C1", A, match(), T0, T0, T0, device="00:1a:2b:00:00:02"))
    found = busy.call(queries.hosts)
    assert [(one["client"], one["device"], one["addresses"], one["incidents"]) for one in found] == [
        ("10.0.0.2", MAC, ["10.0.0.1", "2001:db8::1", "10.0.0.2"], ["I1", "I7"]),
        ("2001:db8::1", None, ["2001:db8::1"], ["I2"]),
        ("10.0.0.1", "00:1a:2b:00:00:02", ["10.0.0.1"], ["I8"]),
    ]
    assert found[0]["isolated"], "under one of its addresses"
    assert [one["id"] for one in busy.call(queries.incidents, "", V6)] == ["I1", "I2"]


def test_incidents(busy: Database) -> None:
    busy.call(incidents.acknowledge, "I2", T0 + 1, "uid:anna", ANNA)
    one, two = busy.call(queries.incidents)
    assert one == {
        "id": "I1", "campaign": "C1", "client": "10.0.0.1", "segment": "lan", "state": "open",
        "registered_domain": "bad.example", "match_level": "sibling", "indicator": INDICATOR, "opened_us": T0,
        "first_us": T0 - 5, "last_us": T0 + 9, "contacts": 5, "attempts": 4, "answered": 1, "leaks": 1,
        "let_through": 0, "names": {"b.bad.example": 5}, "via": {"tls_sni": 5}, "sources": {}, "retro": False,
        "acked_by": None, "acked_us": None,
        "decisions": ["D1"], "notes": [], "device": None, "addresses": ["10.0.0.1"], "volume": None,
    }  # fmt: skip
    busy.call(notes.add_notes, [Note("I2", T0 + 3, "allowed", "x"), Note("I2", T0 + 4, "no longer", "")])
    assert busy.call(queries.incidents)[0] == one
    two = busy.call(queries.incidents)[1]
    assert two["notes"] == [{"ts_us": T0 + 3, "text": "allowed"}, {"ts_us": T0 + 4, "text": "no longer"}]
    assert (two["state"], two["acked_by"], two["acked_us"]) == ("acknowledged", "uid:anna", T0 + 1)
    assert busy.call(queries.incidents, "", V6) == [two]
    assert busy.call(queries.incidents, "acknowledged") == [two]
    assert busy.call(queries.incidents, "", b"", 1) == [two]  # the newest
    closed(busy, "I2", T0 + 2)
    assert [row["id"] for row in busy.call(queries.incidents)] == ["I1"]
    assert [row["id"] for row in busy.call(queries.incidents, "closed")] == ["I2"]
    assert len(busy.call(queries.incidents, "all")) == 2
    with pytest.raises(StoreError, match="no incident state 'blue'"):
        busy.call(queries.incidents, "blue")


def test_watches(busy: Database) -> None:
    (watch,) = busy.call(queries.watches, NOW)
    assert watch == {
        "decision_id": "D1", "target": {"kind": "registered_domain", "value": "bad.example"}, "state": "active",
        "mode": "enforce",
        "since_us": T0,
        "clients": [
            {"client": "10.0.0.1", "first_us": T0, "last_us": T0 + 5, "count": 4, "leaks": 1, "let_through": 0},
            {"client": "10.0.0.2", "first_us": T0 + HOUR, "last_us": T0 + HOUR, "count": 1, "leaks": 0,
             "let_through": 1},
        ],
        "attempts": 5, "let_through": 1, "leaks": 1, "last_us": T0 + HOUR,
        "addresses": [
            {"value": "203.0.113.1", "kind": "address", "state": "active", "expires_us": None, "attempts": 4,
             "level": 0},
            {"value": "10.0.0.1>203.0.113.2", "kind": "pair", "state": "active", "expires_us": T0 + DAY, "attempts": 0,
             "level": 2},
        ],
        "quiet_s": (NOW - T0 - HOUR) // SECOND,
    }  # fmt: skip
    (quiet,) = busy.call(queries.watches, NOW, "D5")
    assert (quiet["last_us"], quiet["quiet_s"], quiet["state"], quiet["clients"]) == (None, None, "undone", [])
    with pytest.raises(StoreError, match="no decision D77"):
        busy.call(queries.watches, NOW, "D77")


def test_decisions(busy: Database) -> None:
    told = busy.call(queries.decisions_told)
    assert [row["id"] for row in told] == ["D1", "D2", "D3", "D4", "D5"]
    assert told[0] == {
        "id": "D1", "action": "block", "state": "active", "created_us": T0, "author": "rule:level-sibling",
        "mode": "enforce",
        "targets": [
            {"kind": "registered_domain", "value": "bad.example", "state": "active", "expires_us": None,
             "enforcements": [{"adapter": "nftables", "state": "unsupported", "detail": "holds no names"}]},
            {"kind": "address", "value": "203.0.113.1", "state": "active", "expires_us": None,
             "enforcements": [{"adapter": "nftables", "state": "active", "detail": ""}]},
            {"kind": "pair", "value": "10.0.0.1>203.0.113.2", "state": "active", "expires_us": T0 + DAY,
             "enforcements": []},
        ],
        "reason": "sibling of bad.example (csirt.txt:7)", "rule": "level-sibling", "evidence": "E1",
        "registered_domain": "bad.example", "name": "b.bad.example", "client": "10.0.0.1", "campaign": "C1",
        "match_level": "sibling", "indicator": INDICATOR, "ended_us": None, "ended_by": None, "ended_reason": None,
    }  # fmt: skip
    assert (told[4]["ended_us"], told[4]["ended_by"], told[4]["ended_reason"]) == (T0 + 9, "uid:anna", "mistake")
    ids = {
        state: [row["id"] for row in busy.call(queries.decisions_told, state)]
        for state in ("open", "proposed", "undone")
    }
    assert ids == {"open": ["D1", "D2", "D3", "D4"], "proposed": ["D2"], "undone": ["D5"]}
    assert [row["id"] for row in busy.call(queries.decisions_told, "", 2)] == ["D4", "D5"]
    assert [row["id"] for row in busy.call(queries.decisions_told, "", 1, "D3")] == ["D3"]
    for args in (("blue",), ("", 1, "D77"), ("", 1, "x")):
        with pytest.raises(StoreError):
            busy.call(queries.decisions_told, *args)  # type: ignore[arg-type]


def test_everything_is_plain_json(busy: Database) -> None:
    told = [busy.call(one) for one in (queries.hosts, queries.incidents, queries.decisions_told)]
    assert json.loads(json.dumps(told)) == told
    assert json.dumps([busy.call(queries.status, NOW), busy.call(queries.watches, NOW)])


def test_more_decisions_than_one_statement_can_name(ledger: Database) -> None:
    def many(connection: Connection) -> None:
        for number in range(1_200):
            name = f"x{number}.example"
            decisions.commit(connection, verdict(name), [NewTarget(about(name))], "x")

    ledger.call(many)
    assert len(ledger.call(queries.decisions_told, "", 1_200)) == 1_200
    assert len(ledger.call(queries.watches, NOW, "", 1_100)) == 1_100
