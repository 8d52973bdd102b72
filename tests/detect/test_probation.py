"""Terms: ten minutes, an hour, a day, a week; longer with each return, forgotten after a week at rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.probation import FORGET_US, TERMS_US, level_on_return, level_when_due, term_us

MINUTE = 60_000_000
LEVELS = st.integers(0, 50)


@pytest.mark.parametrize(
    ("level", "minutes"), [(0, 10), (1, 60), (2, 24 * 60), (3, 7 * 24 * 60), (4, 7 * 24 * 60), (99, 7 * 24 * 60)]
)
def test_terms(level: int, minutes: int) -> None:
    assert term_us(level) == minutes * MINUTE


@pytest.mark.parametrize(
    ("level", "rest_us", "back"),
    [(0, 0, 1), (1, FORGET_US, 2), (3, 5, 3), (2, FORGET_US + 1, 0), (3, 10 * FORGET_US, 0), (0, -MINUTE, 1)],
)
def test_a_return(level: int, rest_us: int, back: int) -> None:
    assert level_on_return(level, 10**15, 10**15 + rest_us) == back


@pytest.mark.parametrize(
    ("level", "tried", "after"),
    [(0, True, 1), (1, True, 2), (2, True, 3), (3, True, 3), (0, False, None), (3, False, None)],
)
def test_when_a_term_is_over(level: int, tried: bool, after: int | None) -> None:
    assert level_when_due(level, tried) == after


def test_a_rules_own_ladder_is_climbed_to_its_end() -> None:
    ladder = (60, 120, 180, 240, 300, 360)
    level, terms = 0, []
    for _ in range(8):
        terms.append(term_us(level, ladder) // 1_000_000)
        level = level_when_due(level, True, ladder) or 0
    assert terms == [*ladder, 360, 360]
    assert [level_on_return(one, 0, 1, ladder) for one in (3, 4, 5, 9)] == [4, 5, 5, 5]


@given(LEVELS, st.booleans(), st.integers(0, 2 * FORGET_US))
def test_levels_stay_on_the_ladder(level: int, tried: bool, rest_us: int) -> None:
    due = level_when_due(min(level, 3), tried)
    assert due is None or 0 < due < len(TERMS_US)
    back = level_on_return(level, 0, rest_us)
    assert 0 <= back < len(TERMS_US)
    assert term_us(level) <= term_us(level + 1) <= TERMS_US[-1]
