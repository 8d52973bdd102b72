"""Targets to set keys and back, and elements on netlink."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.elements import (
    EXPIRATION,
    EXPR,
    FLAGS,
    KEY,
    KIND_OF_SET,
    LIST_ELEM,
    NFTA_LIST_ELEMENTS,
    SETS,
    TIMEOUT,
    USERDATA,
    Element,
    ElementReader,
    Refused,
    comment,
    existing_of,
    key_attribute,
    pack,
    parse_elements,
    place_of,
    render_element,
    render_key,
    render_list,
    spell,
    target_of,
)
from egressd.enforce.netlink import attribute, generic, nested, parse_attributes, parse_list, text
from egressd.errors import Malformed
from egressd.intel.networks import first_address, render_address, render_network
from egressd.model import Target

V4 = st.binary(min_size=4, max_size=4)
V6 = st.binary(min_size=16, max_size=16)
ADDRESSES = V4 | V6


@given(ADDRESSES)
def test_spelling_agrees_with_the_rest_of_the_house(addr: bytes) -> None:
    assert spell(addr) == render_address(addr)
    assert pack(spell(addr)) == addr


@pytest.mark.parametrize("tail", ["01020304", "ffff01020304", "00000001", "00000000", "ffff00000000"])
def test_spelling_of_ipv4_inside_ipv6(tail: str) -> None:
    addr = bytes.fromhex(tail).rjust(16, b"\0")
    assert spell(addr) == render_address(addr)


@given(ADDRESSES, st.sampled_from(["address", "client"]))
def test_addresses_come_back(addr: bytes, kind: str) -> None:
    target = Target(kind, render_address(addr))
    place = place_of(target)
    assert target_of(place.set_name, place.key, place.end) == target


@given(st.tuples(V4, V4) | st.tuples(V6, V6))
def test_pairs_come_back(both: tuple[bytes, bytes]) -> None:
    target = Target("pair", ">".join(map(render_address, both)))
    place = place_of(target)
    assert target_of(place.set_name, place.key, place.end) == target


@given(ADDRESSES, st.integers(1, 128), st.sampled_from(["network", "segment"]))
def test_networks_come_back(addr: bytes, length: int, kind: str) -> None:
    length = min(length, 8 * len(addr))
    target = Target(kind, render_network(first_address(addr, length), length))
    place = place_of(target)
    assert target_of(place.set_name, place.key, place.end) == target


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("address", "192.0.2.01", "canonical"),
        ("address", "192.0.2.1 ", "canonical"),
        ("address", "2001:DB8::1", "canonical"),
        ("address", "2001:db8:0::1", "canonical"),
        ("address", "", "canonical"),
        ("address", "192.0.2.1\x00", "canonical"),
        ("address", "192.0.2.1; flush ruleset", "canonical"),
        ("network", "192.0.2.1/24", "canonical"),
        ("network", "192.0.2.0/024", "canonical"),
        ("network", "192.0.2.0/32", "canonical"),  # an address alone is written without a length
        ("network", "0.0.0.0/0", "every address"),
        ("network", "::/0", "every address"),
        ("pair", "192.0.2.1", "client>address"),
        ("pair", "192.0.2.1>", "client>address"),
        ("pair", "192.0.2.1>2001:db8::1", "one family"),
        ("pair", "192.0.2.1>192.0.2.2>192.0.2.3", "canonical"),
        ("host", "evil.example", "no host targets"),
        ("", "", "no  targets"),
    ],
)
def test_what_no_set_can_hold_is_refused(kind: str, value: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        place_of(Target(kind, value))


@given(st.text(), st.sampled_from([*SETS, "host"]))
def test_no_text_does_anything_but_stand_or_be_refused(value: str, kind: str) -> None:
    target = Target(kind, value)
    try:
        place = place_of(target)
    except Refused:
        return
    assert target_of(place.set_name, place.key, place.end) == target


def test_the_last_network_of_all_has_no_end() -> None:
    assert place_of(Target("network", "240.0.0.0/4")).end == b""
    assert place_of(Target("segment", "ff00::/8")).end == b""


def test_a_range_that_is_no_network_is_told_as_such() -> None:
    assert target_of(b"blockednet4", bytes([192, 0, 2, 1]), bytes([192, 0, 2, 9])).value == "192.0.2.1-192.0.2.8"
    assert target_of(b"blockednet4", bytes([192, 0, 2, 2]), bytes([192, 0, 2, 6])).value == "192.0.2.2-192.0.2.5"


@pytest.mark.parametrize("set_name", sorted(KIND_OF_SET))
def test_keys_of_a_wrong_size_are_malformed(set_name: bytes) -> None:
    with pytest.raises(Malformed):
        target_of(set_name, b"abc", None)


@pytest.mark.parametrize("decision_id", ["", "D 1\n", "D\u00e91", "D" * 65, "D\x001"])
def test_ids_that_are_none(decision_id: str) -> None:
    with pytest.raises(Refused):
        comment(decision_id)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64))
def test_comments_are_user_data_as_nft_writes_it(decision_id: str) -> None:
    written = decision_id.encode() + b"\0"
    assert comment(decision_id) == attribute(USERDATA, bytes([0, len(written)]) + written)


# Elements as the kernel hands them out


def element(key: bytes, decision_id: str, left_ms: int = 5000, packets: int = 7, octets: int = 420) -> bytes:
    """One element in the order in which the kernel writes its attributes (nf_tables_fill_setelem)."""
    counter = nested(2, attribute(1, octets.to_bytes(8, "big")), attribute(2, packets.to_bytes(8, "big")))
    return nested(
        LIST_ELEM,
        key_attribute(key),
        nested(EXPR, text(1, b"counter"), counter),
        attribute(TIMEOUT, (60_000).to_bytes(8, "big")),
        attribute(EXPIRATION, left_ms.to_bytes(8, "big")),
        comment(decision_id),
    )


def body(set_name: bytes, *elements: bytes) -> bytes:
    return render_list(set_name, b"".join(elements))


IDS = st.from_regex(r"D[1-9][0-9]{0,9}", fullmatch=True)


@given(st.lists(st.tuples(V4, IDS, st.integers(0, 1 << 40), st.integers(0, 1 << 60), st.integers(0, 1 << 60))))
def test_the_quick_reader_reads_what_the_plain_one_reads(drawn: list[tuple[bytes, str, int, int, int]]) -> None:
    message = body(b"blocked4", *(element(*values) for values in drawn))
    assert ElementReader().read(message) == parse_elements(message)


@given(st.lists(st.binary(max_size=60) | st.builds(element, V4, IDS).map(lambda made: made[4:])))
def test_the_quick_reader_is_no_more_lenient(payloads: list[bytes]) -> None:
    """Elements of the same length that look otherwise are read the plain way, with the same outcome."""
    message = body(b"blocked4", *(attribute(LIST_ELEM, payload) for payload in payloads))
    try:
        plain = parse_elements(message)
    except Malformed:
        with pytest.raises(Malformed):
            ElementReader().read(message)
        return
    assert ElementReader().read(message) == plain


@given(st.binary(max_size=300))
def test_only_malformed_escapes(noise: bytes) -> None:
    for read in (parse_elements, ElementReader().read):
        try:
            read(generic(1) + noise)
        except Malformed:
            continue


def test_an_element_about_to_lapse_does_not_look_eternal() -> None:
    for read in (parse_elements, ElementReader().read):
        assert [found.remaining_ms for found in read(body(b"blocked4", *[element(b"abcd", "D1", 0)] * 3))] == [1, 1, 1]


def test_an_element_without_our_mark() -> None:
    bare = nested(LIST_ELEM, key_attribute(b"abcd"))
    assert parse_elements(body(b"blocked4", bare)) == [Element(b"abcd", False, 0, "", 0, 0)]


@pytest.mark.parametrize("userdata", [b"", b"\0", b"\1\3ab\0", b"\0\5a\n\0xy", b"\0\xff" + b"a" * 250])
def test_comments_that_are_none_of_ours(userdata: bytes) -> None:
    made = nested(LIST_ELEM, key_attribute(b"abcd"), attribute(USERDATA, userdata))
    assert parse_elements(body(b"blocked4", made))[0].comment == ""


def test_intervals_are_put_together() -> None:
    places = [place_of(Target("network", value)) for value in ("198.51.100.0/24", "198.51.101.0/24", "255.0.0.0/8")]
    message = body(b"blockednet4", *(render_element(place, 1000, f"D{n}") for n, place in enumerate(places)))
    found = existing_of(b"blockednet4", reversed(parse_elements(message)))
    assert [(one.target.value, one.decision_id) for one in found] == [
        ("198.51.100.0/24", "D0"),
        ("198.51.101.0/24", "D1"),
        ("255.0.0.0/8", "D2"),
    ]


def test_a_key_for_looking_holds_no_more_than_the_key() -> None:
    payload = parse_list(render_key(place_of(Target("address", "192.0.2.1"))), LIST_ELEM)[0]
    assert list(parse_attributes(payload)) == [KEY]
    ends = parse_list(render_key(place_of(Target("network", "192.0.2.0/24"))), LIST_ELEM)
    assert struct.unpack(">I", parse_attributes(ends[1])[FLAGS]) == (1,)
    assert NFTA_LIST_ELEMENTS == 3
