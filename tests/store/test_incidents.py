"""Incidents and campaigns: found or opened, merged, acknowledged, closed, kept as one process has them."""

from __future__ import annotations

from sqlite3 import Connection
from time import process_time

import pytest

from egressd.model import Campaign, Incident
from egressd.store import attempts, audit, decision_rows, decisions, incidents, notes, retention
from egressd.store.attempts import Batch, ContactCount
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.errors import REQUEST, StoreError
from tests.store.scene import ANNA, HOUR, T0, TIMER, A, B, about, match, opened, tied, verdict

X, Y, Z = "registered domain bad.example", "indicator a.bad.example", "indicator 203.0.113.1"


def test_incidents_of_a_campaign(ledger: Database) -> None:
    tied(ledger, "C1", X, Y)
    tied(ledger, "C1", Y, at_us=T0 - 5, last_us=T0 + 5)
    opened(ledger, "I1", "C1", last_us=T0 + HOUR), opened(ledger, "I2", "C1", B)
    one, two = ledger.call(incidents.load_incidents)
    assert (one.incident.id, one.incident.client, one.segment, one.state) == ("I1", A, "lan", "open")
    assert (one.incident.opened_us, one.incident.first_us, one.incident.last_us) == (T0, T0, T0 + HOUR)
    assert one.incident.match == match() and two.incident.client == B
    assert ledger.call(incidents.load_campaigns) == [Campaign("C1", [X, Y], ["I1", "I2"], T0 - 5, T0 + 5)]


def test_campaigns_become_one_and_incidents_of_a_client_too(ledger: Database) -> None:
    tied(ledger, "C1", X, last_us=T0 + HOUR), tied(ledger, "C2", Z, Y, last_us=T0 + HOUR)
    opened(ledger, "I1", "C1"), opened(ledger, "I2", "C2", at_us=T0 - 9), opened(ledger, "I3", "C2", B)
    made = verdict()
    made.campaign = "C2"
    ledger.call(decisions.commit, made, [NewTarget(about())], "x")
    counts = [
        ContactCount("I1", T0, T0, 1, 1, 0, 0, (("a", 1),), (("flow", 1),)),
        ContactCount("I2", T0 - 9, T0, 2, 1, 1, 1, (("a", 1), ("b", 1)), (("flow", 2),)),
    ]
    ledger.call(attempts.record_batch, Batch("p", 1, (), tuple(counts)), T0)
    assert ledger.call(incidents.merge_campaigns, "C1", "C2") == [("I2", "I1")]
    assert ledger.call(incidents.load_campaigns) == [Campaign("C1", [X, Z, Y], ["I1", "I3"], T0, T0 + HOUR)]
    row = ledger.call(incidents.load_incident, "I1")
    assert row is not None
    kept = row.incident
    assert (kept.first_us, kept.contacts, kept.attempts, kept.answered, row.leaks) == (T0 - 9, 3, 2, 1, 1)
    assert kept.names == {"a": 2, "b": 1} and kept.via == {"flow": 3}
    assert ledger.call(incidents.load_incident, "I2") is None
    assert ledger.call(decision_rows.load_open)[0].campaign == "C1"


def test_tied_by_hand(ledger: Database) -> None:
    tied(ledger, "C1", X), tied(ledger, "C2", Z)
    opened(ledger, "I1", "C2", B)
    assert ledger.call(incidents.merge_campaigns, "C2", "C1") == []
    assert ledger.call(incidents.merge_campaigns, "C1", "C1") == []
    assert ledger.call(incidents.load_campaigns) == [Campaign("C1", [X, Z], ["I1"], T0, T0)]


def test_the_older_campaign_may_not_be_written_yet(ledger: Database) -> None:
    ledger.call(incidents.put_campaign, Campaign("C5", [Z], [], T0, T0))
    ledger.call(incidents.put_incident, Incident("I1", "C5", A, match(), T0, T0, T0))
    ledger.call(incidents.merge_campaigns, "C2", "C5")
    assert ledger.call(incidents.load_campaigns) == [Campaign("C2", [Z], ["I1"], T0, T0)]
    ledger.call(incidents.merge_campaigns, "C2", "C8")  # nor the younger one
    assert len(ledger.call(incidents.load_campaigns)) == 1


def test_kept_as_a_process_has_it(ledger: Database) -> None:
    campaign = Campaign("C3", [X], ["I4"], T0, T0)
    incident = Incident("I4", "C3", A, match(), T0, T0, T0, names={"a": 1}, via={"flow": 1}, contacts=1)
    incident.sources = {"tap": 1, "squid": 1}
    ledger.call(incidents.put_campaign, campaign)
    assert ledger.call(incidents.put_incident, incident, "lan")
    ledger.call(incidents.acknowledge, "I4", T0 + 1, "uid:anna", ANNA)
    incident.contacts, incident.last_us, incident.names = 9, T0 + 5, {"a": 8, "b": 1}
    incident.sources = {"tap": 8, "squid": 1, "eve": 3}
    campaign.keys.append(Y)
    ledger.call(incidents.put_campaign, campaign)
    assert not ledger.call(incidents.put_incident, incident, "", 2)
    (row,) = ledger.call(incidents.load_incidents)
    assert row == (incident, "lan", "acknowledged", 2, T0 + 1, "uid:anna", 0)
    assert ledger.call(incidents.load_campaigns) == [campaign]


def test_acknowledged_then_closed_then_another(ledger: Database) -> None:
    tied(ledger, "C1", X)
    opened(ledger, "I1", "C1")
    act = ANNA._replace(act="ack")
    assert ledger.call(incidents.acknowledge, "I1", T0 + 1, "uid:anna", act)
    assert not ledger.call(incidents.acknowledge, "I1", T0 + 2, "uid:bert", act)
    quiet = TIMER._replace(act="close")
    assert ledger.call(retention.close_quiet, T0 + 1, T0 + 3, quiet) == ["I1"]
    assert ledger.call(retention.close_quiet, T0 + 1, T0 + 4, quiet) == []
    row = ledger.call(incidents.load_incident, "I1")
    assert row is not None and (row.state, row.acked_us, row.acked_by, row.closed_us) == (
        "closed", T0 + 1, "uid:anna", T0 + 3,
    )  # fmt: skip
    with pytest.raises(StoreError, match="I1 is closed") as caught:
        ledger.call(incidents.acknowledge, "I1", T0 + 5, "uid:anna", act)
    assert caught.value.kind == REQUEST
    opened(ledger, "I2", "C1")
    assert ledger.call(incidents.load_campaigns)[0].incidents == ["I2"]
    assert [(row["act"], row["object"]) for row in ledger.call(audit.rows)] == [("close", ""), ("ack", "I1")]


def test_closed_by_a_person_and_opened_again(ledger: Database) -> None:
    tied(ledger, "C1", X)
    for id_, client in (("I1", A), ("I2", B)):
        opened(ledger, id_, "C1", client)
    act = ANNA._replace(act="close")
    ledger.call(incidents.acknowledge, "I2", T0 + 1, "uid:anna", ANNA._replace(act="ack"))
    for id_, state in (("I1", "open"), ("I2", "acknowledged")):
        ledger.call(incidents.close, id_, T0 + 3, act)
        row = ledger.call(incidents.load_incident, id_)
        assert row is not None and (row.state, row.closed_us) == ("closed", T0 + 3)
        with pytest.raises(StoreError, match=f"{id_} is closed already"):
            ledger.call(incidents.close, id_, T0 + 4, act)
        assert ledger.call(incidents.reopen, id_, T0 + 5, act._replace(act="reopen"))
        assert not ledger.call(incidents.reopen, id_, T0 + 6, act)
        row = ledger.call(incidents.load_incident, id_)
        assert row is not None and (row.state, row.closed_us) == (state, 0)
        told = [note.text for note in ledger.call(notes.load_notes, [id_])[id_]]
        assert told == [f"closed by {act.actor}: {act.reason}", f"opened again by {act.actor}: {act.reason}"]
        first = ledger.call(audit.rows)[0]
        assert (first["act"], first["object"], first["before"], first["after"]) == (
            "reopen", id_, {"state": "closed"}, {"state": state},
        )  # fmt: skip
    assert not ledger.call(incidents.reopen, "I9", T0 + 6, act)


def test_what_is_not_there(ledger: Database) -> None:
    with pytest.raises(StoreError, match="there is no incident I7"):
        ledger.call(incidents.acknowledge, "I7", T0, "uid:anna", ANNA)
    with pytest.raises(StoreError, match="there is no incident I7"):
        ledger.call(incidents.close, "I7", T0, ANNA)
    with pytest.raises(StoreError):
        opened(ledger, "I1", "C9")  # its campaign is not there


def test_sources_of_incidents_that_become_one_add_up(ledger: Database) -> None:
    for number, sources in ((1, {"tap": 2, "squid": 1}), (2, {"squid": 4})):
        ledger.call(incidents.put_campaign, Campaign(f"C{number}", [f"key {number}"], [], T0, T0))
        incident = Incident(f"I{number}", f"C{number}", A, match(), T0, T0, T0, sources=sources)
        ledger.call(incidents.put_incident, incident)
    ledger.call(incidents.merge_campaigns, "C1", "C2")
    (row,) = ledger.call(incidents.load_incidents)
    assert row.incident.sources == {"tap": 2, "squid": 5}


def test_a_campaign_joins_a_large_one_as_fast(ledger: Database) -> None:
    """Nor do incidents of other campaigns, open or closed, take any longer."""

    def fill(campaign: int, first: int, count: int) -> None:
        def put(connection: Connection) -> None:
            incidents.put_campaign(connection, Campaign(f"C{campaign}", [f"key {campaign}"], [], T0, T0))
            for number in range(first, first + count):
                client = number.to_bytes(4, "big")
                device = f"02:00:00:00:{number >> 8 & 255:02x}:{number & 255:02x}" if number % 2 else ""
                one = Incident(f"I{number}", f"C{campaign}", client, match(), T0, T0, T0, device=device)
                incidents.put_incident(connection, one)

        ledger.call(put)

    def joined_s(first: int) -> float:
        for number in range(first, first + 50):
            fill(number, number, 1)
        before_s = process_time()
        for number in range(first, first + 50):
            ledger.call(incidents.merge_campaigns, "C1", f"C{number}")
        return process_time() - before_s

    fill(1, 1, 1)
    few_s = joined_s(100)
    fill(1, 1_000, 16_000)
    fill(2, 20_000, 16_000)
    assert min(joined_s(40_000), joined_s(41_000)) < 6 * few_s  # a look for garbage is as much
    (one, _) = ledger.call(incidents.load_campaigns)
    assert len(one.incidents) == 16_151


# -- devices

LAPTOP = "02:1a:2b:00:00:01"


def test_a_device_and_the_ties_of_a_campaign_are_kept(ledger: Database) -> None:
    campaign = Campaign("C1", [X], ["I1"], T0, T0, ["both used 203.0.113.66"], {"C9": "the same GETs since 09:32"})
    incident = Incident("I1", "C1", A, match(), T0, T0, T0, device=LAPTOP, addresses=[A, B], volume="sent 2 GB")
    ledger.call(incidents.put_campaign, campaign)
    ledger.call(incidents.put_incident, incident)
    assert ledger.call(incidents.load_campaigns) == [campaign]
    assert ledger.call(incidents.load_incidents)[0].incident == incident
    incident.addresses.append(b"\x0a\0\0\x09")
    incident.device = ""
    ledger.call(incidents.put_incident, incident)
    assert ledger.call(incidents.load_incidents)[0].incident == incident


def test_one_address_may_be_of_two_devices(ledger: Database) -> None:
    ledger.call(incidents.put_campaign, Campaign("C1", [X], [], T0, T0))
    for number, device in enumerate((LAPTOP, "00:1a:2b:00:00:02", ""), 1):
        ledger.call(incidents.put_incident, Incident(f"I{number}", "C1", A, match(), T0, T0, T0, device=device))
    assert len(ledger.call(incidents.load_incidents)) == 3


def test_incidents_of_one_device_are_folded_once(ledger: Database) -> None:
    ledger.call(incidents.put_campaign, Campaign("C1", [X], [], T0, T0))
    for number, client in enumerate((A, B), 1):
        one = Incident(
            f"I{number}",
            "C1",
            client,
            match(),
            T0,
            T0,
            T0 + number,
            contacts=number,
            names={"x": 1},
            addresses=[client],
        )
        ledger.call(incidents.put_incident, one, "", number)
    ledger.call(notes.add_notes, [notes.Note("I2", T0, "seen", "")])
    for _ in range(2):
        ledger.call(incidents.fold_incidents, "I1", "I2")
    (row,) = ledger.call(incidents.load_incidents)
    kept = row.incident
    assert (kept.id, kept.contacts, kept.names, kept.addresses, row.leaks) == ("I1", 3, {"x": 2}, [A, B], 3)
    assert list(ledger.call(notes.load_notes, ["I1"])) == ["I1"]


def test_when_campaigns_merge_a_device_keeps_one_incident(ledger: Database) -> None:
    for number, (key, client, device) in enumerate(((X, A, LAPTOP), (Y, B, LAPTOP), (Z, B, "")), 1):
        ledger.call(incidents.put_campaign, Campaign(f"C{number}", [key], [], T0, T0))
        one = Incident(f"I{number}", f"C{number}", client, match(), T0, T0, T0, device=device, addresses=[client])
        ledger.call(incidents.put_incident, one)
    assert ledger.call(incidents.merge_campaigns, "C1", "C2") == [("I2", "I1")]
    assert ledger.call(incidents.merge_campaigns, "C1", "C3") == []
    assert [row.incident.addresses for row in ledger.call(incidents.load_incidents)] == [[A, B], [B]]


def test_a_rejected_tie_is_kept_with_who_said_so(ledger: Database) -> None:
    ledger.call(incidents.reject_tie, "C1", "C9", T0, ANNA._replace(act="untie"))
    assert ledger.call(incidents.load_rejected) == [("C1", "C9")]
    assert [(row["act"], row["object"]) for row in ledger.call(audit.rows)] == [("untie", "C1")]
