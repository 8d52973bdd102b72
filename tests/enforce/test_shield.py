"""The adapters' own check: no form of a protected address gets past it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.shield import Shield
from egressd.intel.networks import first_address, parse_address, render_address, render_network
from egressd.intel.protected import Protected
from egressd.model import Target
from tests.enforce.rules import SPARE, networks, protected

SHIELD = Shield(protected(), networks(*SPARE))
INSIDE = st.one_of(
    st.binary(min_size=3, max_size=3).map(lambda tail: b"\x0a" + tail),
    st.binary(min_size=3, max_size=3).map(lambda tail: b"\x7f" + tail),
    st.sampled_from([bytes([8, 8, 8, 8]), bytes([192, 0, 2, 53])]),
)
FORMS = {
    "mapped": lambda addr, fill: bytes(10) + b"\xff\xff" + addr,
    "compatible": lambda addr, fill: bytes(12) + addr,
    "nat64": lambda addr, fill: bytes.fromhex("0064ff9b") + bytes(8) + addr,
    "6to4": lambda addr, fill: b"\x20\x02" + addr + fill[:10],
    "teredo server": lambda addr, fill: bytes.fromhex("20010000") + addr + fill[:8],
    "teredo client": lambda addr, fill: bytes.fromhex("20010000") + fill[:8] + bytes(byte ^ 255 for byte in addr),
    "plain": lambda addr, fill: addr,
}


@given(INSIDE, st.sampled_from(sorted(FORMS)), st.binary(min_size=10, max_size=10), st.binary(min_size=1, max_size=3))
def test_no_form_of_a_protected_address_is_let_through(addr: bytes, form: str, fill: bytes, host: bytes) -> None:
    made = FORMS[form](addr, fill)
    text = render_address(made)
    client = "fd00::9" if len(made) == 16 else "10.0.0.9"
    assert SHIELD.refusal(Target("address", text)), text
    assert SHIELD.refusal(Target("pair", f"{client}>{text}")), text
    for length in (8, 16, 24, 32, 40, 96, 104, 128):
        if length <= 8 * len(made):
            network = render_network(first_address(made, length), length)
            assert SHIELD.refusal(Target("network", network)), network


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_what_is_refused_is_refused_in_every_kind(addr: bytes) -> None:
    text = render_address(addr)
    address = SHIELD.refusal(Target("address", text))
    client = "fd00::9" if len(addr) == 16 else "10.0.0.9"
    assert bool(address) == bool(SHIELD.refusal(Target("pair", f"{client}>{text}")))


def test_the_clients_side_of_a_pair_may_be_protected() -> None:
    assert SHIELD.refusal(Target("pair", "10.0.0.9>192.0.2.1")) == ""


def test_clients_are_isolated_although_their_network_is_protected() -> None:
    assert SHIELD.refusal(Target("client", "10.0.0.9")) == ""
    assert "spared" in SHIELD.refusal(Target("client", "10.1.0.1"))
    assert "spared" in SHIELD.refusal(Target("client", "fd00:0:0:1::1"))


@pytest.mark.parametrize(
    ("value", "refused"),
    [("10.1.0.0/16", False), ("10.0.0.0/8", False), ("8.0.0.0/7", True), ("fd00::/64", False), ("2000::/3", True)],
)
def test_segments(value: str, refused: bool) -> None:
    assert bool(SHIELD.refusal(Target("segment", value))) == refused


def test_networks_that_hold_a_protected_address() -> None:
    for value in ("8.8.8.0/24", "192.0.2.0/24", "2001:db8::/32", "64:ff9b::/96", "64:ff9b::800:0/104", "2002::/16"):
        assert SHIELD.refusal(Target("network", value)), value
    for value in ("198.51.100.0/24", "2001:db8:99::/48", "64:ff9b::c633:6400/120"):
        assert SHIELD.refusal(Target("network", value)) == "", value


def test_ipv4_in_ipv6_clothes_says_so() -> None:
    shield = Shield(Protected([]))
    assert "IPv4" in shield.refusal(Target("address", render_address(parse_address("::ffff:198.51.100.7"))))


@pytest.mark.slow
def test_a_million_forms_of_protected_addresses() -> None:
    """THREATS promise 1, with its own number: addresses and pairs, of every form."""
    chance = random.Random(2015)
    roots = [bytes([10]), bytes([127]), bytes([8, 8, 8, 8]), bytes([192, 0, 2, 53])]
    makers = [FORMS[form] for form in sorted(FORMS)]
    for number in range(1_000_000):
        root = roots[number & 3]
        made = makers[number % len(makers)](root + chance.randbytes(4 - len(root)), chance.randbytes(10))
        text = render_address(made)
        if number & 8:
            target = Target("pair", f"{'fd00::9' if len(made) == 16 else '10.0.0.9'}>{text}")
        else:
            target = Target("address", text)
        assert SHIELD.refusal(target), target
