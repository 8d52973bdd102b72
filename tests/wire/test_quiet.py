"""Quiet directions: a bounded map that stays the same object."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egressd.wire.quiet import Quiet


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
