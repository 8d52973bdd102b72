"""The clock: drift is followed silently, steps are told with their size, processes that share an offset agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.clock import STEP_US, SteadyClock
from tests.runtime.scene import SECOND, T0, Hands


def test_it_shows_the_wall_clocks_time_and_goes_on_with_the_monotonic_one() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.now_us() == T0
    hands.pass_s(1.5)
    assert clock.now_us() == T0 + 1_500_000
    hands.set_by_s(3_600)
    assert clock.now_us() == T0 + 1_500_000  # nobody followed yet
    assert clock.wall_ahead_us() == 3_600 * SECOND


@pytest.mark.parametrize("drift_us", [0, 1, -1, 500, -500_000, STEP_US, -STEP_US])
def test_drift_is_followed_without_a_word(drift_us: int) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall_us += drift_us
    assert clock.follow() == 0
    assert (clock.now_us(), clock.wall_ahead_us()) == (T0 + drift_us, 0)


@pytest.mark.parametrize(
    "step_us", [STEP_US + 1, -STEP_US - 1, 3_600 * SECOND, -T0 + 60 * SECOND, 50 * 365 * 86_400 * SECOND]
)
def test_a_step_is_told_once_with_its_size(step_us: int) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_s(10)
    hands.wall_us += step_us
    assert clock.follow() == step_us
    assert clock.now_us() == hands.wall_us
    assert clock.follow() == 0


def test_a_slow_slew_never_becomes_a_step() -> None:
    """A time server slews 500 ppm: half a second in a thousand. Whoever follows every second never sees more."""
    hands = Hands()
    clock = hands.clock()
    for _ in range(10_000):
        hands.pass_s(1)
        hands.wall_us += 500
        assert clock.follow() == 0
    assert clock.now_us() == hands.wall_us == T0 + 10_005 * SECOND


def test_the_wall_clock_is_taken_for_the_middle_of_the_reading() -> None:
    """Between the two readings of the monotonic clock the process may have waited; the error is half of that."""
    readings = iter([1_000_000_000, 1_000_100_000, 1_000_100_000])
    clock = SteadyClock(wall_ns=lambda: T0 * 1_000, monotonic_ns=lambda: next(readings))
    assert clock.now_us() == T0 + 50


MOVES = st.lists(st.tuples(st.integers(0, 10**10), st.integers(-(10**13), 10**13)), max_size=30)


@given(MOVES)
def test_processes_that_share_the_offset_agree(moves: list[tuple[int, int]]) -> None:
    hands = Hands()
    core = hands.clock()
    packet = hands.clock(core.offset_us)
    for passed_us, set_us in moves:
        hands.wall_us += passed_us + set_us
        hands.monotonic_us += passed_us
        if core.follow():
            assert packet.now_us() != core.now_us()
        packet.offset_us = core.offset_us  # orders.Step; drift is told when it adds up to 10 ms
        assert packet.now_us() == core.now_us() == hands.wall_us


@given(MOVES)
def test_steps_and_drift_add_up_to_what_the_wall_clock_did(moves: list[tuple[int, int]]) -> None:
    hands = Hands()
    clock = hands.clock()
    for passed_us, set_us in moves:
        before_us = clock.now_us()
        hands.wall_us += passed_us + set_us
        hands.monotonic_us += passed_us
        assert clock.now_us() == before_us + passed_us
        assert clock.follow() == (set_us if abs(set_us) > STEP_US else 0)
        assert clock.now_us() == hands.wall_us


def test_the_machines_own_clocks() -> None:
    one = SteadyClock()
    other = SteadyClock(one.offset_us)
    first_us, between_us, last_us = one.now_us(), other.now_us(), one.now_us()
    assert first_us <= between_us <= last_us
    assert abs(one.wall_ahead_us()) < STEP_US
