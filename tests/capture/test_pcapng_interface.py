"""How timestamps of an interface count: options in both byte orders, those that do not fit, times without end."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture.pcapng_interface import MAX_TS_US, Interface

T0_US = 1_700_000_000_123_456


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def told(options: bytes, order: str = "<") -> Interface:
    made = Interface(1, 0)
    made.read_options(b"head" + options + b"tail", 4, 4 + len(options), order == "<")
    return made


def time_of(interface: Interface, count: int) -> int:
    return interface.time_of(count >> 32, count & 0xFFFFFFFF)


@pytest.mark.parametrize("order", ["<", ">"])
def test_resolution_and_offset(order: str) -> None:
    nanoseconds = told(option(order, 2, b"eth0") + option(order, 9, b"\x09"), order)
    assert (nanoseconds.plain, time_of(nanoseconds, T0_US * 1_000 + 999)) == (False, T0_US)
    micro = told(option(order, 9, b"\x06"), order)
    assert (micro.plain, time_of(micro, T0_US)) == (True, T0_US)
    later = told(option(order, 14, struct.pack(order + "q", -5)), order)
    assert (later.plain, time_of(later, 6_000_000), time_of(later, 10)) == (False, 1_000_000, 0)


@pytest.mark.parametrize(
    "options",
    [
        b"\x09",
        b"\x09\0\x01",
        struct.pack("<HH", 9, 200) + b"\x09\0\0\0",
        struct.pack("<HH", 9, 0),
        option("<", 14, b"\x05\0\0\0"),
        option("<", 0, b"") + option("<", 9, b"\x09"),
    ],
)
def test_options_that_do_not_fit_are_not_there(options: bytes) -> None:
    found = told(options)
    assert found.plain and time_of(found, T0_US) == T0_US


def test_captured_length_is_bounded_whatever_the_snaplen() -> None:
    assert [Interface(1, snaplen).max_caplen for snaplen in (0, 96, 1 << 20, 0xFFFFFFFF)] == [
        Interface(1, 0).max_caplen, Interface(1, 0).max_caplen, 1 << 20, Interface(1, 1 << 31).max_caplen,
    ]  # fmt: skip


@given(st.binary(max_size=80), st.booleans(), st.integers(0, 2**64 - 1))
def test_no_options_make_it_raise_or_leave_the_years(options: bytes, little: bool, count: int) -> None:
    made = Interface(1, 0)
    made.read_options(options, 0, len(options), little)
    assert 0 <= time_of(made, count) <= MAX_TS_US
