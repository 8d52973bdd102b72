"""How the daemon itself is: packets lost over all interfaces, and how late its event loop is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from egressd.runtime.sensing import Sensing
from egressd.runtime.vitals import Vitals
from tests.loops import in_loop

SECOND = 1_000_000


class Stopped:
    """A clock that is set."""

    now = 1_700_000_000 * SECOND

    def now_us(self) -> int:
        return self.now


def sensing(*counts: tuple[int, int]) -> Sensing:
    rows: list[dict[str, Any]] = [{"received": received, "kernel_drops": lost} for received, lost in counts]
    return cast(Sensing, SimpleNamespace(interfaces=lambda: rows))


def test_loss_is_that_of_all_interfaces_over_the_last_minute() -> None:
    clock = Stopped()
    vitals = Vitals(clock)
    vitals.note(sensing((0, 0), (0, 0)))
    for minute in (1, 2):
        clock.now += 60 * SECOND
        vitals.note(sensing((900 * minute, 0), (0, 100 * minute)))
        assert vitals.loss_ratio == pytest.approx(0.1)
        assert vitals.is_degraded
    clock.now += 60 * SECOND
    vitals.note(sensing((2_700, 0), (0, 200)))
    assert (vitals.loss_ratio, vitals.is_degraded) == (0.0, False)


@in_loop
async def test_a_loop_that_was_held_up_is_late_by_that_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    vitals = Vitals(Stopped())
    found: list[float] = []
    sleeps_s = iter([0.1, 0.35, *[0.2] * 310])  # how long each sleep of a tenth of a second took
    now_s = [100.0]

    async def sleep(_: float) -> None:
        found.append(round(vitals.lag_s, 3))
        took_s = next(sleeps_s, None)
        if took_s is None:
            raise asyncio.CancelledError
        now_s[0] += took_s

    monkeypatch.setattr(
        "egressd.runtime.vitals.asyncio",
        SimpleNamespace(sleep=sleep, get_running_loop=lambda: SimpleNamespace(time=lambda: now_s[0])),
    )
    with pytest.raises(asyncio.CancelledError):
        await vitals.measure_lag()
    assert found[:3] == [0.0, 0.0, 0.25]
    assert set(found[3:290]) == {0.25}  # the minute is over after 300 of a fifth of a second
    assert found[-1] == 0.1
