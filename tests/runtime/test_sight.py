"""The journal has a line when we do not see any more, and when we do again."""

from __future__ import annotations

import pytest

from egressd.runtime.sensing import RESTARTING, UP
from egressd.runtime.sight import BAD_LOOKS, GOOD_LOOKS, Sight


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [f"{one.levelname} {one.getMessage()}" for one in caplog.records]
    caplog.clear()
    return lines


def looks(
    sight: Sight, count: int, states: dict[str, str], canary: str = "", loss: float = 0.0, space: str = ""
) -> None:
    for _ in range(count):
        sight.look(states, canary, loss, space)


DOWN = "ERROR SENSOR DOWN: lan0 is down, what its hosts do is not seen. See: egressd status"


def test_an_interface_that_goes_down_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """Only `status` and metrics said so: with neither open, a blind gateway was a quiet one."""
    sight = Sight()
    looks(sight, 50, {"lan0": UP, "lan1": UP})
    looks(sight, BAD_LOOKS - 1, {"lan0": "down", "lan1": UP})
    looks(sight, 5, {"lan0": UP, "lan1": UP})
    assert said(caplog) == []
    looks(sight, 100, {"lan0": "down", "lan1": UP})
    assert said(caplog) == [DOWN]
    looks(sight, GOOD_LOOKS - 1, {"lan0": UP, "lan1": UP})
    assert said(caplog) == []
    looks(sight, 100, {"lan0": UP, "lan1": UP})
    assert said(caplog) == ["WARNING sensor lan0 is up again"]


def test_a_name_that_never_was_there_is_told_and_one_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    sight = Sight()
    looks(sight, 20, {"eth77": "missing"})
    assert [line[:31] for line in said(caplog)] == ["ERROR SENSOR DOWN: eth77 is mis"]
    looks(sight, 20, {"lan0": UP})
    assert said(caplog) == ["WARNING sensor eth77 is not looked at any more; captured from: lan0"]
    looks(sight, 1, {})
    assert said(caplog) == []


@pytest.mark.parametrize("state", [RESTARTING, "starting"])
def test_a_process_that_starts_says_so_itself(caplog: pytest.LogCaptureFixture, state: str) -> None:
    sight = Sight()
    looks(sight, 20, {"lan0": state})
    looks(sight, 20, {"lan0": UP})
    assert said(caplog) == []


def test_the_self_test_and_losses(caplog: pytest.LogCaptureFixture) -> None:
    sight = Sight()
    looks(sight, 20, {}, "detect lan0: the canary's question was not seen", 0.123)
    looks(sight, 20, {})
    assert said(caplog) == [
        "ERROR THE SELF-TEST FAILS, a listed name may go unseen or unblocked: detect lan0: the canary's question was"
        " not seen. See: egressd doctor",
        "ERROR PACKETS ARE LOST, contacts are missed: 12.3% in the last minute",
        "WARNING the self-test works again",
        "WARNING packets are not lost any more",
    ]


def test_a_disk_that_fills_is_told_before_it_is_full(caplog: pytest.LogCaptureFixture) -> None:
    sight = Sight()
    looks(sight, 20, {}, space="the disk is nearly full")
    looks(sight, 20, {})
    assert said(caplog) == ["ERROR the disk is nearly full", "WARNING there is room on the disk of the state again"]
