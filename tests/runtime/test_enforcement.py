"""What the daemon says of its adapters: to people, on screens, in metrics."""

from __future__ import annotations

import asyncio
import logging
import socket
from errno import EBUSY
from types import SimpleNamespace

import pytest

from egressd.clock import Clock
from egressd.config.schema import Config
from egressd.enforce.adapter import Failure, Plan, Rule
from egressd.enforce.dryrun import DryRunAdapter
from egressd.enforce.netlink import NetlinkError
from egressd.enforce.nflog import Nflog
from egressd.enforce.reconciler import Reconciler
from egressd.enforce.table_lock import TableHeld
from egressd.model import Target
from egressd.runtime.enforcement import REPAIR_LINE_US, Enforcement
from egressd.runtime.in_force import Register
from tests.detect.live_scene import intel
from tests.loops import HANG_S
from tests.runtime.scene import X, address, in_force


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


def test_a_log_group_of_another_program_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it was in the journal, and `status` said whose it is and not what to do; nor was it tried again before
    the mode changed."""
    held = [NetlinkError(EBUSY, "busy")] * 2

    def group(groups: object) -> Nflog:
        if held:
            raise held.pop()
        return SimpleNamespace(fileno=ours.fileno, close=lambda: None)  # type: ignore[return-value]

    async def main() -> None:
        of = enforcement(Hand())
        of._kernel_log.listen(7)
        of.look()
        assert of.problems == {"nflog": told}
        for _ in range(2):
            of._kernel_log._due_s = 0.0
            of.look()
        assert of.problems == {}
        await of.stop()

    monkeypatch.setattr("egressd.runtime.kernel_log.Nflog", group)
    told = "log group 7 is another program's: what the kernel drops is not counted; end that program, "
    told += "or set another enforce.nflog_group and restart"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asyncio.run(main())
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("ERROR", f"nflog: {told}"),
        ("WARNING", "nflog works again"),
    ]


def test_a_table_that_is_another_egressds_by_now_is_none_to_lift(monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` said for ever that what is blocked stays blocked: by then the table was another one's."""

    def held() -> None:
        raise TableHeld("another egressd (process 7) has the table")

    one = enforcement(Hand())
    one.problems["nftables"] = "WHAT IS BLOCKED STAYS BLOCKED, though the mode is monitor: busy"
    one._unlifted = True
    monkeypatch.setattr(one._claim, "take", held)
    one._lift()
    assert (one._unlifted, one.problems.get("nftables", "")) == (False, "")


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


def test_a_reconciler_that_meets_a_fault_of_ours_is_no_silence() -> None:
    """Its task ended and nobody was told: nothing was blocked from then on, and every screen said ok."""

    async def main() -> None:
        faults: list[BaseException | None] = []
        of = enforcement(Hand())
        of.on_fault = lambda task: faults.append(task.exception())
        await of.start("monitor", Config(), intel("bad.example\n"), ())
        try:

            def broken() -> None:
                raise KeyError("a fault of ours")

            of.reconcilers[0].adapter.populate = broken  # type: ignore[assignment, method-assign]
            of.reconcilers[0].check()
            await asyncio.wait(of._tasks, timeout=HANG_S)
            await asyncio.sleep(0)
            assert [str(one) for one in faults] == ["'a fault of ours'"]
        finally:
            await of.stop()
        assert len(faults) == 1

    asyncio.run(main())


class Kernel(DryRunAdapter):
    """Expires by a clock that nobody sets, as the kernel does."""

    def __init__(self, steady: Hand) -> None:
        super().__init__(intel("bad.example\n").protected, steady.now_us)
        self._steady = steady

    def apply(self, plan: Plan, now_us: int) -> list[Failure]:
        def steady(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
            return tuple(one._replace(expires_us=one.expires_us - now_us + self._steady.us) for one in rules)

        plan = plan._replace(add=steady(plan.add), refresh=steady(plan.refresh))
        return super().apply(plan, self._steady.us)


@pytest.mark.parametrize("by_s", [7_200, -7_200])
def test_a_clock_that_was_set_is_no_other_program(by_s: int, caplog: pytest.LogCaptureFixture) -> None:
    """What was read two hours ago, as it seemed, had lapsed since: all blocks were told to be taken away by another
    program, at every boot of a machine whose time server is quicker than its battery."""
    caplog.set_level(logging.WARNING, "egressd.enforcement")

    async def main() -> None:
        wall, steady = Hand(), Hand()
        of = enforcement(wall)
        of.mode = "enforce"
        of._nftables = kernel = Kernel(steady)  # type: ignore[assignment]
        of._add(Reconciler(kernel, of._rules, of._state, wall.now_us, on_repair=of._repaired))
        of._register.add(in_force("D1", main=address(X), ends_us=wall.us + 600_000_000))
        try:
            of.wake()
            await of.settled(20.0)
            assert of.adapters()[0]["active"] == 1
            wall.us += by_s * 1_000_000
            of._register.shift(by_s * 1_000_000)
            of.clock_was_set()
            of.wake()
            await of.settled(20.0)
            assert (of.adapters()[0]["active"], of.adapters()[0]["drift_repaired"], caplog.messages) == (1, 0, [])
        finally:
            await of.stop()

    asyncio.run(main())
