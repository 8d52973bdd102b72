"""When packets count as being lost, and for how long."""

from __future__ import annotations

import pytest

from egressd.metrics.loss import LossWindow
from egressd.units import SECOND_US


def lose(window: LossWindow, seconds: range, received: int, lost: int) -> None:
    """A steady stream over some seconds: `received` and `lost` each second."""
    for second in seconds:
        window.note(second * received, second * lost, second * SECOND_US)


@pytest.mark.parametrize(
    ("received", "lost", "degraded"),
    [(1000, 0, False), (1000, 9, False), (1000, 11, True), (0, 5, True), (0, 0, False)],
)
def test_loss_over_one_percent_for_a_minute_is_degraded(received: int, lost: int, degraded: bool) -> None:
    window = LossWindow()
    lose(window, range(60), received, lost)
    assert not window.degraded(59 * SECOND_US)  # not a minute yet
    window.note(60 * received, 60 * lost, 60 * SECOND_US)
    assert window.degraded(60 * SECOND_US) is degraded


def test_loss_ends_when_the_minute_is_over() -> None:
    window = LossWindow()
    lose(window, range(100), 1000, 50)
    assert window.degraded(99 * SECOND_US) and window.ratio(99 * SECOND_US) == pytest.approx(50 / 1050)
    for second in range(100, 161):
        window.note(99_000 + (second - 99) * 1000, 99 * 50, second * SECOND_US)
    assert not window.degraded(160 * SECOND_US) and window.ratio(160 * SECOND_US) == 0.0


def test_what_was_not_told_for_a_minute_is_not_known() -> None:
    window = LossWindow()
    lose(window, range(100), 1000, 50)
    assert window.degraded(150 * SECOND_US)
    assert not window.degraded(159 * SECOND_US) and window.ratio(159 * SECOND_US) == 0.0


def test_totals_or_clocks_that_go_back_begin_anew() -> None:
    window = LossWindow()
    lose(window, range(100), 1000, 50)
    window.note(10, 0, 101 * SECOND_US)
    assert window.ratio(101 * SECOND_US) == 0.0 and not window.degraded(101 * SECOND_US)
    window.note(20, 10, 50 * SECOND_US)
    assert window.ratio(50 * SECOND_US) == 0.0


def test_frequent_notes_are_bounded() -> None:
    window = LossWindow()
    for milli in range(0, 130_000, 10):
        window.note(milli * 10, milli, milli * 1000)
    assert len(window._samples) <= 130
    assert window.degraded(130 * SECOND_US) and window.ratio(130 * SECOND_US) == pytest.approx(1 / 11, abs=0.001)
