"""networks: address text, hidden IPv4, and the table against a linear search with the standard library."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egressd.intel.networks import (
    NAT64_WELL_KNOWN,
    NetworkTable,
    as_sent,
    embedded_ipv4,
    first_address,
    last_address,
    parse_address,
    parse_network,
    render_address,
    render_network,
    ways_to,
)


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "1.2.3.-4", "::g", ":::", "1::2::3", "fe80::1%eth0",
     "[::1]", "2001:db8::1/64", "٣.1.1.1", "::" + "0" * 60, "0x7f.0.0.1", "2130706433"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) == b""


@given(st.ip_addresses())
def test_every_address_parses_and_renders(addr: object) -> None:
    packed = parse_address(str(addr))
    assert packed == addr.packed  # type: ignore[attr-defined]
    assert parse_address(render_address(packed)) == packed


@given(st.lists(st.sampled_from(("0000", "0001", "00a0", "ffff")), min_size=8, max_size=8).map("".join))
@example("0" * 32)
@example("0000" * 7 + "0001")
@example("20010db8" + "0000" + "0001" * 5)  # a single zero group is written out
@example("2001" + "0000" * 3 + "0001" + "0000" * 3)  # of two equal runs the first
def test_ipv6_is_rendered_as_the_standard_library_does(text: str) -> None:
    packed = bytes.fromhex(text)
    if packed[:12] != bytes(10) + b"\xff\xff":  # of which Python 3.13 writes the end as IPv4
        assert render_address(packed) == str(IPv6Address(packed))


@given(st.text(max_size=50))
def test_any_text_is_an_address_or_none(text: str) -> None:
    packed = parse_address(text)
    if packed:
        assert ip_address(text).packed == packed
    parse_network(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", (bytes([192, 0, 2, 0]), 24)),
        ("192.0.2.9", (bytes([192, 0, 2, 9]), 32)),
        ("0.0.0.0/0", (bytes(4), 0)),
        ("::/128", (bytes(16), 128)),
        ("192.0.2.0/33", None),
        ("192.0.2.0/", None),
        ("192.0.2.0/-1", None),
        ("192.0.2.0/255.255.255.0", None),
        ("192.0.2.0/٣", None),
        ("bad.example/24", None),
    ],
)
def test_parse_network(text: str, network: tuple[bytes, int] | None) -> None:
    assert parse_network(text) == network


def test_first_address_and_render() -> None:
    assert first_address(bytes([192, 0, 2, 9]), 24) == bytes([192, 0, 2, 0])
    assert first_address(bytes([255] * 4), 0) == bytes(4)
    assert render_network(bytes([192, 0, 2, 0]), 24) == "192.0.2.0/24"
    assert render_network(bytes([192, 0, 2, 0]), 32) == "192.0.2.0"


# RFC 6052 section 2.4 has these with 192.0.2.33 inside.
@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ],
)
def test_nat64_prefixes(prefix: str, text: str) -> None:
    network = parse_network(prefix)
    assert network is not None
    assert embedded_ipv4(parse_address(text), (NAT64_WELL_KNOWN, network)) == [bytes([192, 0, 2, 33])]


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("::ffff:192.0.2.33", ["192.0.2.33"]),
        ("::192.0.2.33", ["192.0.2.33"]),
        ("64:ff9b::192.0.2.33", ["192.0.2.33"]),
        ("2002:c000:221::1", ["192.0.2.33"]),
        ("2001:0:c633:6401:0:0:3fff:fdde", ["192.0.2.33", "198.51.100.1"]),  # Teredo: client, inverted; then server
        ("::", []),
        ("::1", []),
        ("2001:db8::1", []),
        ("64:ff9b:1::192.0.2.33", []),
        ("192.0.2.33", []),
    ],
)
def test_embedded(text: str, inner: list[str]) -> None:
    assert [render_address(addr) for addr in embedded_ipv4(parse_address(text))] == inner


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("::ffff:192.0.2.33", "192.0.2.33"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::ffff:0:0/95"),
        ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
        ("192.0.2.33", "192.0.2.33"),
    ],
)
def test_as_sent(written: str, sent: str) -> None:
    network = parse_network(written)
    assert network is not None and render_network(*as_sent(*network)) == sent


@pytest.mark.parametrize("text", ["192.0.2.0/28", "192.0.2.33", "192.0.0.0/9"])
@pytest.mark.parametrize("prefix", ["2001:db8::/32", "2001:db8:100::/40", "2001:db8:122::/48", "2001:db8:122:300::/56",
                                    "2001:db8:122:344::/64", "2001:db8:122:344::/96"])  # fmt: skip
def test_ways_to_a_network_are_those_that_lead_there(text: str, prefix: str) -> None:
    """Every form that is read as an address of the network lies in a range, and of the forms beside it none."""
    network, nat64 = parse_network(text), parse_network(prefix)
    assert network is not None and nat64 is not None
    prefixes = (NAT64_WELL_KNOWN, nat64)
    ways = ways_to(*network, prefixes)
    low, high = ways[0]
    assert (low, high) == (first_address(*network), last_address(*network))
    before, after = ((int.from_bytes(one, "big") + by).to_bytes(4, "big") for one, by in ((low, -1), (high, 1)))
    for begin, end in ways[1:]:
        assert len(begin) == len(end) == 16 and begin <= end
        if not begin.startswith(bytes.fromhex("20010000")):
            assert embedded_ipv4(begin, prefixes) == [low] and embedded_ipv4(end, prefixes) == [high]
    for addr, inside in ((low, True), (high, True), (before, False), (after, False)):
        packed = addr.hex(":", 2)
        forms = [f"::ffff:{packed}", f"::{packed}", f"64:ff9b::{packed}", f"2002:{packed}::1"]
        for form in map(parse_address, forms):
            assert embedded_ipv4(form, prefixes) == [addr]
            assert any(begin <= form <= end for begin, end in ways[1:]) == inside, (form.hex(), inside)
    teredo = parse_address("2001:0:c633:6401:0:0:3fff:fdde")
    assert any(begin <= teredo <= end for begin, end in ways[1:])


def test_an_ipv6_network_is_reached_by_its_own_addresses() -> None:
    ends = (parse_address("2001:db8::"), parse_address("2001:db8::ffff:ffff:ffff:ffff"))
    assert ways_to(ends[0], 64, (NAT64_WELL_KNOWN,)) == [ends]


@given(st.binary(min_size=16, max_size=16))
def test_embedded_addresses_are_ipv4(addr: bytes) -> None:
    assert all(len(inner) == 4 for inner in embedded_ipv4(addr))


SMALL = st.tuples(st.integers(0, 255), st.integers(0, 3)).map(lambda pair: bytes([192, 0, pair[1], pair[0]]))


@given(st.lists(st.tuples(SMALL, st.integers(20, 32)), max_size=12), SMALL, st.integers(20, 32))
def test_table_is_the_same_as_a_linear_search(entries: list[tuple[bytes, int]], addr: bytes, length: int) -> None:
    networks = [ip_network((base, size), strict=False) for base, size in entries]
    table = NetworkTable((base, size, str(net)) for (base, size), net in zip(entries, networks, strict=True))
    holding = {str(net) for net in networks if ip_address(addr) in net}
    expected = sorted(holding, key=lambda text: -ip_network(text).prefixlen)
    assert table.covering(addr) == expected
    assert table.longest(addr) == (expected[0] if expected else None)
    asked = ip_network((addr, length), strict=False)
    assert (table.overlapping(asked.network_address.packed, length) is not None) is any(map(asked.overlaps, networks))
    assert table.size == len({str(net) for net in networks})


def test_table_keeps_families_apart_and_the_first_of_two() -> None:
    table = NetworkTable([(bytes(4), 0, "four"), (bytes(4), 0, "later"), (bytes(15) + b"\x01", 128, "six")])
    assert table.longest(bytes([1, 2, 3, 4])) == "four"
    assert table.longest(bytes(15) + b"\x01") == "six"
    assert table.longest(bytes(16)) is None
