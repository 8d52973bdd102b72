"""The reconciler's loop against an adapter in memory that can be told to fail, to forget and to be meddled with."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable

import pytest

from egressd.enforce.adapter import AdapterError, EnforcementState, Existing, Failure, Plan, Rule, WatchedAdapter
from egressd.enforce.dryrun import DryRunAdapter
from egressd.enforce.plan import PlanLimits
from egressd.enforce.reconciler import Reconciler, ReconcilerSettings
from egressd.model import Target
from tests.enforce.rules import Clock, address, networks, protected, rule
from tests.loops import HANG_S

QUICK = ReconcilerSettings(
    debounce_s=0.0, check_s=0.005, retry_first_s=0.002, retry_most_s=0.02, retry_refused_s=0.0, alarm_after_s=0.01
)
ONE = rule("address", "192.0.2.1")


class Fragile(DryRunAdapter):
    """Fails when told to, and remembers what was asked of it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(protected(), clock.now_us)
        self.broken = False
        self.refuses: set[Target] = set()
        self.calls: list[str] = []
        self.threads: set[int] = set()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.threads.add(threading.get_ident())
        if self.broken:
            raise AdapterError("out of order")

    def install(self) -> None:
        self._called("install")

    def generation(self) -> int:
        self._called("generation")
        return super().generation()

    def populate(self) -> list[Existing]:
        self._called("populate")
        return super().populate()

    def apply(self, plan: Plan, now_us: int) -> list[Failure]:
        self._called("apply")
        failures = [Failure(one, "not today") for one in plan.add if one.target in self.refuses]
        plan = plan._replace(add=tuple(one for one in plan.add if one.target not in self.refuses))
        return failures + super().apply(plan, now_us)

    def meddle(self, *, lose: Iterable[Target] = (), add: Iterable[Rule] = ()) -> None:
        """What somebody else does."""
        for target in lose:
            del self._held[target]
        for one in add:
            self._held[one.target] = (one.decision_id, one.expires_us or 1 << 60)
        self._generation += 1

    def holds(self) -> set[str]:
        return {target.value for target in self._held}


class Watched(Fragile):
    """Tells of meddling by a socket."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._ours, self._theirs = socket.socketpair()

    def watch_socket(self) -> int:
        return self._ours.fileno()

    def drain_events(self) -> set[str]:
        return set(self._ours.recv(100).decode().split())

    def tell(self, what: str) -> None:
        self._theirs.send(what.encode() + b" ")

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class Loop:
    """A reconciler with everything around it."""

    def __init__(self, adapter: Fragile, clock: Clock, **options: object) -> None:
        self.adapter = adapter
        self.clock = clock
        self.desired: list[Rule] = []
        self.states: dict[tuple[str, str], tuple[str, str]] = {}
        self.reports = 0
        self.alarms: list[str] = []
        self.questions: list[str] = []
        self.repairs: list[tuple[int, int]] = []
        self.unknown: set[str] = set()
        self.reconciler = Reconciler(
            adapter,
            lambda: list(self.desired),
            self._hear,
            clock.now_us,
            is_known=lambda decision_id: decision_id not in self.unknown,
            on_alarm=self.alarms.append,
            on_question=self.questions.append,
            on_repair=lambda lost, added: self.repairs.append((lost, added)),
            settings=QUICK,
            **options,  # type: ignore[arg-type]
        )

    def _hear(self, states: list[EnforcementState]) -> None:
        self.reports += 1
        for state in states:
            self.states[(state.target.value, state.decision_id)] = (state.state, state.detail)

    def state(self, value: str, decision_id: str = "D1") -> str:
        return self.states.get((value, decision_id), ("", ""))[0]

    async def settled(self) -> None:
        await asyncio.wait_for(self.reconciler.settled(), HANG_S)

    async def wish(self, *rules: Rule) -> None:
        self.desired = list(rules)
        self.reconciler.wake()
        await self.settled()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that the loop must bring about."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - conditions of many sorts, of which few have an event
            await asyncio.sleep(0.001)


def play(body: Callable[[Loop], Awaitable[None]], make: type[Fragile] = Fragile, **options: object) -> Loop:
    """Run a reconciler, and a test beside it."""

    async def both() -> Loop:
        clock = Clock()
        played = Loop(make(clock), clock, **options)
        task = asyncio.create_task(played.reconciler.run())
        try:
            await body(played)
        finally:
            await played.reconciler.stop()
            await asyncio.wait_for(task, HANG_S)
            played.adapter.close()
        return played

    return asyncio.run(both())


def test_a_wish_becomes_a_rule_and_is_told_once() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        assert loop.adapter.holds() == {"192.0.2.1"}
        assert loop.state("192.0.2.1") == "active"
        reports = loop.reports
        for _ in range(3):
            await loop.wish(ONE)
        assert loop.reports == reports
        await loop.wish()
        assert loop.adapter.holds() == set()
        assert loop.state("192.0.2.1") == "removed"
        assert loop.reconciler.stats.drift_repaired == 0

    played = play(body)
    assert played.reconciler.stats.applied == played.reconciler.stats.removed == 1


def test_the_desired_rules_may_take_a_while_to_tell() -> None:
    async def slowly() -> list[Rule]:
        await asyncio.sleep(0)
        return [ONE]

    async def body(loop: Loop) -> None:
        loop.reconciler._desired = slowly
        loop.reconciler.wake()
        await until(lambda: loop.state("192.0.2.1") == "active")

    play(body)


def test_the_adapter_is_called_in_one_thread_that_is_not_the_loops() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        assert await loop.reconciler.call(loop.adapter.holds) == {"192.0.2.1"}
        assert loop.adapter.threads == {await loop.reconciler.call(threading.get_ident)}
        assert threading.get_ident() not in loop.adapter.threads

    play(body)


def test_a_new_block_does_not_wait_for_a_whole_reading() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        loop.adapter.calls.clear()
        await loop.wish(ONE, rule("address", "192.0.2.2", "D2"))
        assert "populate" not in loop.adapter.calls
        assert loop.adapter.holds() == {"192.0.2.1", "192.0.2.2"}

    play(body)


def test_what_somebody_takes_away_is_put_back_and_what_they_add_is_removed() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        loop.adapter.meddle(lose=[ONE.target], add=[rule("address", "192.0.2.66", "")])
        await until(lambda: loop.adapter.holds() == {"192.0.2.1"})
        await until(lambda: loop.reconciler.stats.drift_repaired == 2)
        assert [sum(told) for told in zip(*loop.repairs, strict=True)] == [1, 1]
        assert loop.reconciler.stats.gap_s > 0
        assert loop.state("192.0.2.1") == "active"

    play(body)


def test_news_is_acted_on_without_waiting_for_the_next_look() -> None:
    async def body(loop: Loop) -> None:
        assert isinstance(loop.adapter, Watched) and isinstance(loop.adapter, WatchedAdapter)
        await loop.wish(ONE)
        for news in ("gone", "foreign", "overrun"):
            loop.adapter.meddle(lose=[ONE.target])
            reads = loop.reconciler.stats.full_reads
            loop.adapter.tell(news)
            await until(lambda: loop.adapter.holds() == {"192.0.2.1"})
            await until(lambda reads=reads: loop.reconciler.stats.full_reads > reads)

    play(body, Watched)


def test_a_watched_adapter_looks_at_its_rules_when_the_generation_changed() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        loop.adapter.calls.clear()
        loop.adapter.meddle()
        await until(lambda: "install" in loop.adapter.calls)
        assert "populate" not in loop.adapter.calls

    play(body, Watched)


def test_an_outage_is_alarmed_and_then_drained() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        loop.adapter.broken = True
        loop.desired = [ONE, rule("address", "192.0.2.2", "D2")]
        loop.reconciler.wake()
        await until(lambda: loop.alarms)
        assert loop.reconciler.alarm == "out of order"
        assert loop.reconciler.gap_s() >= loop.reconciler.differs_s() > 0
        assert loop.state("192.0.2.2", "D2") == ""
        loop.adapter.broken = False
        await until(lambda: loop.state("192.0.2.2", "D2") == "active")
        await until(lambda: len(loop.alarms) == 2)
        assert loop.alarms == ["out of order", ""]
        assert loop.reconciler.stats.gap_s > 0
        assert loop.reconciler.differs_s() == 0  # what is over is no gap any more, and pages nobody
        assert loop.adapter.holds() == {"192.0.2.1", "192.0.2.2"}

    assert play(body).reconciler.stats.retries > 1


def test_an_adapter_that_fails_is_not_tried_with_each_wish_but_when_a_person_waits() -> None:
    """Each batch of traffic wakes it: it was tried again after 20 ms, for as long as the outage lasted."""

    async def body(loop: Loop) -> None:
        reconciler = loop.reconciler
        reconciler._settings = QUICK._replace(retry_first_s=3600.0, retry_most_s=3600.0, retry_woken_s=3600.0)
        await loop.wish(ONE)
        loop.adapter.broken = True
        loop.reconciler.wake()
        await until(lambda: reconciler.stats.retries == 1)
        for _ in range(50):
            reconciler.wake()
            reconciler.check()
            with pytest.raises(AdapterError):
                await reconciler.call(loop.adapter.generation)
        assert reconciler.stats.retries == 1
        reconciler.force()
        await until(lambda: reconciler.stats.retries == 2)
        loop.adapter.broken = False
        await loop.wish(ONE, rule("address", "192.0.2.2", "D2"))  # who settles waits
        assert loop.adapter.holds() == {"192.0.2.1", "192.0.2.2"}

    play(body)


def test_what_is_wished_for_while_an_adapter_fails_is_tried_within_seconds() -> None:
    """The waits of a long outage, half a minute each, are not for a block of now."""
    assert ReconcilerSettings().retry_woken_s <= 2

    async def body(loop: Loop) -> None:
        reconciler = loop.reconciler
        reconciler._settings = QUICK._replace(retry_first_s=3600.0, retry_most_s=3600.0, retry_woken_s=0.001)
        loop.adapter.broken = True
        reconciler.wake()
        await until(lambda: reconciler.stats.retries)
        loop.adapter.broken = False
        loop.desired = [ONE]
        reconciler.wake()
        await until(lambda: loop.state("192.0.2.1") == "active")

    play(body)


def test_a_short_failure_is_no_alarm() -> None:
    async def body(loop: Loop) -> None:
        loop.reconciler._settings = QUICK._replace(alarm_after_s=60)
        loop.adapter.broken = True
        loop.reconciler.wake()
        await until(lambda: loop.reconciler.stats.retries > 2)
        loop.adapter.broken = False
        await loop.settled()
        assert loop.alarms == []

    play(body)


def test_what_the_adapter_refuses_is_told_and_tried_again() -> None:
    async def body(loop: Loop) -> None:
        bad = rule("address", "192.0.2.9", "D9")
        loop.adapter.refuses = {bad.target}
        await loop.wish(ONE, bad)
        assert loop.states[("192.0.2.9", "D9")] == ("failed", "not today")
        assert loop.state("192.0.2.1") == "active"
        loop.adapter.refuses = set()
        await until(lambda: loop.state("192.0.2.9", "D9") == "active")

    play(body)


def test_kinds_that_are_not_held_and_rules_without_room() -> None:
    async def body(loop: Loop) -> None:
        loop.adapter.capabilities = loop.adapter.capabilities._replace(kinds=frozenset({"address"}), max_entries=1)
        await loop.wish(ONE, rule("host", "evil.example", "D2"), rule("address", "192.0.2.3", "D3"))
        assert loop.state("evil.example", "D2") == "unsupported"
        assert loop.state("192.0.2.1") == "active"
        assert loop.state("192.0.2.3", "D3") == "failed"
        assert "no room" in loop.states[("192.0.2.3", "D3")][1]
        assert loop.reconciler.active == {"active": 1, "unsupported": 1, "failed": 1}

    play(body)


def test_one_target_of_two_decisions_stays_until_both_are_over() -> None:
    async def body(loop: Loop) -> None:
        other = rule("address", "192.0.2.1", "D2")
        await loop.wish(ONE, other)
        assert loop.state("192.0.2.1", "D1") == loop.state("192.0.2.1", "D2") == "active"
        await loop.wish(other)
        assert loop.state("192.0.2.1", "D1") == "removed"
        assert loop.adapter.holds() == {"192.0.2.1"}
        await loop.wish()
        assert loop.adapter.holds() == set()

    play(body)


def many(count: int) -> list[Rule]:
    return [rule("address", address(number), f"D{number}") for number in range(count)]


def test_too_big_a_lifting_waits_for_a_person_while_blocking_goes_on() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(*many(200))
        await loop.wish(rule("address", "192.0.2.1"))
        assert len(loop.adapter.holds()) == 201
        assert loop.questions and "lift 200 of 200" in loop.reconciler.question
        assert loop.state(address(7), "D7") == "active"
        assert loop.state("192.0.2.1") == "active"
        loop.reconciler.force()
        await loop.settled()
        assert loop.adapter.holds() == {"192.0.2.1"}
        assert loop.state(address(7), "D7") == "removed"
        assert (loop.questions[-1], loop.reconciler.question) == ("", "")

    play(body)


def test_too_big_a_blocking_waits_for_a_person_while_lifting_goes_on() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        await loop.wish(*many(101))
        assert loop.adapter.holds() == set()
        assert loop.state(address(7), "D7") == "pending"
        assert "add 101" in loop.reconciler.question
        loop.reconciler.force()
        await loop.settled()
        assert len(loop.adapter.holds()) == 101
        assert loop.state(address(7), "D7") == "active"

    play(body, limits=PlanLimits(add_most=100))


def test_putting_back_what_the_ledger_knows_as_active_needs_no_permission() -> None:
    reported = [EnforcementState(one.target, one.decision_id, "dryrun", "active", "") for one in many(101)]

    async def body(loop: Loop) -> None:
        await loop.wish(*many(101))
        assert len(loop.adapter.holds()) == 101
        assert loop.questions == []
        assert loop.reports == 0  # the ledger has it all
        assert loop.reconciler.stats.drift_repaired == 101
        assert loop.reconciler.gap_s() < 20  # since we look, not since the machine was started

    play(body, limits=PlanLimits(add_most=100), reported=reported)


def test_provisional_blocks_that_nobody_knows_yet_are_left_alone_for_a_while() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish()
        loop.unknown = {"D77"}
        loop.adapter.meddle(add=[rule("address", "192.0.2.77", "D77"), rule("address", "192.0.2.78", "D78")])
        await until(lambda: "192.0.2.78" not in loop.adapter.holds())  # withdrawn: known, and not wished for
        assert loop.adapter.holds() == {"192.0.2.77"}
        loop.clock.pass_s(61)
        loop.reconciler.check()
        await until(lambda: not loop.adapter.holds())

    play(body)


def test_what_the_fast_lane_pushed_is_taken_back_without_a_reading() -> None:
    async def body(loop: Loop) -> None:
        assert isinstance(loop.adapter, Watched)
        await loop.wish()
        loop.adapter.meddle(add=[rule("address", "192.0.2.77", "D77", 60)])
        loop.adapter.calls.clear()
        loop.reconciler.pushed(Target("address", "192.0.2.77"), "D77")
        await loop.wish()
        assert loop.adapter.holds() == set()
        assert "populate" not in loop.adapter.calls

    play(body, Watched)


def test_a_rule_that_expires_is_told_without_a_word_from_outside() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(rule("address", "192.0.2.1", "D1", 5))
        assert loop.state("192.0.2.1") == "active"
        loop.clock.pass_s(6)
        await until(lambda: loop.state("192.0.2.1") == "removed")
        assert await loop.reconciler.call(loop.adapter.populate) == []

    play(body)


def test_a_long_block_is_renewed_before_it_lapses() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        for _ in range(5):
            loop.clock.pass_s(13 * 3600)
            loop.reconciler.check()
            await loop.settled()
            held = await loop.reconciler.call(loop.adapter.populate)
            assert [element.remaining_s for element in held] == [86_400]
        assert loop.reconciler.stats.drift_repaired == 0

    play(body)


def test_a_new_protected_set_lifts_what_it_protects() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        lifted = await loop.reconciler.protect(networks("192.0.2.0/24"), protected("192.0.2.0/24"))
        assert [element.target for element in lifted] == [ONE.target]
        await until(lambda: loop.state("192.0.2.1") == "failed")
        assert "protected" in loop.states[("192.0.2.1", "D1")][1]

    play(body)


def test_stopping_leaves_in_force_what_is_in_force() -> None:
    async def body(loop: Loop) -> None:
        await loop.wish(ONE)

    assert play(body).adapter.holds() == {"192.0.2.1"}


def test_a_failure_while_the_rules_are_told_is_tried_again() -> None:
    async def body(loop: Loop) -> None:
        def locked() -> list[Rule]:
            raise OSError("database is locked")

        loop.reconciler._desired = locked
        loop.reconciler.wake()
        await until(lambda: loop.alarms == ["database is locked"])
        loop.reconciler._desired = lambda: [ONE]
        await until(lambda: loop.state("192.0.2.1") == "active")

    play(body)


def test_an_outage_of_any_length_is_alarmed_and_drained_in_time() -> None:
    """With the settings of the daemon: the waits between tries, added up."""
    settings = ReconcilerSettings()
    loop = Loop.__new__(Loop)
    loop.reconciler = Reconciler.__new__(Reconciler)
    loop.reconciler._settings = settings
    waited_s, alarmed_s = 0.0, 0.0
    for failures in range(1, 60):
        loop.reconciler._failures = failures
        wait_s = loop.reconciler._wait_s()
        assert 0 < wait_s <= 30
        waited_s += wait_s
        if not alarmed_s and waited_s >= settings.alarm_after_s:
            alarmed_s = waited_s
    assert waited_s > 600
    assert alarmed_s <= 30


def test_who_asks_the_adapter_after_the_end_is_refused() -> None:
    """A change of mode leaves a reconciler for as long as nft takes; the self-test asked it, and ended the daemon."""

    async def body(loop: Loop) -> None:
        await loop.wish(ONE)
        await loop.reconciler.stop()
        with pytest.raises(AdapterError, match="dryrun is let go of"):
            async with asyncio.timeout(HANG_S):
                while True:
                    await loop.reconciler.call(loop.adapter.generation)

    play(body)
