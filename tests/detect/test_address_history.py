"""Campaigns that meet at an address; a shared or protected one ties nobody."""

from __future__ import annotations

from egressd.detect.address_history import MAX_OF_DOMAIN, AddressHistory
from egressd.detect.campaigns import Campaigns
from tests.detect.scene import A, B, at, packed
from tests.detect.test_campaigns import contact, sighting

WHERE = packed("203.0.113.66")


def two() -> Campaigns:
    campaigns = Campaigns()
    contact(campaigns, sighting(A, "bad.example"))
    contact(campaigns, sighting(B, "worse.example"))
    return campaigns


def free(address: bytes) -> bool:
    return False


def test_one_address_of_two_names() -> None:
    campaigns, history = two(), AddressHistory()
    history.lives_at("bad.example", WHERE, at(0))
    history.tie(campaigns, "bad.example", at(1), free)
    assert list(campaigns.campaigns) == ["C1", "C2"]
    history.lives_at("worse.example", packed("::ffff:203.0.113.66"), at(2))
    history.tie(campaigns, "worse.example", at(3), free)
    why = "worse.example and bad.example both lived on 203.0.113.66"
    assert campaigns.campaigns["C1"].candidates == {"C2": why}, "its owner points it where he likes"
    contact(campaigns, sighting(B, "bad.example"))
    history.tie(campaigns, "worse.example", at(4), free)
    assert list(campaigns.campaigns) == ["C1"]
    assert campaigns.campaigns["C1"].ties == [why] and not campaigns.campaigns["C1"].candidates


def test_what_a_person_rejected_is_not_proposed_again_for_an_address() -> None:
    campaigns, history = two(), AddressHistory()
    for domain in ("bad.example", "worse.example"):
        history.lives_at(domain, WHERE, at(0))
    history.tie(campaigns, "worse.example", at(1), free)
    assert campaigns.reject("C1", "C2")
    history.tie(campaigns, "worse.example", at(2), free)
    assert not campaigns.campaigns["C1"].candidates


def test_a_shared_address_ties_nobody() -> None:
    campaigns, history = two(), AddressHistory()
    for domain in ("bad.example", "worse.example", "florist.example"):
        history.lives_at(domain, WHERE, at(0))
    history.tie(campaigns, "bad.example", at(1), free)
    assert list(campaigns.campaigns) == ["C1", "C2"]


def test_a_protected_address_ties_nobody() -> None:
    campaigns, history = two(), AddressHistory()
    for domain in ("bad.example", "worse.example"):
        history.lives_at(domain, WHERE, at(0))
    history.tie(campaigns, "bad.example", at(1), WHERE.__eq__)
    assert list(campaigns.campaigns) == ["C1", "C2"]


def test_of_more_than_a_day_ago_nothing_counts() -> None:
    campaigns, history = two(), AddressHistory()
    history.lives_at("bad.example", WHERE, at(0))
    history.lives_at("worse.example", WHERE, at(90_000))
    history.tie(campaigns, "worse.example", at(90_000), free)
    assert list(campaigns.campaigns) == ["C1", "C2"]


def test_bounded() -> None:
    history = AddressHistory(limit=8)
    for number in range(100):
        history.lives_at("bad.example", bytes((10, 0, 0, number)), at(number))
        history.lives_at(f"n{number}.example", WHERE, at(number))
    places = history._places.peek("bad.example")
    assert places is None or len(places) <= MAX_OF_DOMAIN
    assert len(history._tenants) <= 8
