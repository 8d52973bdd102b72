"""Whose an address is: one machine under many addresses, and who only looks like one machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.devices import (
    MAX_ADDRESSES,
    MAX_CHANGES,
    MAX_NETWORKS,
    MAX_PRIVACY,
    ROUTER,
    SETTLE_US,
    SEVERAL,
    Devices,
    Lease,
    host_name,
)
from egressd.units import DAY_US
from tests.detect.scene import packed

S = 1_000_000
T0 = 1_700_000_000 * S
LAPTOP = bytes.fromhex("021a2b000001")
PRINTER = bytes.fromhex("001a2b000002")
A7, A9, B7 = packed("10.1.1.7"), packed("10.1.1.9"), packed("10.2.1.7")
SIX_A, SIX_B = packed("2001:db8::a"), packed("2001:db8::b")


def spoke(devices: Devices, mac: bytes, address: bytes, second: float, attached: bool = True) -> None:
    devices.spoke(mac, address, T0 + round(second * S), is_attached=attached)


def asked(devices: Devices, mac: bytes, address: bytes, second: float) -> None:
    devices.spoke(mac, address, T0 + round(second * S), is_attached=True, is_asked=True)


def owner(devices: Devices, address: bytes, second: float) -> bytes:
    return devices.device_of(address, T0 + round(second * S))


def lease(address: bytes, mac: bytes, since: float = 0, until: float = 86_400, name: str = "") -> Lease:
    return Lease(address, mac, T0 + round(since * S), T0 + round(until * S), name)


def test_a_host_is_a_device_from_its_first_packet() -> None:
    devices = Devices()
    assert owner(devices, A7, 0) == b""
    spoke(devices, LAPTOP, A7, 0)
    assert owner(devices, A7, 0) == LAPTOP
    assert owner(devices, A7, -60) == b"", "of before nothing is known"


@pytest.mark.parametrize("gap_s", [301, 3_600, 90_000])
def test_an_address_changes_when_the_old_one_was_quiet(gap_s: int) -> None:
    devices = Devices()
    spoke(devices, LAPTOP, A7, 0)
    spoke(devices, LAPTOP, A9, gap_s)
    assert (owner(devices, A7, 0), owner(devices, A9, gap_s)) == (LAPTOP, LAPTOP)


def test_a_quick_change_is_believed_once_the_old_address_stays_quiet() -> None:
    devices = Devices()
    spoke(devices, LAPTOP, A7, 0)
    spoke(devices, LAPTOP, A9, 10)
    assert owner(devices, A9, 10) == b""
    assert owner(devices, A7, 10) == LAPTOP, "what was known stays"
    spoke(devices, LAPTOP, A9, 301)
    assert owner(devices, A9, 10) == LAPTOP


def test_no_change_to_another_network_without_a_lease() -> None:
    devices = Devices()
    spoke(devices, LAPTOP, A7, 0)
    spoke(devices, LAPTOP, B7, 3_600)
    assert owner(devices, B7, 3_600) == b""
    devices.leased(lease(B7, LAPTOP, 3_599))
    assert owner(devices, B7, 3_600) == LAPTOP


def test_addresses_of_version_6_count_at_once_and_by_turns() -> None:
    devices = Devices()
    for second in range(6):
        spoke(devices, LAPTOP, (SIX_A, SIX_B, A7)[second % 3], second)
    assert {owner(devices, one, 6) for one in (SIX_A, SIX_B, A7)} == {LAPTOP}


def test_who_forwards_is_a_router_and_nobody_behind_it_is_its_device() -> None:
    devices = Devices()
    spoke(devices, PRINTER, packed("10.9.0.1"), 0)  # the router's own
    spoke(devices, PRINTER, A7, 1, attached=False)
    spoke(devices, PRINTER, A9, 4_000, attached=False)
    assert [owner(devices, one, 4_000) for one in (A7, A9, packed("10.9.0.1"))] == [b"", b"", b""]
    assert devices.why_none(PRINTER).startswith(ROUTER)
    spoke(devices, PRINTER, packed("10.9.0.1"), 4_001 + 86_400)
    assert owner(devices, packed("10.9.0.1"), 4_001 + 86_400) == PRINTER, "a day later that is over"


def test_a_hotspot_on_its_own_address_stays_a_device() -> None:
    devices = Devices()
    spoke(devices, LAPTOP, A7, 0)
    spoke(devices, LAPTOP, A7, 1, attached=False)  # what it shares its address with
    assert owner(devices, A7, 2) == LAPTOP
    other = Devices()
    spoke(other, LAPTOP, A7, 0, attached=False)
    spoke(other, LAPTOP, A7, 1)
    assert owner(other, A7, 2) == LAPTOP


def test_a_proxy_answers_the_kernel_but_its_packets_have_passed_a_router() -> None:
    for first in (True, False):
        devices = Devices()
        if first:
            asked(devices, PRINTER, A7, 0)
        spoke(devices, PRINTER, A7, 1, attached=False)
        asked(devices, PRINTER, A7, 2)
        asked(devices, PRINTER, A9, 400)
        assert (owner(devices, A7, 500), owner(devices, A9, 500)) == (b"", b"")


def test_a_bridge_speaks_for_two_by_turns() -> None:
    devices = Devices()
    for second in range(0, 60, 10):
        spoke(devices, PRINTER, (A7, A9)[second // 10 % 2], second)
    assert (owner(devices, A7, 60), owner(devices, A9, 60)) == (b"", b"")
    assert devices.why_none(PRINTER).startswith(SEVERAL)
    spoke(devices, PRINTER, A7, 86_500)
    spoke(devices, PRINTER, A7, 86_510)
    assert owner(devices, A7, 86_520) == PRINTER, "a day without is enough"


def test_leases_of_both_addresses_make_turns_innocent() -> None:
    devices = Devices()
    for address in (A7, A9):
        devices.leased(lease(address, LAPTOP))
    for second in range(0, 60, 10):
        spoke(devices, LAPTOP, (A7, A9)[second // 10 % 2], second)
    assert {owner(devices, A7, 60), owner(devices, A9, 60)} == {LAPTOP}


def test_many_changes_in_a_day_are_several_hosts() -> None:
    devices = Devices()
    for number in range(MAX_CHANGES + 2):
        spoke(devices, PRINTER, bytes((10, 1, 1, number)), number * 3_600)
    assert "took up" in devices.why_none(PRINTER)


def test_more_addresses_of_version_6_than_a_host_has() -> None:
    many, wide = Devices(), Devices()
    for number in range(MAX_PRIVACY + 1):
        spoke(many, PRINTER, SIX_A[:15] + bytes((number,)), number)
    for number in range(MAX_NETWORKS + 1):
        spoke(wide, PRINTER, SIX_A[:7] + bytes((number,)) + SIX_A[8:], number)
    assert many.why_none(PRINTER).startswith(SEVERAL)
    assert wide.why_none(PRINTER).startswith(SEVERAL)


def test_an_address_made_from_another_mac() -> None:
    devices = Devices()
    own = packed("2001:db8::1a:2bff:fe00:1")  # of 02:1a:2b:00:00:01
    spoke(devices, LAPTOP, own, 0)
    assert owner(devices, own, 0) == LAPTOP
    spoke(devices, PRINTER, own, 400)
    assert devices.why_none(PRINTER) != ""


def test_an_address_handed_on_is_the_new_devices() -> None:
    devices = Devices()
    spoke(devices, LAPTOP, A7, 0)
    spoke(devices, PRINTER, A7, 60)
    assert (owner(devices, A7, 0), owner(devices, A7, 59), owner(devices, A7, 60)) == (LAPTOP, LAPTOP, PRINTER)
    assert devices.was_anothers(A7, PRINTER, T0)
    assert not devices.was_anothers(A7, PRINTER, T0 + 61 * S)


def test_two_that_use_one_address_by_turns_contest_it() -> None:
    devices = Devices()
    for second in range(0, 80, 10):
        spoke(devices, (LAPTOP, PRINTER)[second // 10 % 2], A7, second)
    assert owner(devices, A7, 80) == b"", "one of them lies"
    spoke(devices, LAPTOP, A7, 1_000)
    assert owner(devices, A7, 1_000) == LAPTOP


def test_a_lease_names_who_is_behind_a_relay_and_ends() -> None:
    devices = Devices()
    spoke(devices, PRINTER, A7, 0, attached=False)
    devices.leased(lease(A7, LAPTOP, 0, 3_600))
    assert (owner(devices, A7, 10), owner(devices, A7, 3_601), owner(devices, A7, -1)) == (LAPTOP, b"", b"")
    devices.leased(lease(A7, LAPTOP, 100, 0)._replace(until_us=0))
    assert owner(devices, A7, 1_000_000) == LAPTOP, "until 0 is for ever"
    devices.forget_lease(A7)
    assert (owner(devices, A7, 110), devices.leases) == (b"", 0)


def test_a_lease_that_is_read_late_confirms_what_frames_showed() -> None:
    devices = Devices()
    spoke(devices, LAPTOP, A7, 0)
    spoke(devices, LAPTOP, A9, 10)
    assert owner(devices, A9, 10) == b""
    devices.leased(lease(A9, LAPTOP, 14))
    assert owner(devices, A9, 10) == LAPTOP
    assert owner(devices, A9, 5) == b""


def test_frames_of_another_mac_contradict_a_lease() -> None:
    devices = Devices()
    devices.leased(lease(A7, LAPTOP))
    spoke(devices, PRINTER, A7, 10)
    assert owner(devices, A7, 11) == b"", "nobody is framed by sending from his address"
    assert owner(devices, A7, 400) == LAPTOP


def test_only_leases_and_the_kernels_asking_count_for_isolation() -> None:
    devices = Devices()
    spoke(devices, LAPTOP, A7, 0)
    assert devices.addresses_of(LAPTOP, T0) == []
    asked(devices, LAPTOP, A7, 1)
    asked(devices, LAPTOP, SIX_A, 2)
    devices.leased(lease(A9, LAPTOP, 3))
    assert devices.addresses_of(LAPTOP, T0) == [A9, SIX_A, A7]
    assert devices.addresses_of(LAPTOP, T0 + 2 * S) == [A9, SIX_A]
    assert devices.addresses_of(PRINTER, T0) == []


@pytest.mark.parametrize("mac", ["000000000000", "ffffffffffff", "01005e000001", "0200", ""])
def test_what_is_no_hosts_mac(mac: str) -> None:
    devices = Devices()
    devices.spoke(bytes.fromhex(mac), A7, T0, is_attached=True)
    devices.leased(lease(A7, bytes.fromhex(mac)))
    assert (devices.count, owner(devices, A7, 0)) == (0, b"")


def test_the_gateways_own_mac_is_nobodys() -> None:
    devices = Devices()
    devices.exclude(frozenset((LAPTOP,)))
    spoke(devices, LAPTOP, A7, 0)
    assert owner(devices, A7, 0) == b""


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3), st.integers(0, 2)), max_size=60))
def test_the_addresses_leased_to_a_device_are_those_of_all_leases_that_stand(moves: list[tuple[int, int, int]]) -> None:
    """They are kept by MAC: to look through all addresses for each device would be what a flood of them makes dear."""
    devices = Devices(8)
    macs = [bytes((2, 0, 0, 0, 0, number)) for number in range(4)]
    for turn, (number, mac, what) in enumerate(moves):
        address = bytes((10, 0, 0, number))
        if what == 0:
            devices.leased(Lease(address, macs[mac], turn + 1, 0, ""))
        elif what == 1:
            devices.forget_lease(address)
        else:
            devices.spoke(macs[mac], address, turn + 1, is_attached=True)
    devices._holders.free_all()
    stand = [(one.lease.mac, address) for address, one in devices._holders.items() if one.lease is not None]
    for mac in macs:
        assert sorted(devices.addresses_of(mac, 0)) == sorted(address for of, address in stand if of == mac)
    assert devices.leases == len(stand) == sum(map(len, devices._leased_to.values()))


def test_names_are_the_leases_first_and_harmless() -> None:
    devices = Devices()
    devices.named(LAPTOP, "from-the-zone.ours.example")
    devices.leased(lease(A7, LAPTOP, name="pc-\x1b[31m'kasuga'"))
    devices.named(LAPTOP, "later.example")
    assert devices.name_of(LAPTOP) == "pc-?[31m?kasuga?"
    assert (host_name("*"), host_name("a" * 99), host_name("é b")) == ("", "a" * 63, "??b")
    assert devices.name_of(b"") == ""


def test_tables_are_bounded_and_evictions_counted() -> None:
    devices = Devices(limit=64)
    for number in range(1_000):
        devices.spoke(b"\2" + number.to_bytes(5, "big"), (0x0A000000 + number).to_bytes(4, "big"), T0, is_attached=True)
    assert devices.count <= 64
    assert devices.evicted > 0
    for number in range(3 * MAX_ADDRESSES):
        devices.spoke(LAPTOP, SIX_A[:14] + number.to_bytes(2, "big"), T0 + number * DAY_US // 8, is_attached=True)
    device = devices._devices.peek(LAPTOP)
    assert device is not None
    assert len(device.uses) <= MAX_ADDRESSES


NOTES = st.lists(
    st.tuples(
        st.sampled_from((LAPTOP, PRINTER)),
        st.sampled_from((A7, A9, B7, SIX_A)),
        st.integers(0, 4_000),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
)


@given(NOTES)
def test_who_is_named_is_never_one_that_is_no_device(notes: list[tuple[bytes, bytes, int, bool, bool]]) -> None:
    devices = Devices()
    for mac, address, second, attached, is_asked in sorted(notes, key=lambda one: one[2]):
        devices.spoke(mac, address, T0 + second * S, is_attached=attached, is_asked=is_asked and attached)
        for one in (A7, A9, B7, SIX_A):
            holder = devices.device_of(one, T0 + second * S)
            assert holder in (b"", LAPTOP, PRINTER)
            assert not holder or devices.why_none(holder) == ""


@given(st.lists(st.tuples(st.sampled_from((A7, A9)), st.integers(1, 200)), min_size=3, max_size=30))
def test_two_hosts_behind_a_router_are_never_merged(turns: list[tuple[bytes, int]]) -> None:
    devices = Devices()
    second = 0
    for address, gap_s in turns:
        second += gap_s
        spoke(devices, PRINTER, address, second, attached=False)
        assert devices.device_of(address, T0 + second * S) == b""


def test_settling_takes_longer_than_two_samples() -> None:
    from egressd.detect.devices import SAMPLE_US

    assert 2 * SAMPLE_US < SETTLE_US
