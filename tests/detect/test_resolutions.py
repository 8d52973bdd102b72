"""Passive DNS: which answer was asked for, where it leads, who lives where, and the bounds of all three."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd import names as names_module
from egressd.detect.resolutions import (
    MAX_ANSWERED,
    MAX_CHAIN,
    MAX_TENANTS,
    Resolutions,
    own_prefixes,
    place_of,
    read_answer,
)
from egressd.intel.networks import NAT64_WELL_KNOWN, embedded_ipv4, on_the_wire
from egressd.model import DNS_ANSWER, DNS_QUERY, UDP, DnsRecord, Observation
from tests.detect.scene import RESOLVER, SUFFIXES, A, B, X, Y, at, flow, learn, message, packed, record

NAME = "www.good.example"


def seen(
    kind: str, second: float, name: str = NAME, client: str = A, server: str = RESOLVER, sport: int = 50000
) -> Observation:
    return Observation(kind, at(second), 1, flow(client, server, sport, 53, UDP), name, name, None)


def table(limit: int = 100) -> Resolutions:
    return Resolutions(SUFFIXES, limit)


# -- questions and answers


@pytest.mark.parametrize(
    ("answer", "txid", "wanted"),
    [
        (seen(DNS_ANSWER, 1), 7, True),
        (seen(DNS_ANSWER, 10), 7, True),
        (seen(DNS_ANSWER, 10.1), 7, False),
        (seen(DNS_ANSWER, -0.1), 7, False),
        (seen(DNS_ANSWER, 1), 8, False),
        (seen(DNS_ANSWER, 1, "good.example"), 7, False),
        (seen(DNS_ANSWER, 1, ""), 7, False),
        (seen(DNS_ANSWER, 1, client=B), 7, False),
        (seen(DNS_ANSWER, 1, server="192.0.2.54"), 7, False),
        (seen(DNS_ANSWER, 1, sport=50001), 7, False),
    ],
)
def test_an_answer_matches_by_address_port_id_and_name(answer: Observation, txid: int, wanted: bool) -> None:
    resolutions = table()
    assert resolutions.asked(seen(DNS_QUERY, 0), 7)
    assert resolutions.was_asked(answer, txid) is wanted


def test_a_question_is_answered_once() -> None:
    resolutions = table()
    resolutions.asked(seen(DNS_QUERY, 0), 7)
    assert not resolutions.was_asked(seen(DNS_ANSWER, 1, "good.example"), 7)  # a wrong guess spoils nothing
    assert resolutions.was_asked(seen(DNS_ANSWER, 1), 7)
    assert not resolutions.was_asked(seen(DNS_ANSWER, 1), 7)


def test_a_question_sent_again_is_the_same_one() -> None:
    resolutions = table()
    assert [resolutions.asked(seen(DNS_QUERY, second), 7) for second in (0, 5, 9.9, 10.1, 12)] == [
        *(True, False, False),  # 10 s from the first
        *(True, False),
    ]
    assert resolutions.was_asked(seen(DNS_ANSWER, 21), 7)  # within 10 s of the last
    assert resolutions.asked(seen(DNS_QUERY, 22), 7)
    assert resolutions.asked(seen(DNS_QUERY, 22, "other.example"), 7)


# -- where an answer leads


def test_aliases_are_followed_in_any_order() -> None:
    chain = ["a.example", "b.example", "c.example"]
    records = [record("c.example", X), record("b.example", "c.example"), record("a.example", "b.example")]
    answer = read_answer("a.example", message("a.example", 1, records))
    assert answer == (tuple(chain), (packed(X),))


def test_records_of_other_owners_and_sections_are_not_read() -> None:
    records = [record("a.example", X), record("b.example", Y), record("b.example", "a.example"), record("a.example", Y)]
    answer = message("a.example", 1, records)
    answer.answer_count = 3  # the last one stands in the additional section
    assert read_answer("a.example", answer) == (("a.example",), (packed(X),))


def test_aliases_in_a_circle_end() -> None:
    records = [record("a.example", "b.example"), record("b.example", "a.example"), record("b.example", X)]
    assert read_answer("a.example", message("a.example", 1, records)) == (("a.example", "b.example"), (packed(X),))


def test_a_chain_has_a_bound() -> None:
    records = [record(f"n{number}.example", f"n{number + 1}.example") for number in range(100)]
    assert len(read_answer("n0.example", message("n0.example", 1, records)).names) == MAX_CHAIN


@pytest.mark.parametrize("aliased", [False, True])
def test_the_addresses_of_an_answer_have_a_bound(aliased: bool) -> None:
    addresses = [packed(f"198.51.{number >> 8}.{number & 255}") for number in range(MAX_ANSWERED + 50)]
    owner = "cdn.example" if aliased else NAME
    records = [DnsRecord(owner, owner, 1, 60, one, "", "", (), False) for one in [*addresses[:20], *addresses]]
    found = read_answer(NAME, message(NAME, 7, [record(NAME, owner), *records] if aliased else records))
    assert found.addresses == tuple(addresses[:MAX_ANSWERED])


def test_names_that_are_none_still_link_a_chain() -> None:
    odd = DnsRecord("", "Odd\\032Name.example", 5, 60, b"", "", "More\\032odd.example", (), False)
    last = DnsRecord("", "more\\032odd.example", 1, 60, packed(X), "", "", (), False)
    first = DnsRecord(NAME, NAME, 5, 60, b"", "", "odd\\032name.example", (), False)
    assert read_answer(NAME, message(NAME, 1, [last, odd, first])).addresses == (packed(X),)


def test_hints_of_service_records_count_and_only_of_those() -> None:
    records = [record("a.example", X, 65), DnsRecord("a.example", "", 16, 60, b"", "", "", (packed(Y),), False)]
    assert read_answer("a.example", message("a.example", 1, records)).addresses == (packed(X),)


# -- places


@pytest.mark.parametrize(
    ("address", "place", "wire"),
    [
        (X, X, X),
        (f"::ffff:{X}", X, X),
        ("64:ff9b::c633:6407", X, "64:ff9b::c633:6407"),
        ("2002:c633:6407::1", "2002:c633:6407::1", "2002:c633:6407::1"),  # a 6to4 router has many hosts behind it
        ("2001:db8::1", "2001:db8::1", "2001:db8::1"),
        ("64:ff9b:1::c633:6407", "64:ff9b:1::c633:6407", "64:ff9b:1::c633:6407"),  # local use: no telling whose
    ],
)
def test_places(address: str, place: str, wire: str) -> None:
    assert place_of(packed(address)) == packed(place)
    assert on_the_wire(packed(address)) == packed(wire)


@pytest.mark.parametrize("length", [32, 40, 48, 56, 64, 96])
@given(st.binary(min_size=12, max_size=12), st.binary(min_size=4, max_size=4))
def test_places_behind_the_networks_own_nat64(length: int, head: bytes, inner: bytes) -> None:
    octets = length // 8
    prefix = b"\x20\x01\x0d\xb8" + head[4:octets]
    prefix = prefix[:8] + bytes(len(prefix) > 8) + prefix[9:]
    after = prefix + inner if octets == 12 else (prefix + inner)[:8] + b"\0" + (prefix + inner)[8:]
    address = after.ljust(16, b"\0")
    own = own_prefixes((NAT64_WELL_KNOWN, (prefix.ljust(16, b"\0"), length)))
    assert len(own) == 1 and place_of(address, own) == inner
    assert [place_of(address, own)] == embedded_ipv4(address, ((prefix.ljust(16, b"\0"), length),))
    assert place_of(address) == address and place_of(packed(X), own) == packed(X)
    assert place_of(packed("64:ff9b::c633:6407"), own) == packed(X)


# -- who lives where


def test_co_tenants_are_other_registered_domains_of_the_last_day() -> None:
    resolutions = table()
    resolutions.lives_at("a.good.example", packed(X), at(0))
    resolutions.lives_at("b.good.example", packed(X), at(10))
    resolutions.lives_at("bad.example", packed(X), at(20))
    resolutions.lives_at("tenant.hosted.example", packed(X), at(30))
    resolutions.lives_at("www.exempt.example", packed(X), at(40), whole=True)
    others = ["good.example", "tenant.hosted.example", "www.exempt.example"]
    assert resolutions.co_tenants(packed(X), frozenset({"bad.example"}), at(50)) == others
    assert resolutions.is_shared(packed(X), "bad.example", at(50))
    assert resolutions.co_tenants(packed(X), frozenset({"bad.example"}), at(86_411)) == others[1:]
    assert resolutions.co_tenants(packed(Y), frozenset(), at(50)) == []
    assert not resolutions.is_shared(packed(Y), "", at(50))


def test_tenants_have_a_bound_and_old_ones_make_room() -> None:
    resolutions = table()
    for number in range(MAX_TENANTS + 10):
        resolutions.lives_at(f"n{number}.example", packed(X), at(number))
    assert len(resolutions.co_tenants(packed(X), frozenset(), at(100))) == MAX_TENANTS
    resolutions.lives_at("new.example", packed(X), at(86_401))  # n0 was seen a day ago
    assert "new.example" in resolutions.co_tenants(packed(X), frozenset(), at(86_401))


def test_the_name_a_client_reached_an_address_by() -> None:
    resolutions = table()
    learn(resolutions, packed(A), "a.example", packed(X), at(0))
    learn(resolutions, packed(A), "b.example", packed(f"::ffff:{X}"), at(10))
    assert resolutions.name_for(packed(A), packed(X), at(20)) == "b.example"
    assert resolutions.name_for(packed(B), packed(X), at(20)) == ""
    assert resolutions.name_for(packed(A), packed(X), at(3610)) == "b.example"
    assert resolutions.name_for(packed(A), packed(X), at(3611)) == ""
    assert resolutions.name_for(packed(A), packed(X), at(9)) == ""


def test_every_table_is_bounded() -> None:
    resolutions = table(20)
    for number in range(1000):
        address = packed(f"198.51.{number >> 8}.{number & 255}")
        resolutions.asked(seen(DNS_QUERY, number), number)
        learn(resolutions, packed(A), f"n{number}.example", address, at(number))
    assert all(len(one) <= 20 for one in (resolutions._asked, resolutions._tenants, resolutions._reached))
    assert resolutions.evicted >= 3 * 980
    assert resolutions.name_for(packed(A), packed("198.51.3.231"), at(1000)) == "n999.example"


NAMES = st.sampled_from(["a.example", "b.example", "c.example", ""])
RECORDS = st.builds(record, NAMES, st.one_of(NAMES, st.sampled_from([X, Y, "2001:db8::1"])))


@given(NAMES, st.lists(RECORDS, max_size=30))
def test_any_answer_is_read(name: str, records: list[DnsRecord]) -> None:
    answer = read_answer(name, message(name, 1, records))
    assert answer.names[0] == name
    assert len(set(answer.names)) == len(answer.names) <= MAX_CHAIN
    owned = {one.address for one in records if one.name in answer.names and one.address}
    assert set(answer.addresses) == owned


def test_registered_domains_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "MAX_CACHED_NAMES", 10)
    resolutions = table()
    for _ in range(2):
        for number in range(50):
            assert resolutions.domain_of(f"a.n{number}.example") == f"n{number}.example"
    assert resolutions.domain_of("hosted.example") == "hosted.example"  # a public suffix has none
    assert len(resolutions._suffixes._known) <= 10
