"""No machine fills the table of incidents, whatever it does with addresses."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.acquaintance import Acquaintances
from egressd.detect.campaigns import Campaigns
from egressd.detect.incident_shares import MAX_APART
from egressd.units import DAY_S
from tests.detect.scene import A, B, at, packed
from tests.detect.test_campaigns import DOMAINS, LAPTOP, MOVES, contact, restarted, sighting


def bridge(campaigns: Campaigns, clients: int, mac: bytes = LAPTOP) -> list[str]:
    """Addresses that one MAC speaks for by turns."""
    found = [f"192.168.7.{number}" for number in range(1, clients + 1)]
    for second in range(2):
        for client in found:
            campaigns.devices.spoke(mac, packed(client), at(second), is_attached=True)
    return found


def test_addresses_of_one_mac_join_the_last_of_sixteen() -> None:
    campaigns = Campaigns()
    said = [contact(campaigns, sighting(client, second=10)) for client in bridge(campaigns, 20)]
    assert said == [(f"I{min(number, MAX_APART)}", number <= MAX_APART) for number in range(1, 21)]
    last = campaigns.incidents["I16"]
    assert (last.contacts, len(last.addresses), last.device) == (5, 5, "")
    assert contact(campaigns, sighting("192.168.7.3", second=11)) == ("I3", False)
    assert contact(campaigns, sighting("192.168.7.20", "worse.example", second=12)) == ("I17", True), "elsewhere"
    assert contact(campaigns, sighting(A, second=13)) == ("I18", True), "of no MAC that is known"


def test_a_closed_incident_makes_room() -> None:
    campaigns = Campaigns()
    clients = bridge(campaigns, 18)
    for client in clients[:17]:
        contact(campaigns, sighting(client, second=10))
    campaigns.close("I4")
    assert contact(campaigns, sighting(clients[17], second=11)) == ("I17", True)


def test_campaigns_that_become_one_keep_what_each_had() -> None:
    campaigns = Campaigns()
    clients = bridge(campaigns, 20)
    for number, client in enumerate(clients[:18]):
        contact(campaigns, sighting(client, DOMAINS[number % 2], second=10))
    campaigns.tie("C1", "C2")
    assert len(campaigns.incidents) == 18
    assert contact(campaigns, sighting(clients[19], DOMAINS[0], second=11)) == ("I18", False)


def test_no_machine_has_more_than_its_part_of_all() -> None:
    campaigns = Campaigns(limit=80)
    for number in range(40):
        contact(campaigns, sighting(A, f"d{number}.example"))
    assert (len(campaigns.incidents), campaigns.untold) == (20, 20)
    assert contact(campaigns, sighting(B)) == ("I21", True)


def test_an_ipv6_network_stands_for_a_machine_that_is_not_known() -> None:
    campaigns = Campaigns(limit=80)
    for number in range(1, 41):
        contact(campaigns, sighting(f"2001:db8::{number:x}"))
    assert (len(campaigns.incidents), campaigns.untold) == (20, 20)
    assert contact(campaigns, sighting("2001:db8:0:1::1")) == ("I21", True)


@given(st.lists(st.one_of(MOVES, st.tuples(st.just("close"), st.integers(1, 6))), max_size=40), st.booleans())
def test_shares_are_those_of_open_incidents(moves: list[tuple[object, object]], one_mac: bool) -> None:
    campaigns = Campaigns()
    for number, (one, other) in enumerate(moves):
        if one_mac and number == 5:
            for second, client in enumerate((A, B, A, B)):
                campaigns.devices.spoke(LAPTOP, packed(client), at(second), is_attached=True)
        if one == "close":
            campaigns.close(f"I{other}")
        elif isinstance(one, str):
            contact(campaigns, sighting(one, str(other), second=number))
        else:
            campaigns.tie(f"C{one}", f"C{other}")
    for known in (campaigns, restarted(campaigns)):
        shares = known.shares
        assert shares._machines.keys() == known.incidents.keys()
        assert shares._open == Counter(shares._machines.values())
        apart = {(machine, known.incidents[id_].campaign) for id_, machine in shares._machines.items()}
        assert shares._apart.keys() == {place for place in apart if len(place[0]) == 6}
        assert sum(map(len, shares._apart.values())) == sum(len(one) == 6 for one in shares._machines.values())


def test_machines_together_never_fill_the_table() -> None:
    """Four that took a quarter each left no place for anybody's incident."""
    campaigns = Campaigns(limit=800)
    for name in range(400):
        for number in range(1, 5):
            contact(campaigns, sighting(f"10.0.0.{number}", f"d{name}.example"))
    counts = Counter(one.client for one in campaigns.incidents.values())
    assert len(counts) == 4 and max(counts.values()) - min(counts.values()) <= 1
    assert 450 < len(campaigns.incidents) < 470  # four thirds of the places that are left
    assert contact(campaigns, sighting(B))[1]


def test_machines_that_nobody_knew_a_day_ago_leave_a_quarter_for_others() -> None:
    """Sixty thousand made-up addresses with a listed name each left no place for anybody's incident."""
    campaigns = Campaigns(limit=80)
    acquaintances = Acquaintances(at(-8 * DAY_S))
    campaigns.shares.knew = acquaintances.knew
    acquaintances.met(packed(A), at(-2 * DAY_S))
    for number in range(200):
        acquaintances.met(packed(f"10.1.0.{number}"), at(number))
        contact(campaigns, sighting(f"10.1.0.{number}", second=number))
    assert (len(campaigns.incidents), campaigns.untold) == (60, 140)
    assert contact(campaigns, sighting(A, second=300)) == ("I61", True)
