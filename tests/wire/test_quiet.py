"""Quiet directions: a bounded map that stays the same object."""

from __future__ import annotations

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


KEYS = [bytes((10, 0, 0, host, 192, 0, 2, 1)) + bytes(3) + bytes((port,)) for host in (1, 255) for port in (1, 2)]
STEPS = st.tuples(st.sampled_from(("begin", "end", "ask")), st.sampled_from((0, 1)), st.sampled_from(KEYS))


@given(st.integers(1, 4), st.lists(st.tuples(STEPS, st.integers(0, 9)), max_size=100))
def test_recent_says_what_the_dictionaries_say(limit: int, steps: list[tuple[tuple[str, int, bytes], int]]) -> None:
    """Keys of two protocols fall on the same slots; times go back; the ring makes room."""
    recent = Recent()
    protocols = ((6, Quiet(limit, None, recent)), (17, Quiet(limit, None, recent)))
    for (what, which, key), ts_us in steps:
        if what == "begin":
            protocols[which][1].begin(key, ts_us)
        elif what == "end":
            protocols[which][1].end(key)
        for proto, quiet in protocols:
            want = quiet.until.get(key, 0) > ts_us
            assert recent.is_quiet(b"before" + key + b"behind", 6, proto, ts_us, quiet.until) is want


def test_recent_is_asked_before_the_dictionary() -> None:
    recent = Recent()
    key = KEYS[0]
    assert recent.is_quiet(key, 0, 6, 5, {key: 7})
    assert recent.is_quiet(key, 0, 6, 6, {})
    assert not recent.is_quiet(key, 0, 6, 7, {})
    assert not recent.is_quiet(key, 0, 17, 5, {})
    recent.forget(bytes(36))
    assert recent.is_quiet(key, 0, 6, 6, {})
    recent.forget(key)
    assert not recent.is_quiet(key, 0, 6, 6, {})
