"""The text of the table: held to a golden file, line for line, and to what a reader of it must be able to rely on."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.ruleset import (
    DROP,
    PREFIXES,
    Ground,
    RulesetSettings,
    carry,
    ground_elements,
    merge,
    render_ruleset,
)
from egressd.intel.networks import NAT64_WELL_KNOWN, embedded_ipv4, first_address, render_network
from tests.enforce.rules import ground, networks

GOLDEN = Path(__file__).parent / "golden" / "ruleset.nft"


def chain(text: str, name: str) -> list[str]:
    """The rules of one chain."""
    body = text.split(f"\tchain {name} {{\n", 1)[1].split("\n\t}", 1)[0]
    return [line.strip() for line in body.splitlines()]


def test_the_whole_text() -> None:
    assert render_ruleset(RulesetSettings(), ground()) == GOLDEN.read_text(encoding="utf-8")


def test_the_first_rules_of_the_guard_let_protected_destinations_pass() -> None:
    text = render_ruleset(RulesetSettings(), ground())
    assert chain(text, "guard")[:2] == ["ip daddr @never4 return", "ip6 daddr @never6 return"]
    assert chain(text, "inbound")[:2] == ["ip saddr @never4 return", "ip6 saddr @never6 return"]


def test_protected_is_asked_on_the_side_that_is_blocked() -> None:
    """A protected network of ours must not exempt the machines in it."""
    for line in chain(render_ruleset(RulesetSettings(), ground()), "guard"):
        assert not ("never" in line and "saddr" in line), line


def test_the_output_hook_never_matches_sources() -> None:
    """It would swallow the resets that we send in the name of the blocked address."""
    assert chain(render_ruleset(RulesetSettings(), ground()), "output")[1:] == ['oifname "lo" accept', "jump guard"]


def test_every_rule_has_its_ipv6_twin() -> None:
    text = render_ruleset(RulesetSettings(), ground())
    for name in ("guard", "inbound", "quarantine", "cut"):
        rules = chain(text, name)
        four = [rule for rule in rules if rule.startswith("ip ")]
        six = [rule.replace("ip6 ", "ip ") for rule in rules if rule.startswith("ip6 ")]
        assert [rule.replace("4", "6") for rule in four] == [rule.replace("4", "6") for rule in six]


def test_no_rule_asks_the_scratch_set() -> None:
    assert "@canary" not in render_ruleset(RulesetSettings(), ground())


def test_refusing_by_dropping() -> None:
    text = render_ruleset(RulesetSettings(action=DROP), ground())
    assert chain(text, "refuse") == ["drop"]
    assert "reject" not in text


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="reject or drop"):
        render_ruleset(RulesetSettings(action="reset; drop"), ground())


def test_settings_of_the_log() -> None:
    text = render_ruleset(RulesetSettings(log_group=9, log_per_minute=5, log_burst=2, snaplen_bytes=64), ground())
    for letter in PREFIXES:
        tell = chain(text, f"tell_{letter}6")
        assert f'log prefix "egressd:{letter}6" group 9 snaplen 64 queue-threshold 16' in tell[0]
        assert "limit rate 5/minute burst 2 packets" in tell[0]
        assert tell[1] == "goto refuse"


def test_nothing_to_protect_leaves_empty_sets() -> None:
    assert "add element" not in render_ruleset(RulesetSettings(), Ground())


@pytest.mark.parametrize(
    ("carrier", "network", "carried"),
    [
        ("64:ff9b::/96", "8.8.8.8", "64:ff9b::808:808"),
        ("64:ff9b::/96", "10.0.0.0/8", "64:ff9b::a00:0/104"),
        ("2002::/16", "192.0.2.0/24", "2002:c000:200::/40"),
        ("2001::/32", "192.0.2.0/24", "2001:0:c000:200::/56"),
        # RFC 6052 section 2.4, the text's own examples for 192.0.2.33
        ("2001:db8::/32", "192.0.2.33", "2001:db8:c000:221::/64"),
        ("2001:db8:100::/40", "192.0.2.33", "2001:db8:1c0:2:21::/80"),
        ("2001:db8:122::/48", "192.0.2.33", "2001:db8:122:c000:2:2100::/88"),
        ("2001:db8:122:300::/56", "192.0.2.33", "2001:db8:122:3c0:0:221::/96"),
        ("2001:db8:122:344::/64", "192.0.2.33", "2001:db8:122:344:c0:2:2100:0/104"),
        ("2001:db8:122:344::/64", "0.0.0.0/0", "2001:db8:122:344::/64"),
    ],
)
def test_ipv4_inside_ipv6(carrier: str, network: str, carried: str) -> None:
    assert render_network(*carry(networks(carrier)[0], networks(network)[0])) == carried


@given(st.binary(min_size=4, max_size=4), st.integers(8, 32), st.sampled_from([32, 40, 48, 56, 64, 96]))
def test_what_carries_a_protected_address_is_protected_in_the_kernel(addr: bytes, length: int, behind: int) -> None:
    """The sets and `embedded_ipv4`, which policy asks, agree about every prefix length of NAT64."""
    prefix = (first_address(bytes.fromhex("20010db8010203440000000000000000"), behind), behind)
    never = (first_address(addr, length), length)
    sets = ground_elements(Ground(never=(never,)), (NAT64_WELL_KNOWN, prefix))
    inside, bits = carry(prefix, (addr, 32))
    assert bits <= 128
    assert embedded_ipv4(inside, (prefix,)) == [addr]
    assert any(
        ipaddress.ip_address(inside) in ipaddress.ip_network((first, size), strict=False)
        for first, size in sets["never6"]
    )


def test_merging_leaves_disjoint_networks() -> None:
    merged = merge(networks("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/25", "192.0.2.128/25", "10.0.0.0/8"))
    assert [render_network(*network) for network in merged] == ["10.0.0.0/8", "192.0.2.0/24"]
