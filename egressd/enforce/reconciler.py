"""The loop that keeps an adapter true to the ledger: compare what should be with what is, change the difference, look
again. One for each adapter; the adapter's calls run in a thread of their own, one at a time.

The ledger's word is wished for, never assumed done: a rule is active when the adapter took it, and stays a rule to be
tried while it has not. What somebody else took away is put back; what nobody ordered is taken away, except provisional
blocks of the fast lane, which the ledger will know in a moment or never.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple, ParamSpec, TypeVar

from egressd.enforce.adapter import Adapter, AdapterError, EnforcementState, Existing, Rule, WatchedAdapter
from egressd.enforce.comparing import Comparing, Done, Pushed
from egressd.enforce.plan import RENEW_BELOW_S, PlanLimits
from egressd.enforce.shield import ProtectingAdapter, Protects
from egressd.errors import EgressdError
from egressd.model import Target
from egressd.units import SECOND_US

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")
Desired = Callable[[], "list[Rule] | Awaitable[list[Rule]]"]

_EXPIRY_SLACK_US: Final = 50_000
_OVERRUN: Final = "overrun"
_BATCH: Final = 1_000  # states a call, so that whoever writes them down does not hold the loop


class ReconcilerSettings(NamedTuple):
    """How often and how patiently, in seconds. `debounce_s` gathers wishes that come together; `retry_woken_s` is how
    long they wait at most while the adapter fails; `provisional_s` is how long a block of the fast lane may stand
    without the ledger."""

    debounce_s: float = 0.02
    check_s: float = 1.0
    full_s: float = 300.0
    retry_first_s: float = 0.5
    retry_woken_s: float = 2.0
    retry_most_s: float = 30.0
    retry_refused_s: float = 30.0
    alarm_after_s: float = 5.0
    renew_below_s: float = RENEW_BELOW_S
    provisional_s: float = 60.0


class ReconcilerStats:
    """What it did, for metrics."""

    def __init__(self) -> None:
        self.cycles = 0
        self.full_reads = 0
        self.applied = 0  # rules written: added or renewed
        self.removed = 0
        self.failed = 0
        self.retries = 0
        self.drift_repaired = 0  # elements put back or taken away because somebody else had changed them
        self.gap_s = 0.0  # how long, in all, what was intended was not what was live
        self.last_check_us = 0
        self.generation = 0


class Reconciler:
    """Owns an adapter's thread. Everything but `run` is called on the event loop, and returns at once."""

    def __init__(
        self,
        adapter: Adapter,
        desired: Desired,
        on_state: Callable[[list[EnforcementState]], object],
        now_us: Callable[[], int],
        *,
        is_known: Callable[[str], bool] = lambda decision_id: True,
        on_alarm: Callable[[str], object] = lambda text: None,
        on_question: Callable[[str], object] = lambda text: None,
        on_repair: Callable[[int, int], object] = lambda lost, added: None,
        reported: Iterable[EnforcementState] = (),
        limits: PlanLimits | None = None,
        settings: ReconcilerSettings | None = None,
    ) -> None:
        """`desired` tells every rule that should be in force now; `is_known` whether the ledger knows a decision's id
        (elements of unknown ones are left alone while they are young). `on_state` hears of rules whose state changed,
        `reported` are the states that the ledger has already. `on_alarm` hears why the adapter fails, and "" when it
        works again; `on_question` why a plan is too big, and "" when that is settled: `force()` is the yes. `on_repair`
        hears how many rules somebody else had taken away and were put back, and how many were added and taken out."""
        self.adapter = adapter
        self.stats = ReconcilerStats()
        self.alarm = ""  # why the adapter fails, while it does
        self.question = ""  # what waits for a person, while it does
        self._desired = desired
        self._on_state = on_state
        self._now_us = now_us
        self._on_alarm = on_alarm
        self._on_question = on_question
        self._on_repair = on_repair
        self._settings = settings = settings or ReconcilerSettings()
        self._comparing = Comparing(
            adapter, now_us, is_known, reported, limits or PlanLimits(),
            renew_below_s=settings.renew_below_s, provisional_s=settings.provisional_s,
        )  # fmt: skip
        self._time = time.monotonic
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"egressd-{adapter.name}")
        self._awake = asyncio.Event()
        self._urgent = asyncio.Event()  # a person waits for the next try
        self._done = asyncio.Event()  # replaced after each cycle
        self._wished = 1  # how often somebody asked for something; the start is the first
        self._met = 0  # which of that has been tried
        self._wish = True  # somebody said that the ledger changed
        self._full = True  # what is there must be read, not remembered
        self._disturbed = False  # somebody else changed it
        self._forced = False
        self._stopping = False
        self._ended = False
        self._failures = 0  # calls in a row that failed
        self._failed = 0.0  # when the last of them did
        self._failing_since: float | None = None
        self._differs_since: float | None = None
        self._looked = time.monotonic()
        self._read_took_s = 0.0
        self._pushed: list[Pushed] = []
        self._next_full = 0.0
        self._next_try_us = 0

    @property
    def active(self) -> dict[str, int]:
        """How many rules are in each state."""
        return self._comparing.counts

    def differs_s(self) -> float:
        """For how many seconds what is live has differed from what is intended; 0 when it does not."""
        return 0.0 if self._differs_since is None else self._time() - self._differs_since

    def gap_s(self) -> float:
        """Seconds, in all and until now, in which what was intended was not live."""
        return self.stats.gap_s + self.differs_s()

    def wake(self) -> None:
        """The ledger changed."""
        self._wish = True
        self._wished += 1
        self._differ()
        self._awake.set()

    def check(self) -> None:
        """Read everything anew, soon."""
        self._full = True
        self._wished += 1
        self._awake.set()

    def pushed(self, target: Target, decision_id: str, remaining_s: float = 60.0) -> None:
        """The fast lane wrote this: known without reading, so that it can be taken back at once."""
        self._pushed.append((target, decision_id, remaining_s))

    def force(self) -> None:
        """A person says: make the plan that waits, whatever its size."""
        self._forced = True
        self.wake()
        self._urgent.set()

    async def call(
        self, function: Callable[Parameters, Value], *args: Parameters.args, **options: Parameters.kwargs
    ) -> Value:
        """Run one of the adapter's own functions in its thread, between its other calls. Raises AdapterError when `run`
        has ended."""
        if self._ended:
            raise AdapterError(f"{self.adapter.name} is let go of, for another mode or because the daemon ends")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **options))

    async def settled(self) -> None:
        """Wait until all that was asked for before has been tried. How it went, the states tell; while the adapter is
        out of order it is tried once more at once, and this lasts as long as that, so put a time limit around it."""
        goal = self._wished
        if self._met < goal and self._failures:
            self._urgent.set()
            self._awake.set()
        while self._met < goal and not self._stopping:
            await self._done.wait()

    async def protect(self, networks: Iterable[tuple[bytes, int]], protected: Protects) -> list[Existing]:
        """Give the adapter a new protected set; returns the blocks that it lifted for it. Raises AdapterError."""
        if not isinstance(self.adapter, ProtectingAdapter):
            return []
        lifted = await self.call(self.adapter.set_protected, tuple(networks), protected)
        self.check()
        return lifted

    def _tell_done(self) -> None:
        done, self._done = self._done, asyncio.Event()
        done.set()

    async def stop(self) -> None:
        """End `run`, after the call that is running now; what is in force stays in force."""
        self._stopping = True
        self._tell_done()
        self._urgent.set()
        self._awake.set()

    async def run(self) -> None:
        """Until `stop`. Raises nothing that the adapter raises: it tries again."""
        loop = asyncio.get_running_loop()
        watched = self.adapter if isinstance(self.adapter, WatchedAdapter) else None
        if watched is not None:
            loop.add_reader(watched.watch_socket(), self._news, watched)
        try:
            while not self._stopping:
                await self._turn()
        finally:
            if watched is not None:
                loop.remove_reader(watched.watch_socket())
            self._ended = True
            self._pool.shutdown(wait=False)

    # One turn

    async def _turn(self) -> None:
        self._urgent.clear()
        try:
            if not (self._wish or self._full):
                await self._look()
            if self._wish or self._full:
                await self._cycle()
            self._recover()
        except (EgressdError, OSError) as error:
            self._fall(str(error))
        if not self._stopping:
            await self._rest()

    async def _rest(self) -> None:
        """Wait for something to do: a wish, news, the next look, the next try."""
        try:
            await asyncio.wait_for(self._awake.wait(), self._wait_s())
        except TimeoutError:
            if self._next_try_us and self._now_us() >= self._next_try_us:
                self._wish = True
            return
        if self._failures:
            await self._hold_back()
        # Wishes that come together are met together. A storm of foreign changes gets half of the time, not all of it.
        pause_s = self._settings.debounce_s
        if self._full and not self._wish:
            pause_s = max(pause_s, self._looked + self._read_took_s - self._time())
        if not self._stopping:
            await asyncio.sleep(pause_s)
        self._awake.clear()

    async def _hold_back(self) -> None:
        """While the adapter fails, wishes are gathered: each try reads and may write everything, and fails again."""
        wait_s = min(self._wait_s(), self._settings.retry_woken_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._urgent.wait(), max(0.0, self._failed + wait_s - self._time()))

    def _wait_s(self) -> float:
        settings = self._settings
        if self._failures:
            return min(settings.retry_most_s, settings.retry_first_s * float(1 << min(self._failures - 1, 10)))
        if self._next_try_us:
            return min(settings.check_s, max(0.0, (self._next_try_us - self._now_us()) / SECOND_US))
        return settings.check_s

    async def _look(self) -> None:
        """The cheap check, once a second: did anybody change anything?"""
        generation = await self.call(self.adapter.generation)
        if self._time() >= self._next_full:
            self._full = True
        elif generation != self.stats.generation:
            if isinstance(self.adapter, WatchedAdapter):
                await self.call(self.adapter.install)  # of elements we hear; at rules we look
            else:
                self._full = self._disturbed = True
        self.stats.generation = generation
        self.stats.last_check_us = self._now_us()
        self._looked = self._time()

    async def _cycle(self) -> None:
        wish = (self._full, self._disturbed, self._forced)
        wished = self._wished
        self._wish = self._full = self._disturbed = self._forced = False
        since, self._differs_since = self._differs_since, None
        pushed, self._pushed = self._pushed, []
        try:
            desired = self._desired()
            rules = await desired if inspect.isawaitable(desired) else desired
            done = await self.call(self._comparing.step, rules, pushed, full=wish[0], forced=wish[2])
        except BaseException:
            self._wish = True
            self._full, self._disturbed, self._forced = (
                self._full or wish[0],
                self._disturbed or wish[1],
                self._forced or wish[2],
            )
            self._differs_since = since if since is not None else self._differs_since
            raise
        await self._finish(done, since, disturbed=wish[1])
        self._met = wished
        self._tell_done()

    async def _finish(self, done: Done, since: float | None, *, disturbed: bool) -> None:
        stats = self.stats
        stats.cycles += 1
        stats.applied += len(done.made.add) + len(done.made.refresh) - len(done.failures)
        stats.removed += len(done.made.remove)
        stats.failed += len(done.failures)
        stats.generation = done.generation
        stats.last_check_us = self._now_us()
        added = len(done.made.remove) if disturbed else 0
        stats.drift_repaired += done.lost + added
        if done.lost or added:
            self._on_repair(done.lost, added)
        if done.lost and since is None:
            since = self._looked  # it was so at the last look, at least
        self._looked = self._time()
        if done.full:
            stats.full_reads += 1
            self._read_took_s = done.took_s
            self._next_full = self._looked + self._settings.full_s
        self._schedule(done)
        self._ask(done.question)
        if since is not None and done.question:
            self._differs_since = since
        elif since is not None and not done.made.is_empty():
            stats.gap_s += self._looked - since
        for start in range(0, len(done.states), _BATCH):
            self._on_state(done.states[start : start + _BATCH])
            await asyncio.sleep(0)

    def _schedule(self, done: Done) -> None:
        """When to plan again without being asked: when a rule expires, and for what the adapter refused."""
        tries = [done.expiry_us + _EXPIRY_SLACK_US] if done.expiry_us else []
        if done.failures:
            tries.append(self._now_us() + int(self._settings.retry_refused_s * SECOND_US))
        self._next_try_us = min(tries, default=0)

    # News, failures, questions

    def _news(self, watched: WatchedAdapter) -> None:
        happened = watched.drain_events()
        if happened:
            self._full = True
            self._disturbed = self._disturbed or bool(happened - {_OVERRUN})
            self._differ()
            self._awake.set()

    def _differ(self) -> None:
        if self._differs_since is None:
            self._differs_since = self._time()

    def _fall(self, why: str) -> None:
        """A call failed: everything is read again when the adapter works again."""
        self._full = True
        self._failures += 1
        self.stats.retries += 1
        self._differ()
        self._failed = self._time()
        if self._failing_since is None:
            self._failing_since = self._failed
        if not self.alarm and self._time() - self._failing_since >= self._settings.alarm_after_s:
            self.alarm = why
            self._on_alarm(why)

    def _recover(self) -> None:
        self._failures = 0
        self._failing_since = None
        if self.alarm:
            self.alarm = ""
            self._on_alarm("")

    def _ask(self, question: str) -> None:
        asked, self.question = self.question, question
        if bool(asked) != bool(question):
            self._on_question(question)
