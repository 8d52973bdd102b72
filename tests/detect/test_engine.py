"""The engine from observation to incident: what may be blocked on whose word, what counts, and what never happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.detect.blocks import MAX_REFUSALS
from egressd.detect.policy_settings import PolicySettings
from egressd.model import FLOW, TCP, Attempt, Decision, FlowKey, Incident, Sighting
from egressd.wire.table import RecentTable
from tests.detect.scene import RESOLVER, A, B, C, Scene, X, Y, at, packed, record, when

C2 = "c2.bad.example"


# -- evidence: whose word blocks whom (DESIGN section 6, THREATS B1)


def test_an_answer_to_a_question_blocks_the_address_for_everybody() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    assert scene.targets("block", "extend") == ["registered_domain bad.example", f"address {X}"]
    assert [d.evidence for d in scene.decisions] == ["E1", "E2"]


@pytest.mark.parametrize("field", ["unasked", "txid", "port", "server", "name", "late", "second"])
def test_a_forged_answer_blocks_nothing_and_accuses_nobody(field: str) -> None:
    scene = Scene()
    scene.question(0, B, C2, txid=1)  # so that a block exists
    before = len(scene.events)
    if field not in ("unasked", "name"):
        scene.question(0.1, A, "www.good.example" if field == "name" else C2, txid=7)
    if field == "second":
        scene.answer(0.2, A, C2, txid=7)
    before = len(scene.events) if field != "unasked" else before
    changes = {"txid": {"txid": 8}, "port": {"sport": 50001}, "server": {"server": "192.0.2.54"}}
    forged = {"txid": 7, **changes.get(field, {})}
    scene.answer(30 if field == "late" else 0.3, A, C2, record(C2, X), **forged)  # type: ignore[arg-type]
    assert scene.events[before:] == []
    assert scene.engine.unasked_answers == 1
    if field == "unasked":
        assert packed(A) not in {one.client for one in scene.incidents}


def test_an_unasked_answer_with_a_listed_alias_accuses_nobody() -> None:
    scene = Scene()
    scene.answer(0, A, "www.good.example", record("www.good.example", C2), record(C2, X))
    assert scene.events == []


def test_forged_sni_toward_an_innocent_address_leads_to_a_pair_at_most() -> None:
    scene = Scene()
    scene.flow(0, A, X)
    scene.tls(0.1, A, X, C2)
    assert scene.targets("block", "extend") == ["registered_domain bad.example", f"pair {A}>{X}"]
    scene.flow(1, B, X)  # somebody else is not concerned
    scene.tls(1.1, B, X, "www.good.example")
    assert {one.client for one in scene.incidents} == {packed(A)}
    assert scene.counts(B) == (0, 0)


def test_forged_sni_to_ten_thousand_addresses_is_a_few_pairs_and_one_refusal() -> None:
    scene = Scene()
    for number in range(10_000):
        scene.tls(number / 1000, A, f"198.51.{100 + number // 250}.{number % 250}", C2, 1024 + number)
    assert not [one for one in scene.targets("block", "extend") if one.startswith("address")]
    assert len(scene.targets("extend")) == 16
    assert scene.rules("refuse") == ["budget"]
    assert len(scene.opened) == 1


def test_what_clients_say_does_not_use_up_the_budget_of_answers() -> None:
    scene = Scene()
    for number in range(300):
        scene.tls(number / 1000, A, f"198.51.100.{number % 250}", C2, 1024 + number)
    scene.resolve(10, B, C2, "203.0.113.9")
    assert scene.targets("extend")[-1] == "address 203.0.113.9"


def test_only_own_resolvers_answer_for_everybody() -> None:
    own = PolicySettings(resolvers=frozenset({packed("10.0.0.53")}))
    scene = Scene(settings=own)
    scene.resolve(0, A, C2, X, server="203.0.113.53")  # a server that the client chose
    scene.resolve(5, A, "www.good.example", X, server="203.0.113.53")
    assert scene.targets("extend") == [f"pair {A}>{X}"]
    scene.resolve(10, B, C2, Y, server="10.0.0.53")
    assert scene.targets("extend")[-1] == f"address {Y}"
    scene.resolve(15, B, "www.good.example", Y, server="203.0.113.53")
    assert scene.targets("withdraw") == []  # nor is an address given free on any server's word


def test_enforcing_without_known_resolvers_blocks_pairs_only() -> None:
    scene = Scene(settings=PolicySettings(mode="enforce"), enforced=True)
    scene.resolve(0, A, C2, X)
    assert scene.targets("extend") == [f"pair {A}>{X}"]


def test_a_listed_address_in_a_host_field_is_blocked_and_not_where_the_packet_went() -> None:
    scene = Scene("203.0.113.66")
    scene.http(0, A, X, "", raw_host="203.0.113.66")
    assert scene.targets("block", "extend") == ["address 203.0.113.66"]
    scene.flow(1, B, X)
    assert scene.counts(B) == (0, 0)
    assert scene.engine.blocks.covering(packed(B), packed(X)) is None


# -- answers that aim at somebody (A1, A2)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "192.0.2.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:c000:201::1"]
)
def test_protected_addresses_are_refused_in_every_form(address: str) -> None:
    scene = Scene()
    scene.resolve(0, A, C2, address)
    scene.tls(1, A, address, C2)
    assert scene.targets("extend") == []
    assert scene.rules("refuse") == ["protected"]


def test_thousands_of_protected_answers_are_not_thousands_of_events() -> None:
    scene = Scene()
    for number in range(2000):
        scene.resolve(number * 2, A, C2, f"10.{number >> 8}.{number & 255}.1")
    assert scene.targets("extend") == []
    assert len(scene.rules("refuse")) == MAX_REFUSALS


@pytest.mark.parametrize("names", [1, 2])
def test_an_address_that_others_were_seen_on_is_for_one_client_only(names: int) -> None:
    scene = Scene()
    for number in range(names):
        scene.resolve(number, B, f"www.good{number}.example", X)
    scene.resolve(10, A, C2, X)
    assert scene.targets("extend") == [f"pair {A}>{X}"]


def test_a_shared_address_is_refused() -> None:
    scene = Scene()
    for number in range(3):
        scene.resolve(number, B, f"www.good{number}.example", X)
    scene.resolve(10, A, C2, X)
    assert scene.targets("extend") == []
    assert scene.rules("refuse") == ["shared"]


@pytest.mark.parametrize(
    ("innocent", "listed"),
    [(X, f"::ffff:{X}"), (X, "64:ff9b::c633:6407"), ("64:ff9b::c633:6407", X), (f"::ffff:{X}", X)],
)
def test_who_lives_there_is_known_however_the_address_is_written(innocent: str, listed: str) -> None:
    before = Scene()
    before.resolve(0, B, "www.good.example", innocent)
    before.resolve(1, A, C2, listed)
    assert not [one for one in before.targets("extend") if one.startswith("address")]
    after = Scene()
    after.resolve(0, A, C2, listed)
    after.resolve(1, B, "www.good.example", innocent)
    assert len(after.targets("withdraw")) == 1


def test_the_tenants_of_a_day_ago_are_gone() -> None:
    scene = Scene()
    scene.resolve(0, B, "www.good.example", X)
    scene.resolve(86_402, A, C2, X)
    assert scene.targets("extend") == [f"address {X}"]


def test_an_innocent_answer_gives_the_address_free_before_its_connection() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.resolve(5, B, "www.good.example", X)
    assert scene.targets("withdraw") == [f"address {X}"]
    withdraw = scene.decisions[-1]
    assert (withdraw.id, withdraw.campaign, withdraw.rule) == ("D1", "C1", "shared")
    scene.flow(6, B, X)
    assert scene.counts(B) == (0, 0)
    scene.tls(7, A, X, C2)  # the infected client's own way there stays closed
    assert scene.targets("extend")[-1] == f"pair {A}>{X}"
    scene.resolve(8, C, C2, X)
    assert scene.targets("extend")[-1] == f"pair {C}>{X}"


def test_an_address_of_two_blocks_is_given_free_by_both() -> None:
    scene = Scene("bad.example\nworse.example")
    scene.resolve(0, A, "bad.example", X)
    scene.resolve(1, A, "worse.example", X)
    assert scene.targets("extend") == [f"address {X}", f"address {X}"]
    scene.resolve(2, B, "www.good.example", X)
    assert scene.targets("withdraw") == [f"address {X}", f"address {X}"]
    assert [block.addresses for block in scene.engine.blocks.by_id.values()] == [{}, {}]
    assert scene.engine.blocks.covering(packed(B), packed(X)) is None


def test_pairs_are_given_free_when_the_address_turns_out_to_be_shared() -> None:
    scene = Scene()
    scene.tls(0, A, X, C2)
    for number in range(3):
        scene.resolve(1 + number, B, f"www.good{number}.example", X)
    assert scene.targets("withdraw") == [f"pair {A}>{X}"]
    assert scene.engine.blocks.covering(packed(A), packed(X)) is None


def test_a_false_sni_on_a_blocked_address_does_not_give_it_free() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.flow(1, A, X)
    scene.tls(1.1, A, X, "www.good.example")
    assert scene.targets("withdraw") == []
    scene.tls(2, B, X, "www.good.example", 40001)  # a client that never asked for the listed name is believed
    assert scene.targets("withdraw") == [f"address {X}"]


def test_an_alias_into_a_shared_name_is_a_tenant() -> None:
    edge = "edge.cdn.example"
    scene = Scene()
    scene.question(0, A, C2, txid=1)
    scene.answer(0.1, A, C2, record(C2, edge), record(edge, X), txid=1)
    assert scene.targets("extend") == [f"pair {A}>{X}"]


def test_what_leads_to_a_listed_name_is_no_tenant() -> None:
    scene = Scene()
    shop = "www.shop.example"
    scene.question(0, A, shop, txid=1)
    scene.answer(0.1, A, shop, record(C2, X), record(shop, C2), txid=1)
    assert [one.name for one in scene.sightings] == [C2]
    assert len(scene.opened) == 1
    assert scene.targets("block", "extend") == ["registered_domain bad.example", f"address {X}"]


def test_records_of_other_owners_say_nothing_about_the_name_asked_for() -> None:
    scene = Scene()
    scene.question(0, A, C2, txid=1)
    scene.answer(0.1, A, C2, record("other.example", Y), record(C2, X), txid=1)
    assert scene.targets("extend") == [f"address {X}"]


def test_the_hints_of_https_records_are_addresses() -> None:
    scene = Scene()
    scene.question(0, A, C2, txid=1)
    scene.answer(0.1, A, C2, record(C2, X, 65), txid=1)
    assert scene.targets("extend") == [f"address {X}"]


def test_a_mail_server_of_an_innocent_name_ties_no_address() -> None:
    scene = Scene()
    scene.question(0, A, "good.example", txid=1)
    scene.answer(0.1, A, "good.example", record("good.example", C2, 15), record("good.example", X), txid=1)
    assert scene.events == []


# -- budgets (A3)


def test_flux_is_sixteen_addresses_and_one_refusal_an_hour() -> None:
    scene = Scene()
    for number in range(1000):
        scene.resolve(number / 100, A, C2, f"198.51.{100 + number // 250}.{number % 250}")
    assert len(scene.targets("extend")) == 16
    assert scene.rules("refuse") == ["budget"]
    scene.resolve(3700, A, C2, "198.51.100.200")  # refused an hour ago for the budget alone
    assert scene.targets("extend")[-1] == "address 198.51.100.200"


def test_two_hundred_blocks_an_hour_and_one_alert() -> None:
    scene = Scene("\n".join(f"bad{number}.example" for number in range(400)))
    for number in range(400):
        scene.question(number / 10, f"10.0.1.{number % 100}", f"bad{number}.example", txid=number)
    assert len(scene.targets("block")) == 200
    assert scene.rules("alert") == ["budget"]
    scene.question(3700, A, "bad300.example", txid=9)
    assert len(scene.targets("block")) == 201


# -- proxies


@pytest.mark.parametrize("how", ["connect", "absolute", "socks", "note"])
def test_a_proxy_is_never_blocked(how: str) -> None:
    proxy = "198.51.100.3"
    scene = Scene()
    scene.flow(0, A, proxy)
    if how == "connect":
        scene.http(0.1, A, proxy, C2, f"{C2}:443", method="CONNECT", dport=443)
    elif how == "absolute":
        scene.http(0.1, A, proxy, C2, f"http://{C2}/", dport=443)
        scene.http(0.2, A, proxy, C2, "/", dport=443)
    elif how == "socks":
        scene.socks(0.1, A, proxy, C2)
    scene.tls(0.3, A, proxy, C2, note="proxied" if how == "note" else ("partial" if how == "connect" else ""))
    if how == "socks":  # of that other port; its own conversation
        assert scene.targets("extend") in ([], [f"pair {A}>{proxy}"])
    else:
        assert scene.targets("extend") == []
        scene.flow(1, A, proxy, 40001)
        assert scene.engine.resolutions.name_for(packed(A), packed(proxy), at(2)) == ""


def test_a_socks_proxy_is_not_what_is_asked_of_it() -> None:
    scene = Scene()
    scene.socks(0, A, X, C2)
    scene.see("tls_sni", 0.1, FlowKey(TCP, packed(A), 40000, packed(X), 1080), C2, None)
    scene.http(0.2, A, X, C2, dport=1080)
    assert scene.targets("extend") == []


def test_another_conversation_on_the_ports_of_a_proxied_one_is_direct() -> None:
    scene = Scene()
    scene.http(0, A, X, "www.good.example", "http://www.good.example/")
    scene.flow(100, A, X, 40000, 80)
    scene.http(100.1, A, X, C2)
    assert scene.targets("extend") == [f"pair {A}>{X}"]


def test_history_behind_a_proxy_blocks_no_proxy() -> None:
    scene = Scene(f"{C2} added={when(100)}")
    scene.http(0, A, X, C2, f"http://{C2}/")
    scene.flow(200, B, Y)
    assert scene.counts(A) == (1, 0)
    assert scene.targets("extend") == []


def test_an_allowed_proxy_allows_nothing_behind_it() -> None:
    scene = Scene(allow=f"allow-destination {X} owner=o reason=proxy")
    scene.http(0, A, X, C2, f"http://{C2}/")
    assert len(scene.sightings) == 1


# -- allowances


def test_ignored_clients_are_never_accused() -> None:
    scene = Scene("c2.bad.example\n203.0.113.9", "ignore-client 10.0.0.6 owner=o reason=lab")
    scene.resolve(0, A, C2, X)
    scene.resolve(1, B, C2, X)
    scene.flow(2, B, X)
    scene.tls(3, B, X, C2)
    scene.flow(4, B, "203.0.113.9")
    assert {one.client for one in scene.incidents} == {packed(A)}
    assert {one.flow.client for one in scene.sightings + scene.attempts} == {packed(A)}


def test_ignored_clients_are_not_found_in_history() -> None:
    allow = f"ignore-client 10.0.0.6 owner=o reason=lab expires={when(50)}"
    scene = Scene(f"{C2} added={when(100)}", allow)
    scene.tls(0, B, X, C2)
    scene.tls(60, C, X, C2)
    scene.flow(200, A, Y)
    assert {one.client for one in scene.incidents} == {packed(C)}


def test_ignoring_a_client_ends_at_packet_time() -> None:
    scene = Scene(allow=f"ignore-client 10.0.0.6 owner=o reason=lab expires={when(100)}")
    scene.question(99.9, B, C2)
    assert scene.events == []
    scene.question(100, B, C2, txid=1)
    assert len(scene.opened) == 1


def test_a_destination_allowed_for_one_client_is_left_open_for_it() -> None:
    scene = Scene(allow=f"allow-destination {C2} client=10.0.0.6 owner=o reason=analyst expires={when(100)}")
    scene.resolve(0, B, C2, X)
    assert scene.events == []
    scene.resolve(1, A, C2, X)
    assert scene.targets("extend") == [f"pair {A}>{X}"]  # not for everybody: the analyst would be cut off
    assert "allow.txt:1" in scene.decisions[-1].reason
    scene.flow(2, B, X)
    scene.tls(3, B, X, C2)
    assert scene.counts(B) == (0, 0)
    scene.resolve(100, A, C2, X)
    assert scene.targets("extend")[-1] == f"address {X}"


def test_an_address_allowed_for_all_is_refused() -> None:
    scene = Scene(allow=f"allow-destination {X} owner=o reason=ours")
    scene.resolve(0, A, C2, X)
    assert scene.targets("extend") == []
    assert scene.rules("refuse") == ["allow-destination"]


def test_an_allowed_name_under_a_listed_domain_keeps_its_address() -> None:
    scene = Scene(allow="allow-destination ok.bad.example owner=o reason=ours")
    scene.resolve(0, A, C2, X)
    scene.resolve(1, B, "ok.bad.example", X)
    assert scene.targets("withdraw") == [f"address {X}"]
    scene.flow(2, B, X)
    assert scene.counts(B) == (0, 0)
    other = Scene(allow="allow-destination ok.bad.example owner=o reason=ours")
    other.resolve(0, B, "ok.bad.example", Y)
    other.resolve(1, A, C2, Y)
    assert other.targets("extend") == [f"pair {A}>{Y}"]


def test_never_block_alerts_once_and_holds_until_it_expires() -> None:
    scene = Scene(allow=f"never-block www.bad.example owner=o reason=partner expires={when(100)}")
    scene.question(0, A, "www.bad.example", txid=1)
    scene.question(10, A, "www.bad.example", txid=2)
    scene.question(20, A, C2, txid=3)  # a block of bad.example would cover www.bad.example too
    assert scene.targets("block") == []
    assert scene.rules("alert") == ["never-block"]
    assert scene.counts(A) == (3, 0)
    scene.question(100, A, C2, txid=4)
    assert scene.targets("block") == ["registered_domain bad.example"]


def test_never_block_inside_a_listed_network() -> None:
    scene = Scene("198.51.100.0/24", "never-block 198.51.100.9 owner=o reason=partner")
    scene.flow(0, A, "198.51.100.10")
    assert scene.targets("block") == []
    assert scene.rules("alert") == ["never-block"]


def test_ignoring_an_indicator_ends_at_packet_time() -> None:
    scene = Scene(allow=f"ignore-indicator {C2} owner=o reason=sinkholed expires={when(100)}")
    scene.question(0, A, C2, txid=1)
    scene.question(99, A, C2, txid=2)
    assert scene.events == []
    scene.question(100, A, C2, txid=3)
    assert len(scene.sightings) == 1


# -- what counts


def test_one_connection_is_one_contact_whatever_it_shows() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.resolve(0.3, A, C2, "2001:db8::7")  # AAAA beside A
    assert scene.counts(A) == (1, 0)
    scene.flow(1, A, X)  # a SYN; its retransmissions are none to the dissector, which knows their numbers
    scene.reply(8.1, A, X)
    scene.tls(8.2, A, X, C2)
    assert scene.counts(A) == (2, 1)
    assert scene.incidents[0].answered == 1


def test_every_further_request_is_a_contact() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.flow(1, A, X, 40000, 80)
    for second in (2, 3, 4):
        scene.http(second, A, X, C2)
    assert scene.counts(A) == (4, 3)
    scene.http(5, A, X, "www.good.example")
    scene.http(6, A, X, C2)
    assert scene.counts(A) == (5, 4)


def test_a_request_that_matches_twice_is_one_contact() -> None:
    scene = Scene("bad.example\nhttp://c2.bad.example/gate.php")
    for second in (0, 1):
        scene.http(second, A, X, C2, "/gate.php?x=1")
    assert len(scene.sightings) == 4
    assert scene.counts(A) == (2, 1)


def test_a_request_for_a_listed_page_is_a_contact_whatever_the_connection_counted_for() -> None:
    """The connection had been counted for the name, which nobody listed: each incident about a page had no contact."""
    scene = Scene("http://c2.bad.example/gate.php")
    scene.resolve(0, A, C2, X)
    scene.flow(1, A, X, 40000, 80)
    scene.http(2, A, X, C2, "/gate.php?x=1")
    assert scene.counts(A) == (1, 0)
    scene.http(3, A, X, C2, "/index.html")
    scene.http(4, A, X, C2, "/gate.php?x=2")
    assert scene.counts(A) == (2, 1)


def test_a_listed_name_on_a_listed_address_counts_for_both() -> None:
    scene = Scene(f"{C2}\n{X}", settings=PolicySettings(mode="enforce"))
    scene.resolve(0, A, C2, X)  # no resolver is known: nothing ties the two to one campaign
    scene.flow(1, A, X)
    scene.tls(1.1, A, X, C2)
    assert [(one.match.indicator.value, one.contacts) for one in scene.incidents] == [(C2, 2), (X, 1)]


def test_a_question_sent_again_is_one_contact() -> None:
    scene = Scene()
    for second in (0, 3, 6):
        scene.question(second, A, C2, txid=5)
    assert scene.counts(A) == (1, 0)
    scene.question(12, A, C2, txid=6)
    assert scene.counts(A) == (2, 1)


def test_the_same_ports_an_hour_later_are_another_connection() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    for number in range(1, 4):
        scene.flow(number * 600, A, X)
        scene.tls(number * 600 + 0.1, A, X, C2)
    assert scene.counts(A) == (4, 3)


def test_quic_and_tcp_to_one_name_are_two_contacts() -> None:
    scene = Scene()
    scene.quic(0, A, X, C2)
    scene.tls(0.1, A, X, C2)
    assert scene.counts(A) == (2, 1)
    assert scene.targets("extend") == [f"pair {A}>{X}"]
    assert len(scene.opened) == 1


def test_a_leak_is_told_once_and_only_where_blocks_are_enforced() -> None:
    for enforced in (True, False):
        scene = Scene("203.0.113.9", enforced=enforced)
        scene.flow(0, A, "203.0.113.9")
        scene.flow(1, A, "203.0.113.9", 40001)
        scene.reply(1.1, A, "203.0.113.9", 40001)
        scene.reply(1.2, A, "203.0.113.9", 40001)
        assert len(scene.leaks) == enforced
        assert len(scene.attempts) == 1


# -- attribution: a connection without a name


def test_a_connection_without_a_name_is_for_what_its_client_resolved() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.flow(1, A, X, dport=4444)
    assert [(one.via, one.name) for one in scene.attempts] == [("flow", C2)]
    scene.flow(2, B, X)  # resolved nothing, but nobody else lives there
    assert [one.name for one in scene.attempts if one.flow.client == packed(B)] == [""]
    assert scene.counts(B) == (1, 1)


def test_nobody_is_accused_for_a_connection_to_a_shared_address() -> None:
    scene = Scene()
    scene.resolve(0, B, "www.good.example", X)
    scene.resolve(1, A, C2, X)
    scene.flow(2, A, X)  # may be for www.good.example, from a cache
    scene.flow(3, B, X)
    assert scene.attempts == []
    scene.tls(4, A, X, C2)
    assert [one.via for one in scene.attempts] == ["tls_sni"]


def test_an_attribution_ends_after_an_hour() -> None:
    scene = Scene()
    scene.tls(0, A, X, C2)
    scene.engine.blocks.remove(scene.engine.blocks.by_id["D1"])
    scene.flow(3601, A, X, 40001)
    assert scene.counts(A) == (1, 0)


# -- indicators come and go


def test_a_block_lapses_with_its_indicator() -> None:
    scene = Scene(f"{C2} expires={when(100)}")
    scene.resolve(0, A, C2, X)
    scene.flow(99, B, X)
    assert scene.counts(B) == (1, 1)
    scene.flow(100, C, X)
    withdraw = scene.decisions[-1]
    assert (withdraw.action, withdraw.rule, withdraw.id, withdraw.ts_us) == ("withdraw", "expired", "D1", at(100))
    assert scene.counts(C) == (0, 0)
    assert len(scene.engine.blocks) == 0
    assert (scene.engine.blocks.addresses, scene.engine.blocks.pairs) == (0, 0)


def test_another_indicator_takes_a_block_over() -> None:
    scene = Scene(f"{C2} expires={when(100)}\nbad.example")
    scene.question(0, A, C2, txid=1)
    scene.question(150, A, C2, txid=2)
    assert scene.targets("withdraw") == []
    assert scene.targets("block") == ["registered_domain bad.example"]
    assert scene.attempts[-1].match.indicator.value == "bad.example"


def test_a_retro_hunt_counts_each_contact_once() -> None:
    scene = Scene(f"{C2} added={when(1000)}")
    scene.resolve(0, A, C2, X)  # a question ...
    scene.resolve(0.2, A, C2, "2001:db8::7")  # ... and its other half
    scene.flow(1, A, X)  # one connection
    scene.tls(1.1, A, X, C2)
    scene.flow(10, A, X, 40001, 80)  # one with three requests
    for second in (11, 12, 13):
        scene.http(second, A, X, C2, sport=40001)
    scene.flow(20, B, Y)
    assert scene.events == []
    scene.flow(1000, B, Y, 40001)
    (found,) = scene.sightings
    assert found.retro and (found.count, found.first_us, found.last_us) == (5, at(0), at(13))
    assert (found.ts_us, found.number) == (at(1000), 0)
    assert scene.counts(A) == (5, 0)
    assert scene.targets("block", "extend") == ["registered_domain bad.example", f"pair {A}>{X}"]
    assert [one.opened_us for one in scene.opened] == [at(1000)]


def test_the_retro_hunt_and_what_follows_are_one_count() -> None:
    scene = Scene(f"{C2} added={when(1000)}")
    scene.resolve(998, A, C2, X)
    scene.flow(999, A, X)
    scene.tls(1001, A, X, C2)  # the connection was counted before the indicator came
    assert scene.counts(A) == (2, 0)
    scene.question(1002, A, C2, txid=77)
    assert scene.counts(A) == (3, 1)
    assert len(scene.opened) == 1


def test_a_closer_indicator_later_does_not_count_again_what_was_told() -> None:
    scene = Scene(f"bad.example\n{C2} added={when(1000)}")
    for number in range(5):
        scene.question(number * 10, A, C2, txid=number)
    scene.question(2000, B, "www.good.example")
    assert [one.retro for one in scene.sightings] == [False] * 5
    assert scene.counts(A) == (5, 4)


def test_indicators_that_nobody_met_say_nothing() -> None:
    scene = Scene(f"{C2} added={when(10)}\n203.0.113.9 added={when(20)}\nbad.example.com added={when(30)}")
    scene.question(0, A, "notbad.example")
    scene.flow(1, A, X)
    scene.flow(100, A, Y)
    assert scene.events == []


def test_an_address_that_is_listed_later_is_found_by_its_connections() -> None:
    scene = Scene(f"198.51.100.0/29 added={when(100)}")
    scene.resolve(0, A, "www.good.example", X)
    scene.flow(1, A, X)
    scene.tls(2, A, X, "www.good.example")
    scene.flow(3, A, X, 40001)
    scene.flow(100, B, Y)
    (found,) = scene.sightings
    assert (found.count, found.address, found.via) == (2, packed(X), "flow")


# -- campaigns


def test_listed_names_on_one_address_are_one_campaign() -> None:
    scene = Scene("bad.example\nworse.example")
    scene.resolve(0, A, "bad.example", X)
    scene.question(1, A, "worse.example", txid=50)
    scene.question(1, B, "worse.example", txid=51)
    assert len(scene.opened) == 3
    scene.answer(1.1, A, "worse.example", record("worse.example", X), txid=50)
    assert [one.id for one in scene.incidents] == ["I1", "I3"]
    (campaign,) = scene.engine.campaigns.campaigns.values()
    assert (campaign.id, campaign.incidents) == ("C1", ["I1", "I3"])
    assert scene.counts(A) == (2, 0)
    scene.flow(2, A, X)
    scene.reply(2.1, A, X)
    assert scene.incidents[0].answered == 1
    scene.question(3, A, "worse.example", txid=52)
    assert (scene.sightings[-1].incident, scene.sightings[-1].campaign) == ("I1", "C1")


def test_incidents_open_once_per_client_and_campaign() -> None:
    scene = Scene()
    for second in range(20):
        for client in (A, B, C):
            scene.question(second * 2, client, f"n{second}.bad.example", txid=second)
    assert [one.id for one in scene.opened] == ["I1", "I2", "I3"]
    assert [one.campaign for one in scene.incidents] == ["C1"] * 3
    scene.engine.finish()
    assert [one.id for one in scene.opened] == ["I1", "I2", "I3"] * 2


# -- bounds


def test_clients_are_bounded_and_still_matched() -> None:
    scene = Scene()
    scene.engine.clients = RecentTable(10)
    for number in range(30):
        scene.question(number, f"10.1.0.{number}", C2, txid=number)
    assert len(scene.engine.clients) <= 10
    assert scene.engine.counts()["clients_beyond_bound"] == 20
    assert packed("10.1.0.29") in scene.engine.clients
    assert len(scene.opened) == 30


# -- properties

CLIENTS = st.sampled_from([A, B, C, "2001:db8::5"])
NAMES = st.sampled_from([C2, "bad.example", "x.y.bad.example", "worse.example", "www.good.example", "", "old.example"])
SERVERS = st.sampled_from(
    [
        X,
        Y,
        "203.0.113.9",
        "203.0.113.77",
        f"::ffff:{X}",
        "64:ff9b::c633:6407",
        "10.0.0.1",
        "2002:c633:6407::1",
        RESOLVER,
    ]
)
PORTS = st.sampled_from([40000, 40001, 40002])
STEP = st.tuples(
    st.sampled_from(["q", "a", "ra", "flow", "reply", "tls", "quic", "http", "proxy", "socks", "cname"]),
    st.sampled_from([0.0, 0.01, 0.5, 3.0, 40.0, 900.0, 4000.0]),
    CLIENTS,
    NAMES,
    SERVERS,
    PORTS,
    NAMES,
)
LISTS = (
    f"{C2} expires={when(9000)}\nworse.example added={when(2000)} confidence=80\n203.0.113.9 added={when(1000)}\n"
    f"203.0.113.64/26\nold.example expires={when(500)}\nhttp://www.good.example/gate\nbad.example added={when(4000)}"
)
ALLOW = (
    f"ignore-client 10.0.0.7 owner=o reason=r expires={when(3000)}\n"
    f"allow-destination bad.example client=10.0.0.6 owner=o reason=r expires={when(5000)}\n"
    f"never-block worse.example owner=o reason=r expires={when(6000)}"
)


def play(steps: list[tuple[str, float, str, str, str, int, str]], enforced: bool) -> Scene:
    scene = Scene(LISTS, ALLOW, enforced=enforced, history=50)
    now = 0.0
    for what, pause, client, name, server, sport, other in steps:
        now += pause
        if what == "q":
            scene.question(now, client, name, sport=sport)
        elif what == "a":
            scene.answer(now, client, name, record(name, server), sport=sport)
        elif what == "ra":
            scene.resolve(now, client, name, server)
        elif what == "cname":
            scene.question(now, client, name, sport=sport, txid=1, more=[other])
            scene.answer(now, client, name, record(name, other), record(other, server), sport=sport, txid=1)
        elif what == "flow":
            scene.flow(now, client, server, sport)
        elif what == "reply":
            scene.reply(now, client, server, sport)
        elif what == "tls":
            scene.tls(now, client, server, name, sport)
        elif what == "quic":
            scene.quic(now, client, server, name, sport)
        elif what == "http":
            scene.http(now, client, server, name, "/gate", sport=sport, dport=443, raw_host=name or server)
        elif what == "proxy":
            scene.http(now, client, server, name, f"http://{name}/gate", sport=sport, header_host=other, dport=443)
        else:
            scene.socks(now, client, server, name, sport, "203.0.113.9")
    scene.engine.finish()
    return scene


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=60), st.booleans())
def test_whatever_happens(steps: list[tuple[str, float, str, str, str, int, str]], enforced: bool) -> None:
    scene = play(steps, enforced)
    ids = [d.id for d in scene.decisions if d.action == "block"]
    assert ids == [f"D{number}" for number in range(1, len(ids) + 1)]
    opened = list(dict.fromkeys(one.id for one in scene.opened))
    assert opened == [f"I{number}" for number in range(1, len(opened) + 1)]
    places = [(one.client, one.campaign) for one in scene.incidents]
    assert len(places) == len(set(places))
    for incident in scene.incidents:
        assert 0 <= incident.attempts <= incident.contacts
        assert incident.answered <= incident.contacts
        assert incident.first_us <= incident.last_us
    assert sum(one.attempts for one in scene.incidents) == len(scene.attempts)
    campaigns = scene.engine.campaigns
    members = [one for campaign in campaigns.campaigns.values() for one in campaign.incidents]
    assert sorted(members) == sorted(campaigns.incidents)
    for event in scene.events:
        assert isinstance(event, Sighting | Decision | Attempt | Incident)
        if isinstance(event, Decision) and event.action in ("block", "extend"):
            assert not any(target.value in ("10.0.0.1", "127.0.0.1") for target in event.targets)
        if isinstance(event, Sighting) and not event.retro and event.ts_us < at(3000):
            assert event.flow.client != packed(C)
    blocks = scene.engine.blocks
    assert blocks.addresses == sum(len(one.addresses) for one in blocks.by_id.values())
    assert blocks.pairs == sum(len(one.pairs) for one in blocks.by_id.values())


@settings(max_examples=30, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_the_same_observations_give_the_same_events(steps: list[tuple[str, float, str, str, str, int, str]]) -> None:
    assert play(steps, False).events == play(steps, False).events


def test_what_overtakes_a_new_block_is_no_leak() -> None:
    """A connection begun within the time that the block needs to reach the kernel may be answered once."""
    scene = Scene(settings=PolicySettings(mode="enforce", resolvers=frozenset((packed(RESOLVER),))), enforced=True)
    scene.resolve(0, A, "c2.bad.example", X)
    scene.flow(0.0105, A, X, sport=40001)  # the answer came at 0.01
    scene.reply(0.0106, A, X, sport=40001)
    assert [one.stopped for one in scene.attempts] == [False]
    assert scene.leaks == []
    (incident,) = scene.incidents
    assert (incident.attempts, incident.answered) == (1, 1)
    scene.flow(1, A, X, sport=40002)
    scene.reply(1.1, A, X, sport=40002)
    assert [one.stopped for one in scene.attempts] == [False, True]
    assert len(scene.leaks) == 1


# -- servers that are spoken with in DNS


def test_what_looks_like_dns_to_a_listed_address_is_a_contact() -> None:
    """Of an exchange by UDP there was no other sign, and lists of addresses met none of it, on any port."""
    scene = Scene(X, enforced=True)
    for second, name in enumerate(("a.tunnel.example", "b.tunnel.example", "a.tunnel.example")):
        scene.question(second, A, name, server=X)
        scene.answer(second + 0.1, A, name, server=X)
    assert [(one.match.level, one.via) for one in scene.sightings] == [("address", FLOW)]
    (incident,) = scene.incidents
    assert (incident.contacts, incident.answered) == (1, 1), "one conversation, by its ports"
    assert scene.targets("block") == [f"address {X}"]
    scene.question(30, A, "c.tunnel.example", server=X, sport=50_001)
    scene.answer(30.1, A, "c.tunnel.example", server=X, sport=50_001)
    assert scene.counts(A) == (2, 1) and len(scene.leaks) == 1


def test_questions_to_a_server_of_a_blocked_name_are_attempts() -> None:
    scene = Scene(settings=PolicySettings(resolvers=frozenset((packed(RESOLVER),))))
    scene.resolve(0, A, C2, X)
    scene.question(1, B, "nothing.example", server=X)
    assert [(one.flow.client, one.via) for one in scene.attempts] == [(packed(B), FLOW)]
    scene.question(2, B, "nothing.example")  # to the resolver
    assert len(scene.attempts) == 1


def test_a_packet_of_the_far_future_hides_no_contact_before_an_indicator_comes_into_force() -> None:
    """It came into force then, and was searched for; what was contacted until its true time was never told."""
    year = 365 * 86_400
    scene = Scene(f"c2.bad.example added={when(7_200)}")
    scene.question(10, A, "c2.bad.example")
    scene.question(year, C, "fine.example")
    scene.question(4_000, B, "c2.bad.example")
    scene.question(7_300, C, "fine.example")
    scene.question(8_000, A, "c2.bad.example")
    assert [(one.client, one.contacts, one.retro) for one in scene.engine.campaigns.incidents.values()] == [
        (packed(A), 2, True), (packed(B), 1, True),
    ]  # fmt: skip
