"""Whom a block would cut off, in words; and the widths of networks."""

from __future__ import annotations

import pytest

from egressd.detect.sharing import chose_address, leave_to_person, shared_with, why_shared, why_too_wide, without_lead
from egressd.intel.networks import parse_network
from tests.detect.scene import X, listed, packed, shared

SITES = ["a.example", "b.example", "c.example"]
RANGES = shared("198.51.100.0/24")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (SITES[:1], "shared with a.example"),
        (SITES[:2], "shared with a.example and b.example"),
        (SITES, "shared with 3 other registered domains, among them a.example"),
    ],
)
def test_who_shares_is_told_in_few_words(others: list[str], words: str) -> None:
    assert shared_with(others) == words


@pytest.mark.parametrize(
    ("address", "others", "why"),
    [
        (X, [], "in 198.51.100.0/24, a shared range (cdn.txt:1)"),
        (X, SITES, "in 198.51.100.0/24, a shared range (cdn.txt:1)"),
        ("203.0.113.7", SITES, "shared with 3 other registered domains, among them a.example"),
        ("203.0.113.7", SITES[:2], ""),
        ("203.0.113.7", [], ""),
    ],
)
def test_what_is_shared(address: str, others: list[str], why: str) -> None:
    assert why_shared(RANGES, packed(address), others, 3) == why


@pytest.mark.parametrize(
    ("line", "chosen"),
    [(X, False), (f"{X} force=yes", True), ("198.51.100.0/24 force=yes", True), ("198.51.100.0/24", False)],
)
def test_force_on_the_line_is_a_persons_choice(line: str, chosen: bool) -> None:
    (indicator,) = listed(line)
    assert chose_address(indicator) is chosen
    assert chose_address(indicator._replace(source="operator"))


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("198.51.0.0/16", ""), ("198.50.0.0/15", "198.50.0.0/15 holds 131,072 addresses; a person must decide"),
        ("64:ff9b::c633:0/112", ""),
        ("64:ff9b::c632:0/111", "198.50.0.0/15 holds 131,072 addresses; a person must decide"),
        ("2001:db8::/32", ""),
        ("2001:db8::/31", "2001:db8::/31 holds a provider's worth of addresses; a person must decide"),
    ],
)  # fmt: skip
def test_the_widest_networks(network: str, why: str) -> None:
    parsed = parse_network(network)
    assert parsed is not None
    assert why_too_wide(*parsed) == why


def test_a_reason_without_what_the_screen_says_already() -> None:
    assert without_lead(leave_to_person("shared with a.example")) == "shared with a.example; a person must decide"
    assert without_lead("blocked by name, not by address: in 1.2.3.0/24") == "in 1.2.3.0/24"
    assert without_lead("over 16 addresses in an hour") == "over 16 addresses in an hour"
