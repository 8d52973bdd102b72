"""Shared ranges: lines good and bad, look-ups in every form of an address, and what is shipped."""

from __future__ import annotations

import pickle
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.networks import parse_network
from egressd.intel.shared_ranges import NO_SHARED_RANGES, SharedRange, SharedRanges, parse_shared_ranges
from tests.detect.scene import packed

SHIPPED = Path(__file__).resolve().parent.parent.parent / "egressd" / "intel" / "data" / "shared_ranges.txt"

TEXT = """\
# what the operators say of themselves
198.51.100.0/24 operator="Example CDN"   # Europe
198.51.100.128/25
2001:db8:c::/48 operator=Cloud
203.0.113.9
"""


def ranges(text: str = TEXT) -> SharedRanges:
    found, problems = parse_shared_ranges(text, "cdn.txt")
    assert problems == []
    return SharedRanges(found)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("198.51.100.7", "in 198.51.100.0/24, a shared range of Example CDN (cdn.txt:2)"),
        ("198.51.100.200", "in 198.51.100.128/25, a shared range (cdn.txt:3)"),
        ("2001:db8:c::1", "in 2001:db8:c::/48, a shared range of Cloud (cdn.txt:4)"),
        ("203.0.113.9", "in 203.0.113.9, a shared range (cdn.txt:5)"),
        ("::ffff:198.51.100.7", "in 198.51.100.0/24, a shared range of Example CDN (cdn.txt:2)"),
        ("64:ff9b::c633:6407", "in 198.51.100.0/24, a shared range of Example CDN (cdn.txt:2)"),
        ("2002:c633:6407::1", "in 198.51.100.0/24, a shared range of Example CDN (cdn.txt:2)"),
        ("203.0.113.8", ""),
        ("2001:db8:d::1", ""),
    ],
)
def test_the_most_specific_range_is_told_with_its_line(address: str, why: str) -> None:
    assert ranges().why(packed(address)) == why
    assert pickle.loads(pickle.dumps(ranges())).why(packed(address)) == why


@pytest.mark.parametrize(
    ("network", "shared"),
    [
        ("198.51.0.0/16", True), ("198.51.100.64/26", True), ("198.51.101.0/24", False), ("203.0.113.9", True),
        ("203.0.113.8", False), ("2001:db8::/32", True), ("2001:db8:d::/48", False),
    ],
)  # fmt: skip
def test_a_network_is_shared_when_any_of_it_is(network: str, shared: bool) -> None:
    parsed = parse_network(network)
    assert parsed is not None
    assert bool(ranges().why_network(*parsed)) is shared


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("198.51.100.0/33", 'cdn.txt:1:1: not an address or network: "198.51.100.0/33"'),
        ("  cdn.example # by name", 'cdn.txt:1:3: not an address or network: "cdn.example"'),
        ("0.0.0.0/0", "cdn.txt:1:1: 0.0.0.0/0 is too wide: no address in it would ever be blocked"),
        ("2000::/3", "cdn.txt:1:1: 2000::/3 is too wide"),
        ("198.51.100.0/24 owner=x", 'cdn.txt:1:17: unknown option "owner"'),
        ("198.51.100.0/24 Cloud", 'cdn.txt:1:17: unexpected word "Cloud"'),
        ("198.51.100.0/24 operator=", "cdn.txt:1:17: operator= has no value"),
    ],
)
def test_mistakes_are_told_at_their_place_and_the_rest_is_read(line: str, problem: str) -> None:
    found, problems = parse_shared_ranges(f"{line}\n203.0.113.0/24\n", "cdn.txt")
    assert [one.place for one in found] == ["cdn.txt:2"]
    assert len(problems) == 1 and str(problems[0]).startswith(problem)


def test_nothing_is_shared_without_ranges() -> None:
    assert NO_SHARED_RANGES.why(packed("104.16.1.1")) == ""


def test_a_prefix_of_ones_own_for_nat64_is_looked_through() -> None:
    found, _ = parse_shared_ranges("198.51.100.0/24\n", "cdn.txt")
    own = SharedRanges(found, ((packed("2001:db8:64::"), 96),))
    assert own.why(packed("2001:db8:64::c633:6407"))
    assert not own.why(packed("64:ff9b::c633:6407"))
    assert own.why_network(packed("2001:db8:64::c633:6400"), 125)
    assert own.why_network(packed("2001:db8:64::c633:0"), 112)
    assert not own.why_network(packed("2001:db8:64::c633:6500"), 120)
    assert not own.why_network(packed("64:ff9b::c633:6400"), 125)


@given(st.lists(st.ip_addresses(v=4), max_size=20), st.integers(8, 32), st.ip_addresses(v=4))
def test_look_ups_agree_with_the_standard_library(bases: list[object], length: int, asked: object) -> None:
    networks = [ip_network(f"{base}/{length}", strict=False) for base in bases]
    made = SharedRanges(SharedRange(one.network_address.packed, length, "", "x:1") for one in networks)
    assert bool(made.why(packed(str(asked)))) is any(asked in one for one in networks)


@given(st.text(max_size=200))
def test_any_text_is_read_or_told(text: str) -> None:
    found, problems = parse_shared_ranges(text, "x")
    assert len(found) + len(problems) <= text.count("\n") + 1


def test_the_shipped_ranges_are_those_of_named_operators_and_hold_no_reserved_address() -> None:
    found, problems = parse_shared_ranges(SHIPPED.read_text(encoding="utf-8"), SHIPPED.name)
    assert problems == []
    assert {one.operator for one in found} == {"Cloudflare", "Fastly"}
    assert len({(one.first, one.length) for one in found}) == len(found) == 43
    shipped = SharedRanges(found)
    assert shipped.why(packed("104.16.132.229")) == (
        "in 104.16.0.0/13, a shared range of Cloudflare (shared_ranges.txt:20)"
    )
    assert shipped.why(packed("2a04:4e42::81")).startswith("in 2a04:4e42::/32, a shared range of Fastly")
    for reserved in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "10.0.0.1", "8.8.8.8", "1.1.1.1"):
        assert shipped.why(packed(reserved)) == ""
