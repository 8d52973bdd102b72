"""What becomes of incidents and campaigns without a new contact is in the ledger and in the event log."""

from __future__ import annotations

from egressd.model import Campaign
from egressd.store import incidents
from tests.runtime.desk import rows
from tests.runtime.process import Process
from tests.runtime.scene import SECOND, T0, A, B, Desk, attempt, match, sighting

LAPTOP = bytes.fromhex("021a2b000001")


def sees(desk: Desk, client: bytes, second: float, domain: str = "bad.example") -> None:
    desk.intake.take(0, Process().say(sighting(client, domain, second, found=match(domain))).batch())


def spoke(desk: Desk, address: bytes, second: float) -> None:
    desk.campaigns.devices.spoke(LAPTOP, address, T0 + round(second * SECOND), is_attached=True)


def test_campaigns_that_become_one(desk: Desk) -> None:
    sees(desk, A, 0)
    sees(desk, B, 1, "worse.example")
    desk.campaigns.tie("C1", "C2", "the same malware")
    assert {id_: row.incident.campaign for id_, row in rows(desk).items()} == {"I1": "C1", "I2": "C1"}
    assert desk.intake.copies.copy(Campaign("C2", ["a"], [], T0, T0)).keys == ["a"], "nothing is kept of it"


def test_leaks_of_what_is_closed_are_in_the_ledger_alone(desk: Desk) -> None:
    """Of all incidents that a person was ever done with they would be kept until the next start."""
    said = [sighting(A), attempt(A, leak=True), sighting(B), attempt(B, leak=True), attempt(B, leak=True)]
    desk.intake.take(0, Process().say(*said).batch())
    assert desk.intake.leaks == {"I1": 1, "I2": 2}
    closed = desk.casebook.close("I2")
    assert (desk.intake.leaks, rows(desk)["I2"].leaks) == ({"I1": 1}, 2)
    assert closed is not None and desk.casebook.reopen(closed, 2) == ""
    desk.intake.take(0, Process().say(sighting(B), attempt(B, leak=True)).batch())
    assert rows(desk)["I2"].leaks == 3
    assert desk.casebook.close("I9") is None


def test_leaks_of_a_younger_incident_are_not_left_when_the_older_one_is_closed(desk: Desk) -> None:
    for found in (match(), match("worse.example")):
        desk.intake.take(0, Process().say(sighting(found=found), attempt(leak=True, found=found)).batch())
    desk.campaigns.tie("C1", "C2", "the same malware")
    assert desk.casebook.close("I1") is not None
    assert desk.intake.leaks == {}


def test_an_incident_is_given_to_its_device_and_folded_into_the_older_one(desk: Desk) -> None:
    sees(desk, A, 0)
    sees(desk, B, 1)
    spoke(desk, A, 0)
    desk.casebook.recognise()
    assert rows(desk)["I1"].incident.device == "02:1a:2b:00:00:01"
    spoke(desk, B, 2)
    spoke(desk, B, 310)
    desk.casebook.recognise()
    assert list(rows(desk)) == ["I1"]
    (folded,) = [one["egressd"] for one in desk.ears.records if one["egressd"].get("state") == "folded"]
    assert (folded["incident"], folded["folded_into"]) == ("I2", "I1")


def test_devices_without_a_name(desk: Desk) -> None:
    sees(desk, A, 0)
    spoke(desk, A, 0)
    assert list(desk.casebook.nameless()) == []
    desk.casebook.recognise()
    assert list(desk.casebook.nameless()) == [(LAPTOP, A)]
    desk.campaigns.devices.named(LAPTOP, "laptop.ours.example")
    assert list(desk.casebook.nameless()) == []


def test_a_candidate_is_written(desk: Desk) -> None:
    sees(desk, A, 0)
    sees(desk, B, 1, "worse.example")
    desk.campaigns.meet("C1", "C2", "both used 198.51.100.7")
    desk.settle()
    first, _ = desk.ledger.call(incidents.load_campaigns)
    assert first.candidates == {"C2": "both used 198.51.100.7"}
