"""What is old is told by a clock that somebody may have set to a wrong year."""

from __future__ import annotations

from egressd.runtime.ageing import Ageing
from egressd.units import DAY_S, DAY_US, HOUR_US

T0 = 1_790_000_000_000_000
FAR_US = 70 * 365 * DAY_US


def test_time_that_passes_is_time() -> None:
    ageing = Ageing(T0)
    assert [ageing.now_us(T0 + n * HOUR_US, 5.0 + n * 3_600) for n in range(100)] == [
        T0 + n * HOUR_US for n in range(100)
    ]


def test_the_first_run_believes_its_clock() -> None:
    assert Ageing(0).now_us(T0, 1.0) == T0


def test_a_jump_ahead_counts_after_a_day_and_not_when_it_is_taken_back() -> None:
    ageing = Ageing(T0)
    assert ageing.now_us(T0, 100_000.0) == T0
    assert ageing.now_us(T0 + FAR_US + HOUR_US, 103_600.0) == T0 + HOUR_US
    assert ageing.now_us(T0 + 2 * HOUR_US, 107_200.0) == T0 + 2 * HOUR_US
    assert ageing.now_us(T0 + FAR_US, 110_000.0) < T0 + DAY_US
    assert ageing.now_us(T0 + FAR_US + DAY_US, 110_000.0 + DAY_S) == T0 + FAR_US + DAY_US


def test_a_start_with_the_clock_years_ahead_of_the_last_run_is_not_believed_for_a_day() -> None:
    ageing = Ageing(T0)
    assert ageing.now_us(T0 + FAR_US, 7.0) == T0
    assert ageing.now_us(T0 + FAR_US + HOUR_US, 3_607.0) == T0 + HOUR_US
    assert ageing.now_us(T0 + FAR_US + DAY_US, 7.0 + DAY_S) == T0 + FAR_US + DAY_US


def test_a_clock_that_is_behind_makes_nothing_younger_for_good() -> None:
    ageing = Ageing(T0)
    assert ageing.now_us(HOUR_US, 7.0) == HOUR_US
    assert ageing.now_us(T0 + HOUR_US, 3_607.0) == 2 * HOUR_US  # as far ahead as any jump
    assert ageing.now_us(T0 + DAY_US + HOUR_US, 3_607.0 + DAY_S) == T0 + DAY_US + HOUR_US
