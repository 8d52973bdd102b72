"""Incidents and campaigns: one incident per client and campaign, ties, merges, bounds."""

from __future__ import annotations

from dataclasses import replace
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect import campaigns as campaigns_module
from egressd.detect.campaigns import Campaigns
from egressd.detect.incident_sums import MAX_NAMES
from egressd.model import FLOW, TLS_SNI, Campaign, Match, Sighting
from tests.detect.scene import A, B, C, X, at, flow, listed, packed


def sighting(client: str, name: str = "bad.example", second: float = 0, value: str = "", count: int = 1) -> Sighting:
    (indicator,) = listed(value or name)
    match = Match("host", indicator, indicator.registered_domain, "example")
    first_us = at(second - count + 1)
    return Sighting(at(second), 9, flow(client, X), name, match, TLS_SNI, "", count > 1, count, first_us, at(second))


def contact(campaigns: Campaigns, one: Sighting) -> tuple[str, bool]:
    incident, opened = campaigns.assign(one)
    campaigns.see(incident, one)
    campaigns.count(incident, one)
    return incident.id, opened


def test_one_incident_per_client_and_campaign() -> None:
    campaigns = Campaigns()
    said = [
        contact(campaigns, sighting(client, name)) for name in ("bad.example", "x.bad.example") for client in (A, B)
    ]
    assert said == [("I1", True), ("I2", True), ("I1", False), ("I2", False)]
    assert contact(campaigns, sighting(A, "worse.example")) == ("I3", True)
    assert [(one.id, one.incidents) for one in campaigns.campaigns.values()] == [("C1", ["I1", "I2"]), ("C2", ["I3"])]
    assert campaigns.campaigns["C1"].keys == [
        "registered domain bad.example",
        "indicator bad.example",
        "indicator x.bad.example",
    ]


def test_a_sighting_is_given_its_ids() -> None:
    campaigns = Campaigns()
    one = sighting(A)
    incident, _ = campaigns.assign(one)
    assert (one.incident, one.campaign, incident.number, incident.match) == ("I1", "C1", 9, one.match)


def test_an_incident_sums_up() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A, second=10))
    contact(campaigns, sighting(A, "x.bad.example", second=5, count=4))
    incident = campaigns.incidents["I1"]
    assert (incident.contacts, incident.first_us, incident.last_us) == (5, at(2), at(10))
    assert incident.names == {"bad.example": 1, "x.bad.example": 4}
    assert incident.via == {TLS_SNI: 5}
    assert (campaigns.campaigns["C1"].first_us, campaigns.campaigns["C1"].last_us) == (at(2), at(10))


def test_names_are_bounded() -> None:
    campaigns = Campaigns()
    for number in range(MAX_NAMES + 50):
        contact(campaigns, sighting(A, f"n{number}.bad.example", value="bad.example"))
    contact(campaigns, sighting(A, "n0.bad.example", value="bad.example"))
    incident = campaigns.incidents["I1"]
    assert len(incident.names) == MAX_NAMES
    assert (incident.names["n0.bad.example"], incident.contacts) == (2, MAX_NAMES + 51)


def test_a_nameless_contact_is_named_by_its_indicator() -> None:
    campaigns = Campaigns()
    one = sighting(A, value="203.0.113.9")
    one.name, one.via = "", FLOW
    contact(campaigns, one)
    assert campaigns.incidents["I1"].names == {"203.0.113.9": 1}


def test_tied_campaigns_become_the_older_one() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A, "bad.example", 0))
    contact(campaigns, sighting(B, "worse.example", 5))
    contact(campaigns, sighting(A, "worse.example", 6))
    contact(campaigns, sighting(C, "worst.example", 7))
    campaigns.tie("C2", "C1")
    assert list(campaigns.campaigns) == ["C1", "C3"]
    merged = campaigns.campaigns["C1"]
    assert merged.incidents == ["I1", "I2"]
    assert "indicator worse.example" in merged.keys and "indicator bad.example" in merged.keys
    assert (merged.first_us, merged.last_us) == (at(0), at(6))
    kept = campaigns.incidents["I1"]
    assert (kept.contacts, kept.last_us, kept.names) == (2, at(6), {"bad.example": 1, "worse.example": 1})
    assert "I3" not in campaigns.incidents
    assert (campaigns.current("I3"), campaigns.current("C2"), campaigns.current("C3")) == ("I1", "C1", "C3")
    assert campaigns.incidents["I2"].campaign == "C1"
    assert contact(campaigns, sighting(B, "bad.example")) == ("I2", False)
    assert contact(campaigns, sighting(C, "bad.example")) == ("I5", True)  # numbers are not used again
    campaigns.tie("C2", "C1")
    campaigns.tie("C1", "C1")
    assert list(campaigns.campaigns) == ["C1", "C3"]


def test_ties_in_a_row_fold_into_the_oldest() -> None:
    campaigns = Campaigns()
    for name in ("a.example", "b.example", "c.example"):
        contact(campaigns, sighting(A, name))
    campaigns.tie("C2", "C3")
    campaigns.tie("C3", "C1")
    assert list(campaigns.campaigns) == ["C1"]
    assert list(campaigns.incidents) == ["I1"]
    assert campaigns.incidents["I1"].contacts == 3
    assert campaigns.current("I3") == "I1"


def test_beyond_the_bound_of_incidents_nothing_begins_a_campaign() -> None:
    """A list has a million names, and one host looks them all up: 1.2 KB of each in every process."""
    campaigns = Campaigns(limit=2)
    for number in range(5):
        contact(campaigns, sighting(B if number == 1 else A, f"d{number}.example"))
    assert (list(campaigns.campaigns), list(campaigns.incidents), campaigns.untold) == (["C1", "C2"], ["I1", "I2"], 3)
    late = sighting(A, "d4.example")
    incident, opened = campaigns.assign(late)
    assert (incident.id, opened, late.campaign, late.incident) == ("", False, "", "")
    known = sighting(A, "d1.example")
    campaigns.assign(known)
    assert (known.campaign, known.incident) == ("C2", "")
    campaigns.close("I1")
    contact(campaigns, sighting(A, "d4.example"))
    assert list(campaigns.campaigns) == ["C1", "C2", "C3"], "C1 had an incident"


def test_a_family_has_no_more_keys_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns_module, "MAX_KEYS", 6)
    campaigns = Campaigns()
    for number in range(9):
        contact(campaigns, sighting(A, f"d{number}.example", value=f"d{number}.example threat=emotet"))
    (campaign,) = campaigns.campaigns.values()
    assert len(campaign.keys) <= 8 and campaigns.incidents["I1"].contacts == 9


def test_the_older_incident_takes_over_even_from_the_younger_campaign() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(B, "a.example"))  # I1 in C1
    contact(campaigns, sighting(A, "b.example"))  # I2 in C2
    contact(campaigns, sighting(A, "a.example"))  # I3 in C1
    campaigns.tie("C1", "C2")
    assert campaigns.campaigns["C1"].incidents == ["I1", "I2"]
    assert (campaigns.incidents["I2"].campaign, campaigns.incidents["I2"].contacts) == ("C1", 2)
    assert contact(campaigns, sighting(A, "a.example")) == ("I2", False)


def test_incidents_are_bounded_and_the_rest_is_silent() -> None:
    campaigns = Campaigns(limit=3)
    said = [contact(campaigns, sighting(f"10.0.0.{number}")) for number in range(6)]
    assert said == [("I1", True), ("I2", True), ("I3", True)] + [("", False)] * 3
    assert contact(campaigns, sighting("10.0.0.1")) == ("I2", False)
    assert (len(campaigns.incidents), campaigns.untold) == (3, 3)


def restarted(campaigns: Campaigns) -> Campaigns:
    """With copies of what was known, as the ledger keeps them."""
    again = Campaigns()
    again.restore(
        [Campaign(one.id, list(one.keys), [], one.first_us, one.last_us) for one in campaigns.campaigns.values()],
        [replace(one, names=dict(one.names), via=dict(one.via)) for one in campaigns.incidents.values()],
    )
    return again


def test_what_was_known_before_a_restart_goes_on() -> None:
    before = Campaigns()
    for client, name in ((A, "bad.example"), (B, "bad.example"), (A, "worse.example")):
        contact(before, sighting(client, name))
    again = restarted(before)
    assert again.incidents == before.incidents
    assert {one.id: one.incidents for one in again.campaigns.values()} == {"C1": ["I1", "I2"], "C2": ["I3"]}
    assert contact(again, sighting(A, "x.bad.example", value="bad.example", second=9)) == ("I1", False)
    assert again.incidents["I1"].contacts == 2
    assert contact(again, sighting(C, "bad.example")) == ("I4", True)
    assert contact(again, sighting(A, "worst.example")) == ("I5", True)
    assert list(again.campaigns) == ["C1", "C2", "C3"]
    again.tie("C2", "C1")
    assert list(again.incidents) == ["I1", "I2", "I4", "I5"]


def test_restored_with_the_incidents_named_by_their_campaigns_each_stands_once() -> None:
    before = Campaigns()
    contact(before, sighting(A))
    again = Campaigns()
    again.restore(before.campaigns.values(), before.incidents.values())
    assert again.campaigns["C1"].incidents == ["I1"]


def test_numbers_that_were_given_are_not_given_again() -> None:
    campaigns = Campaigns()
    campaigns.number_after(41, 7)
    assert contact(campaigns, sighting(A)) == ("I42", True)
    assert list(campaigns.campaigns) == ["C8"]
    campaigns.number_after(3, 3)
    assert contact(campaigns, sighting(B)) == ("I43", True)


def test_a_closed_incident_is_done_with() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A))
    contact(campaigns, sighting(B))
    closed = campaigns.close("I1")
    assert closed is not None and closed.id == "I1"
    assert campaigns.close("I1") is None and campaigns.close("I9") is None
    assert campaigns.campaigns["C1"].incidents == ["I2"]
    assert contact(campaigns, sighting(A)) == ("I3", True)  # what its client does next is another one
    assert campaigns.incidents["I3"].campaign == "C1"


def test_a_close_is_taken_back_unless_its_client_has_another_one() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A))
    contact(campaigns, sighting(A))
    closed = campaigns.close("I1")
    assert closed is not None and campaigns.campaigns["C1"].repeated == set()
    assert campaigns.reopen(closed) == ""
    assert campaigns.campaigns["C1"].incidents == ["I1"] and campaigns.campaigns["C1"].repeated == {"I1"}
    assert contact(campaigns, sighting(A)) == ("I1", False)
    closed = campaigns.close("I1")
    assert closed is not None
    contact(campaigns, sighting(A))
    assert campaigns.reopen(closed) == "I2" and list(campaigns.incidents) == ["I2"]


def test_a_close_that_is_taken_back_has_its_place_in_the_order_of_discovery() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A))
    contact(campaigns, sighting(B))
    closed = campaigns.close("I1")
    assert closed is not None and campaigns.reopen(closed) == ""
    assert campaigns.campaigns["C1"].incidents == ["I1", "I2"]


def test_a_close_is_taken_back_in_the_campaign_that_took_over() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A, "bad.example"))
    contact(campaigns, sighting(B, "worse.example"))
    closed = campaigns.close("I2")
    campaigns.tie("C1", "C2")
    assert closed is not None and campaigns.reopen(closed) == ""
    assert campaigns.campaigns["C1"].incidents == ["I1", "I2"] and closed.campaign == "C1"


def test_closing_by_an_id_that_was_taken_over() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A, "bad.example"))
    contact(campaigns, sighting(A, "worse.example"))
    campaigns.tie("C1", "C2")
    closed = campaigns.close("I2")
    assert closed is not None and closed.id == "I1"
    assert campaigns.incidents == {} and campaigns.campaigns["C1"].incidents == []


def test_every_merge_is_told_older_first() -> None:
    campaigns = Campaigns()
    told: list[tuple[str, str]] = []
    campaigns.on_merge = lambda older, younger: told.append((older, younger))
    for name in ("a.example", "b.example", "c.example", "d.example"):
        contact(campaigns, sighting(A, name))
    campaigns.tie("C3", "C2")
    campaigns.tie("C3", "C1")
    campaigns.tie("C1", "C2")
    assert told == [("C2", "C3"), ("C1", "C2")]


def test_campaigns_join_a_large_one_as_fast() -> None:
    """A list that names the family of thousands of names makes one campaign of theirs, one after the other."""
    campaigns = Campaigns()
    contact(campaigns, sighting(A, "first.example"))

    def joined_s(first: int) -> float:
        names = [f"n{number}.example" for number in range(first, first + 200)]
        for number, name in enumerate(names, first):
            contact(campaigns, sighting(f"10.200.{number >> 8}.{number & 255}", name))
        ids = [campaigns.about(name) for name in names]
        before_s = process_time()
        for one in ids:
            campaigns.tie("C1", one, "the same family")
        return process_time() - before_s

    few_s = joined_s(1_000)
    one = campaigns.incidents["I1"]
    many = [
        replace(one, id=f"I{n}", client=packed("10.100.0.0")[:2] + n.to_bytes(2, "big")) for n in range(1_000, 9_000)
    ]
    campaigns.restore([], many)
    assert min(joined_s(first) for first in (10_000, 11_000, 12_000)) < 6 * few_s  # one look for garbage is as much
    assert len(campaigns.campaigns["C1"].incidents) == 8_801


def test_the_stronger_tie_of_a_family_is_told_once() -> None:
    campaigns = Campaigns()
    for name in ("a.example", "b.example", "b.example"):
        one = sighting(A, name)
        indicator = one.match.indicator._replace(threat="c2:dyre")
        contact(campaigns, replace(one, match=one.match._replace(indicator=indicator)))
    (campaign,) = campaigns.campaigns.values()
    assert campaign.ties == ["registered domain b.example is listed for threat dyre, too"]


DOMAINS = [f"d{number}.example" for number in range(5)]
MOVES = st.one_of(
    st.tuples(st.sampled_from([A, B, C]), st.sampled_from(DOMAINS)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
)


@given(st.lists(MOVES, max_size=60))
def test_any_ties_leave_one_incident_per_client_and_campaign(moves: list[tuple[object, object]]) -> None:
    campaigns = Campaigns()
    contacts = 0
    for one, other in moves:
        if isinstance(one, str):
            contact(campaigns, sighting(one, str(other)))
            contacts += 1
        else:
            campaigns.tie(f"C{one}", f"C{other}")
    places = [(one.client, one.campaign) for one in campaigns.incidents.values()]
    assert len(set(places)) == len(places)
    assert sum(one.contacts for one in campaigns.incidents.values()) == contacts
    members = [(one, campaign.id) for campaign in campaigns.campaigns.values() for one in campaign.incidents]
    assert sorted(members) == sorted((one.id, one.campaign) for one in campaigns.incidents.values())
    assert len(campaigns._places._ids) == len(campaigns.incidents)
    stages_are_those_of_incidents(campaigns)


def stages_are_those_of_incidents(campaigns: Campaigns) -> None:
    for campaign in campaigns.campaigns.values():
        members = [campaigns.incidents[one] for one in campaign.incidents]
        assert campaign.repeated == {one.id for one in members if one.contacts > 1}
        assert campaign.sent == {one.id for one in members if one.volume}


@given(st.lists(st.one_of(MOVES, st.tuples(st.sampled_from(["close", "volume"]), st.integers(1, 6))), max_size=40))
def test_stages_follow_their_incidents(moves: list[tuple[object, object]]) -> None:
    campaigns = Campaigns()
    for one, other in moves:
        if one == "close":
            campaigns.close(f"I{other}")
        elif one == "volume":
            campaigns.volume(packed(A), f"d{other}.example", "sent 2 GB", at(1))
        elif isinstance(one, str):
            contact(campaigns, sighting(one, str(other)))
        else:
            campaigns.tie(f"C{one}", f"C{other}")
        stages_are_those_of_incidents(campaigns)
    stages_are_those_of_incidents(restarted(campaigns))


@given(st.lists(MOVES, max_size=40))
def test_a_restart_changes_nothing_that_comes_after(moves: list[tuple[object, object]]) -> None:
    lasting = Campaigns()
    for number, (one, other) in enumerate(moves):
        again = restarted(lasting)
        again.number_after(lasting._last, lasting._numbered)
        for campaigns in (lasting, again):
            if isinstance(one, str):
                contact(campaigns, sighting(one, str(other), second=number))
            elif {f"C{one}", f"C{other}"} <= campaigns.campaigns.keys():  # ids of before are no longer asked for
                campaigns.tie(f"C{one}", f"C{other}")
        assert again.incidents == lasting.incidents
        assert {key: set(c.incidents) for key, c in again.campaigns.items()} == {
            key: set(c.incidents) for key, c in lasting.campaigns.items()
        }


# -- devices

LAPTOP, PRINTER = bytes.fromhex("021a2b000001"), bytes.fromhex("021a2b000002")


def under(campaigns: Campaigns, mac: bytes, client: str, second: float, name: str = "bad.example") -> tuple[str, bool]:
    """A contact in a frame of `mac`."""
    campaigns.devices.spoke(mac, packed(client), at(second), is_attached=True)
    return contact(campaigns, sighting(client, name, second))


def test_an_incident_follows_its_device() -> None:
    campaigns = Campaigns()
    said = [
        under(campaigns, LAPTOP, client, second)
        for client, second in ((A, 0), ("2001:db8::a", 1), ("2001:db8::b", 2), (B, 600), (A, 1_200))
    ]
    assert said == [("I1", True)] + 4 * [("I1", False)]
    incident = campaigns.incidents["I1"]
    assert incident.device == "02:1a:2b:00:00:01"
    assert incident.addresses == [packed(one) for one in ("2001:db8::a", "2001:db8::b", B, A)]
    assert (incident.client, incident.contacts) == (packed(A), 5)


def test_an_address_handed_on_opens_another_incident() -> None:
    campaigns = Campaigns()
    assert under(campaigns, LAPTOP, A, 0) == ("I1", True)
    assert under(campaigns, PRINTER, A, 60) == ("I2", True)
    assert under(campaigns, PRINTER, A, 61) == ("I2", False)
    assert [one.device for one in campaigns.incidents.values()] == ["02:1a:2b:00:00:01", "02:1a:2b:00:00:02"]


def test_a_device_that_becomes_known_takes_its_incident_on() -> None:
    campaigns = Campaigns()
    assert contact(campaigns, sighting(A)) == ("I1", True)
    assert under(campaigns, LAPTOP, A, 10) == ("I1", False)
    assert campaigns.incidents["I1"].device == "02:1a:2b:00:00:01"


def test_two_incidents_that_turn_out_to_be_of_one_device_are_folded() -> None:
    campaigns = Campaigns()
    folded: list[tuple[str, str, str]] = []
    campaigns.on_fold = lambda kept, gone: folded.append((kept.id, gone.id, gone.folded_into))
    under(campaigns, LAPTOP, A, 0)
    assert under(campaigns, LAPTOP, B, 10) == ("I2", True)
    assert campaigns.recognise() == []
    campaigns.devices.spoke(LAPTOP, packed(B), at(320), is_attached=True)
    assert [one.id for one in campaigns.recognise()] == ["I1"]
    assert folded == [("I1", "I2", "I1")]
    assert campaigns.current("I2") == "I1"
    assert list(campaigns.incidents) == ["I1"]
    assert campaigns.campaigns["C1"].incidents == ["I1"]
    assert campaigns.incidents["I1"].addresses == [packed(A), packed(B)]
    assert under(campaigns, LAPTOP, B, 330) == ("I1", False)


def test_who_turns_out_to_be_several_hosts_is_no_device() -> None:
    campaigns = Campaigns()
    under(campaigns, LAPTOP, A, 0)
    under(campaigns, LAPTOP, B, 10)
    assert under(campaigns, LAPTOP, A, 20) == ("I1", False)
    assert [one.id for one in campaigns.recognise()] == ["I1"]
    assert [one.device for one in campaigns.incidents.values()] == ["", ""]
    assert [under(campaigns, LAPTOP, one, 30) for one in (A, B)] == [("I1", False), ("I2", False)]


def test_a_closed_incident_of_a_device_leaves_nothing_behind() -> None:
    campaigns = Campaigns()
    for client, second in ((A, 0), ("2001:db8::a", 1)):
        under(campaigns, LAPTOP, client, second)
    campaigns.close("I1")
    assert campaigns._places._ids == {}
    assert under(campaigns, LAPTOP, "2001:db8::a", 2) == ("I2", True)


def test_after_a_restart_a_device_finds_its_incident() -> None:
    before = Campaigns()
    under(before, LAPTOP, A, 0)
    under(before, LAPTOP, "2001:db8::a", 1)
    contact(before, sighting(C))
    after = Campaigns()
    after.restore([replace(one, incidents=[]) for one in before.campaigns.values()], before.incidents.values())
    assert contact(after, sighting("2001:db8::a", second=5)) == ("I1", False), "its frame may not have been seen yet"
    assert under(after, LAPTOP, "10.1.1.99", 10) == ("I1", False)
    assert under(after, PRINTER, A, 20) == ("I3", True)


def test_when_campaigns_merge_a_device_has_one_incident() -> None:
    campaigns = Campaigns()
    under(campaigns, LAPTOP, A, 0)
    under(campaigns, LAPTOP, "2001:db8::a", 1, "worse.example")
    under(campaigns, PRINTER, C, 2, "worse.example")
    campaigns.tie("C1", "C2", "both used 203.0.113.66")
    assert campaigns.campaigns["C1"].incidents == ["I1", "I3"]
    assert campaigns.campaigns["C1"].ties == ["both used 203.0.113.66"]
    assert campaigns.incidents["I1"].contacts == 2
    assert campaigns.incidents["I1"].addresses == [packed(A), packed("2001:db8::a")]


def test_when_campaigns_merge_a_client_whose_address_a_device_has_now_has_one_incident() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A))
    contact(campaigns, sighting(A, "worse.example"))
    under(campaigns, LAPTOP, B, 1)
    under(campaigns, LAPTOP, A, 4_000)
    campaigns.tie("C1", "C2")
    places = [(one.client, one.device) for one in campaigns.incidents.values()]
    assert len(set(places)) == len(places)
    assert campaigns.campaigns["C1"].incidents == sorted(campaigns.incidents)


DEVICES = {A: LAPTOP, "2001:db8::a": LAPTOP, "2001:db8::b": LAPTOP, B: PRINTER, C: b""}


@given(st.permutations([(client, name) for client in DEVICES for name in ("bad.example", "worse.example")]), st.data())
def test_any_order_gives_the_same_incidents(order: list[tuple[str, str]], data: st.DataObject) -> None:
    campaigns = Campaigns()
    tie_at = data.draw(st.integers(0, len(order)))
    for number, (client, name) in enumerate(order):
        if number == tie_at:
            campaigns.tie(campaigns.about("bad.example"), campaigns.about("worse.example"))
        if DEVICES[client]:
            campaigns.devices.spoke(DEVICES[client], packed(client), at(0), is_attached=True)
        contact(campaigns, sighting(client, name))
    campaigns.tie(campaigns.about("bad.example"), campaigns.about("worse.example"))
    found = {frozenset(one.addresses): (one.contacts, one.device) for one in campaigns.incidents.values()}
    assert found == {
        frozenset(packed(one) for one in (A, "2001:db8::a", "2001:db8::b")): (6, "02:1a:2b:00:00:01"),
        frozenset((packed(B),)): (2, "02:1a:2b:00:00:02"),
        frozenset((packed(C),)): (2, ""),
    }


@given(st.lists(st.sampled_from((A, B, C)), min_size=1, max_size=12))
def test_nobody_behind_a_router_is_merged(clients: list[str]) -> None:
    campaigns = Campaigns()
    for second, client in enumerate(clients):
        campaigns.devices.spoke(PRINTER, packed(client), at(second * 400), is_attached=False)
        contact(campaigns, sighting(client, second=second * 400))
        campaigns.recognise()
    assert {tuple(one.addresses) for one in campaigns.incidents.values()} == {(packed(one),) for one in clients}


# -- ties


def tagged(client: str, name: str, threat: str, second: float = 0) -> Sighting:
    one = sighting(client, name, second)
    return replace(one, match=one.match._replace(indicator=one.match.indicator._replace(threat=threat)))


def test_a_familys_name_ties_and_a_generic_word_does_not() -> None:
    campaigns = Campaigns()
    contact(campaigns, tagged(A, "bad.example", "Emotet C2"))
    contact(campaigns, tagged(B, "worse.example", "emotet"))
    contact(campaigns, tagged(C, "other.example", "c2"))
    contact(campaigns, tagged(C, "third.example", "malware"))
    assert [one.incidents for one in campaigns.campaigns.values()] == [["I1", "I2"], ["I3"], ["I4"]]
    assert campaigns.campaigns["C1"].ties == ["registered domain worse.example is listed for threat emotet, too"]


def behaves(client: str, destination: str, second: float, detector: str = "opaque_get", note: str = "") -> Sighting:
    one = sighting(client, destination, second)
    indicator = one.match.indicator._replace(source=f"behaviour:{detector}", value=destination)
    return replace(one, note=note, match=one.match._replace(level="behaviour", indicator=indicator))


def tried(campaigns: Campaigns, client: str, second: float) -> None:
    one = sighting(client, second=second)
    campaigns.assign(one)
    campaigns.tried(one)


def test_the_same_behaviour_elsewhere_after_a_block_is_a_candidate() -> None:
    campaigns = Campaigns()
    tried(campaigns, A, 0)
    contact(campaigns, behaves(A, "other.example", 1_320))
    assert campaigns.campaigns["C1"].candidates == {
        "C2": f"{A} tried bad.example, blocked, at 2023-11-14 22:13; since 2023-11-14 22:35 opaque get to other.example"
    }
    contact(campaigns, behaves(B, "third.example", 1_320))
    assert list(campaigns.campaigns["C1"].candidates) == ["C2"], "nobody else's"
    assert [one for one, _ in campaigns.candidates.of("C2")] == ["C1"]
    again = Campaigns()
    again.restore(campaigns.campaigns.values(), campaigns.incidents.values())
    assert again.candidates.of("C2") == campaigns.candidates.of("C2")
    contact(campaigns, sighting(C, "elder.example"))
    campaigns.tie("C4", "C2")
    assert [one for one, _ in campaigns.candidates.of("C2")] == ["C1"], "the younger is part of it by now"


def test_a_candidate_after_an_hour_is_none() -> None:
    campaigns = Campaigns()
    tried(campaigns, A, 0)
    contact(campaigns, behaves(A, "other.example", 3_601))
    contact(campaigns, behaves(A, "bad.example", 10))
    assert campaigns.campaigns["C1"].candidates == {}


def test_a_candidate_follows_the_device() -> None:
    campaigns = Campaigns()
    campaigns.devices.spoke(LAPTOP, packed(A), at(0), is_attached=True)
    tried(campaigns, A, 0)
    campaigns.devices.spoke(LAPTOP, packed("2001:db8::a"), at(60), is_attached=True)
    contact(campaigns, behaves("2001:db8::a", "other.example", 61))
    (reason,) = campaigns.campaigns["C1"].candidates.values()
    assert reason.startswith(f"{A}, now 2001:db8::a, tried bad.example")


def test_a_person_confirms_or_rejects_a_candidate() -> None:
    campaigns = Campaigns()
    tried(campaigns, A, 0)
    contact(campaigns, behaves(A, "other.example", 10))
    contact(campaigns, behaves(A, "third.example", 20))
    assert campaigns.reject("C1", "C2")
    assert not campaigns.reject("C1", "C2")
    contact(campaigns, behaves(A, "other.example", 30))
    assert list(campaigns.campaigns["C1"].candidates) == ["C3"], "it is not proposed again"
    campaigns.tie("C1", "C3", "0:root: same malware")
    assert (campaigns.campaigns["C1"].candidates, campaigns.campaigns["C1"].ties) == ({}, ["0:root: same malware"])
    assert campaigns.incidents["I1"].contacts == 1


def test_volume_adds_to_the_incident_that_it_belongs_to() -> None:
    campaigns = Campaigns()
    contact(campaigns, sighting(A))
    assert campaigns.volume(packed(A), "elsewhere.example", "sent 2 GB", at(1)) is None
    assert campaigns.volume(packed(B), "bad.example", "sent 2 GB", at(1)) is None
    incident = campaigns.volume(packed(A), "bad.example", "sent 2 GB", at(1))
    assert incident is not None
    assert (incident.id, incident.volume) == ("I1", "sent 2 GB")
    contact(campaigns, behaves(A, "bad.example", 5, "volume", "sent 3 GB in 1 h"))
    assert campaigns.incidents["I1"].volume == "sent 3 GB in 1 h"
