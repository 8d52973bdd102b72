"""One step in the adapter's thread, against an adapter in memory: what is read, what is changed, what is told of it."""

from __future__ import annotations

import pytest

from egressd.enforce.adapter import EnforcementState, Existing, Plan, Rule
from egressd.enforce.comparing import Comparing, Done
from egressd.enforce.dryrun import DryRunAdapter
from egressd.enforce.plan import PlanLimits
from egressd.model import Target
from tests.enforce.rules import Clock, address, protected, rule

ONE = rule("address", "192.0.2.1")


class Bench:
    """A comparing over an adapter that counts how often it was read."""

    def __init__(self, reported: list[EnforcementState] | None = None, most: int = 100) -> None:
        self.clock = Clock()
        self.unknown: set[str] = set()
        self.reads = 0
        bench = self

        class Counting(DryRunAdapter):
            def populate(self) -> list[Existing]:
                bench.reads += 1
                return super().populate()

        self.adapter = Counting(protected(), self.clock.now_us)
        self.comparing = Comparing(
            self.adapter, self.clock.now_us, lambda id_: id_ not in self.unknown, reported or [],
            PlanLimits(add_most=most), renew_below_s=3_600.0, provisional_s=60.0,
        )  # fmt: skip

    def step(self, *rules: Rule, pushed: str = "", full: bool = False, forced: bool = False) -> Done:
        made = [(Target("address", pushed), "D77", 60.0)] if pushed else []
        return self.comparing.step(list(rules), made, full=full, forced=forced)

    def others_add(self, *rules: Rule) -> None:
        self.adapter.apply(Plan(rules, (), (), ()), self.clock.now_us())

    def holds(self) -> list[str]:
        return sorted(one.target.value for one in DryRunAdapter.populate(self.adapter))


def test_what_is_there_is_read_once_and_remembered() -> None:
    bench = Bench()
    first = bench.step(ONE, full=True)
    assert (first.full, first.made.add, first.lost, first.question) == (True, (ONE,), 0, "")
    assert [(one.target, one.state) for one in first.states] == [(ONE.target, "active")]
    again = bench.step(ONE, rule("address", "192.0.2.2", "D2", 5))
    assert (again.full, len(again.made.add), again.expiry_us) == (False, 1, bench.clock.now_us() + 5_000_000)
    assert bench.reads == 1 and bench.comparing.counts == {"active": 2}
    assert bench.step(ONE).generation == bench.adapter.generation()
    assert bench.holds() == ["192.0.2.1"]


def test_a_network_that_hid_another_goes_and_everything_is_read() -> None:
    bench = Bench()
    wide, inner = rule("network", "198.51.0.0/16", "D1"), rule("network", "198.51.100.0/24", "D2")
    bench.step(wide, inner, full=True)
    assert bench.step(inner).full and bench.reads == 2


def test_what_was_in_force_and_is_not_there_is_lost_and_needs_no_permission() -> None:
    rules = [rule("address", address(number), f"D{number}") for number in range(101)]
    bench = Bench([EnforcementState(one.target, one.decision_id, "dryrun", "active", "") for one in rules])
    done = bench.step(*rules, full=True)
    assert (done.lost, len(done.made.add), done.question, done.states) == (101, 101, "", [])


def test_a_change_that_is_too_big_is_made_when_forced() -> None:
    bench = Bench()
    rules = [rule("address", address(number), f"D{number}") for number in range(101)]
    asks = bench.step(*rules, full=True)
    assert "add 101" in asks.question and asks.made.is_empty() and bench.holds() == []
    assert {one.state for one in asks.states} == {"pending"}
    assert len(bench.step(*rules, forced=True).made.add) == len(bench.holds()) == 101


def test_what_the_fast_lane_wrote_stays_while_nobody_knows_it() -> None:
    bench = Bench()
    bench.unknown = {"D77"}
    bench.others_add(rule("address", "192.0.2.77", "D77", 60), rule("address", "192.0.2.78", "D78"))
    bench.step(full=True)
    assert bench.holds() == ["192.0.2.77"], "the other one's decision is known, and over"
    full = bench.step(rule("address", "192.0.2.77", "D77", 600))  # the ledger knows it by now
    assert len(full.made.refresh) == 1
    assert bench.adapter.populate()[0].remaining_s == pytest.approx(600)


def test_what_the_fast_lane_pushed_is_taken_back_without_a_reading() -> None:
    bench = Bench()
    bench.step(full=True)
    bench.others_add(rule("address", "192.0.2.77", "D77", 60))
    bench.step(pushed="192.0.2.77")
    assert (bench.holds(), bench.reads) == ([], 1)


def test_what_was_wished_for_and_is_no_more_goes_at_once_whoever_still_knows_it() -> None:
    bench = Bench()
    bench.step(ONE, full=True)
    bench.unknown = {"D1"}  # undone, and forgotten by the ledger's register in the same moment
    bench.step()
    assert bench.holds() == []
