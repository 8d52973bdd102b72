"""What the daemon says of its adapters: to people, on screens, in metrics."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from egressd.clock import Clock
from egressd.config.schema import Config
from egressd.model import Target
from egressd.runtime.enforcement import REPAIR_LINE_US, Enforcement
from egressd.runtime.in_force import Register
from tests.detect.live_scene import intel


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.us = 1_000_000_000_000_000

    def now_us(self) -> int:
        return self.us


def enforcement(clock: Clock) -> Enforcement:
    return Enforcement(Register(), clock, lambda *_: None, lambda _: None)


def test_a_gap_that_is_over_is_none() -> None:
    """All gaps since the start were added up: after a minute of them the alert rule and /healthz stood for ever."""

    async def main() -> None:
        of = enforcement(Hand())
        await of.start("monitor", Config(), intel("bad.example\n"), ())
        try:
            of.reconcilers[0].stats.gap_s = 3_600.0
            assert of.adapters()[0]["gap_s"] == 0.0
            assert of.failing() == ()
            of.reconcilers[0].alarm = "out of order"
            assert (of.failing(), of.adapters()[0]["state"]) == (("dryrun",), "failing")
        finally:
            await of.stop()

    asyncio.run(main())


def test_a_commit_is_no_reason_to_compare_what_did_not_change() -> None:
    """Each row of attempts made every adapter compare all that it holds: 25 ms of the core for 40,000 targets."""
    one = enforcement(Hand())
    woken: list[int] = []
    one.reconcilers = [SimpleNamespace(wake=lambda: woken.append(1), pushed=lambda *_: None)]  # type: ignore[list-item]
    target = Target("address", "198.51.100.7")
    for change, wakes in (
        (lambda: None, 1),  # what was there at the start
        (lambda: None, 0),
        (lambda: one._register.shift(1), 1),
        (lambda: None, 0),
        (lambda: one.pushed(target, "D2"), 1),
        (lambda: None, 0),
    ):
        woken.clear()
        change()
        one.written()
        assert len(woken) == wakes
    one.wake()
    assert len(woken) == 1, "who asks is answered"


def test_another_programs_changes_are_told_once_in_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    """The journal said nothing when somebody flushed the firewall."""
    clock = Hand()
    of = enforcement(clock)
    caplog.set_level(logging.WARNING, "egressd.enforcement")
    of._repaired(12, 0)
    for _ in range(5):
        clock.us += 60_000_000
        of._repaired(12, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "nftables: another program took away 12 of our blocks; put right. Which: nft monitor"
    ]
    clock.us += REPAIR_LINE_US
    of._repaired(0, 1)
    assert caplog.records[-1].getMessage() == (
        "nftables: another program took away 60 of our blocks and put in 6 that are not ours; put right. "
        "Which: nft monitor"
    )
