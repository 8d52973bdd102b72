"""Quiet directions: a bounded map that stays the same object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.wire.quiet import Quiet, Recent


def test_begins_ends_and_is_renewed() -> None:
    quiet = Quiet(10)
    until = quiet.until
    quiet.begin(b"a", 5)
    quiet.begin(b"a", 9)
    assert until == {b"a": 9}
    quiet.end(b"a")
    quiet.end(b"a")
    assert until == {} and quiet.until is until


def test_the_oldest_makes_room() -> None:
    quiet = Quiet(3)
    for number in range(7):
        quiet.begin(bytes((number,)), number)
    assert quiet.until == {b"\4": 4, b"\5": 5, b"\6": 6}


@given(st.integers(1, 8), st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=200))
def test_never_over_the_limit_and_the_last_is_always_there(limit: int, steps: list[tuple[bool, int]]) -> None:
    quiet = Quiet(limit)
    until = quiet.until
    for time, (begins, number) in enumerate(steps):
        key = bytes((number,))
        if begins:
            quiet.begin(key, time)
            assert until[key] == time
        else:
            quiet.end(key)
            assert key not in until
        assert len(until) <= limit and quiet.until is until


KEYS4 = [bytes((10, 0, 0, host, 192, 0, 2, 1)) + bytes(3) + bytes((port,)) for host in (1, 255) for port in (1, 2)]
KEYS6 = [bytes((net, *bytes(14), host, *bytes(15), 1, 0, 0, 0, 1)) for net in (0x20, 0xFD) for host in (1, 255)]
KEYS = [*KEYS4, *KEYS6]
STEPS = st.tuples(st.sampled_from(("begin", "end", "ask")), st.sampled_from((0, 1)), st.sampled_from(KEYS))


@given(st.integers(1, 4), st.lists(st.tuples(STEPS, st.integers(0, 9)), max_size=100))
def test_recent_says_what_the_dictionaries_say(limit: int, steps: list[tuple[tuple[str, int, bytes], int]]) -> None:
    """Keys of two protocols, and of two networks, fall on the same slots; times go back; the ring makes room."""
    recent = Recent()
    protocols = ((6, Quiet(limit, None, recent)), (17, Quiet(limit, None, recent)))
    for (what, which, key), ts_us in steps:
        if what == "begin":
            protocols[which][1].begin(key, ts_us)
        elif what == "end":
            protocols[which][1].end(key)
        for proto, quiet in protocols:
            want = quiet.until.get(key, 0) > ts_us
            is_quiet = recent.is_quiet4 if len(key) == 12 else recent.is_quiet6
            assert is_quiet(b"before" + key + b"behind", 6, proto, ts_us, quiet.until) is want


@pytest.mark.parametrize("keys", [KEYS4, KEYS6])
def test_recent_is_asked_before_the_dictionary(keys: list[bytes]) -> None:
    recent = Recent()
    is_quiet = recent.is_quiet4 if keys is KEYS4 else recent.is_quiet6
    key, *others = keys
    assert is_quiet(key, 0, 6, 5, {key: 7})
    assert is_quiet(key, 0, 6, 6, {})
    assert not is_quiet(key, 0, 6, 7, {})
    assert not is_quiet(key, 0, 17, 5, {})
    assert not any(is_quiet(other, 0, 6, 5, {}) for other in others)
    recent.forget(b"")
    assert is_quiet(key, 0, 6, 6, {})
    recent.forget(key)
    assert not is_quiet(key, 0, 6, 6, {})
