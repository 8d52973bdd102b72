"""The adapters and their reconcilers, the kernel's log of what it dropped, and when all of that is on.

In mode monitor nothing on the machine is changed: rules go to the dry-run adapter, which shows what would be held. In
the other modes they go to the kernel; back in monitor everything of ours is lifted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from egressd.clock import Clock
from egressd.config.schema import Config
from egressd.detect.intel import Intel
from egressd.enforce.adapter import AdapterError, EnforcementState, Existing, Rule
from egressd.enforce.dryrun import DryRunAdapter
from egressd.enforce.elements import SETS
from egressd.enforce.nftables import NftablesAdapter, NftablesSettings
from egressd.enforce.plan import PlanLimits
from egressd.enforce.reconciler import Reconciler, ReconcilerSettings
from egressd.enforce.ruleset import DROP, REJECT, Ground, RulesetSettings
from egressd.enforce.sets import take_table_away
from egressd.enforce.table_lock import TableHeld
from egressd.intel.networks import first_address, parse_network
from egressd.model import FlowKey, Target
from egressd.runtime.in_force import InForce, Register
from egressd.runtime.kernel_log import KernelLog
from egressd.runtime.table_claim import TableClaim
from egressd.store import targets
from egressd.store.targets import Enforcement as Row

SETTLE_S: Final = 15.0  # a hundred thousand elements are read and compared in two seconds
REPAIR_LINE_US: Final = 600_000_000  # a program that flushes all rules every minute gets six lines an hour

log = logging.getLogger("egressd.enforcement")

Network = tuple[bytes, int]


class Enforcement:
    """Everything that puts decisions into force. `on_dropped` takes (when, conversation) of connections that the kernel
    says it stopped; `write` puts a row into the ledger's queue."""

    def __init__(
        self,
        register: Register,
        clock: Clock,
        write: Callable[..., None],
        on_dropped: Callable[[list[tuple[int, FlowKey]]], None],
    ) -> None:
        self.reconcilers: list[Reconciler] = []
        self.mode = "monitor"
        self.unarmed: tuple[Network, ...] = ()  # sources that blocks for everybody do not hold for
        self.is_apart: Callable[[InForce, Target], bool] = _nothing_apart  # asked for each target: not in the kernel
        self.problems: dict[str, str] = {}  # by adapter: why it fails, or what it asks
        self._lost = self._added = 0  # blocks that others took away and put in, not told yet
        self._repair_told_us = -REPAIR_LINE_US
        self.on_fault: Callable[[asyncio.Task[None]], None] = _untold  # a reconciler's task ended by a fault of ours
        self._register = register
        self._clock = clock
        self._write = write
        self._nftables: NftablesAdapter | None = None
        self._pushes = 0
        self._planned = 0, -1  # the register's version and the pushes that adapters were last woken for
        self._tasks: list[asyncio.Task[None]] = []
        self._unlifted = False  # the kernel did not let us take our table away
        self._claim = TableClaim(lambda text: self._told("table", text))
        self._kernel_log = KernelLog(clock, on_dropped, lambda text: self._told("nflog", text))
        self._config = Config()
        self._remedies: tuple[Network, ...] = ()
        self._own: tuple[Network, ...] = ()
        self._intel: Intel | None = None

    # -- on and off

    async def start(
        self, mode: str, config: Config, intel: Intel, own: tuple[Network, ...], reported: Sequence[Row] = ()
    ) -> None:
        """Begin in a mode. `own` are machines of ours that are never isolated; `reported` is what the ledger says that
        is in force in the kernel. Raises AdapterError when the kernel, or the table, cannot be used in a mode that
        needs it."""
        self.mode = mode
        self._config = config
        self._intel = intel
        self._own = own
        self._remedies = _networks(config.enforce.remedies)
        if mode == "monitor":
            await self._lift_everything()  # an earlier run may have left blocks
            dry_run = DryRunAdapter(intel.protected, self._clock.now_us, kinds=SETS)  # what the kernel would hold
            self._add(Reconciler(dry_run, self._rules, self._state, self._clock.now_us))
        else:
            self._unlifted = False  # what is there is taken over, not away
            self._claim.take()
            self._begin_kernel(config, intel, reported)
        for reconciler in self.reconcilers:
            reconciler.wake()
        await self._settle()

    async def _settle(self) -> None:
        """Wait until every adapter was compared once with what should be, or fails: what an earlier run left is right
        then, and nothing is seen before."""
        await self.settled(SETTLE_S)

    async def stop(self) -> None:
        """Let go; what is in force stays in force."""
        self._kernel_log.let_go()
        for reconciler in self.reconcilers:
            await reconciler.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)
        for reconciler in self.reconcilers:
            reconciler.adapter.close()
        self.reconcilers = []
        self._tasks = []
        self._nftables = None
        self._claim.let_go()
        self.problems.clear()

    async def change_mode(self, mode: str) -> None:
        """Go over to another mode. To monitor: everything of ours is lifted first."""
        if (mode == "monitor") == (self.mode == "monitor") and self.reconcilers:
            self.mode = mode
            self.wake()
            return
        if mode == "monitor":
            await self._lift_everything()
        await self.stop()
        if self._intel is not None:
            await self.start(mode, self._config, self._intel, self._own)

    async def _lift_everything(self) -> None:
        for reconciler in self.reconcilers:
            await reconciler.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)
        self._lift()

    def _lift(self) -> None:
        """Not by `nft`: whoever disarms a gateway on which that is away, or out of order, wants nothing blocked."""
        try:
            self._claim.take()
        except TableHeld as held:
            log.warning("%s; the table is left as it is", held)
            self._unlifted = False
            self.problems.pop("nftables", None)
            return
        problem = ""
        try:
            take_table_away()
        except AdapterError as error:
            problem = f"WHAT IS BLOCKED STAYS BLOCKED, though the mode is monitor: {error}"
        finally:
            self._claim.let_go()
        self._unlifted = bool(problem)
        if problem != self.problems.get("nftables", ""):
            self._told("nftables", problem)

    def _begin_kernel(self, config: Config, intel: Intel, reported: Sequence[Row]) -> None:
        settings = NftablesSettings(
            RulesetSettings(
                action=REJECT if config.enforce.refuse == "reset" else DROP, log_group=config.enforce.nflog_group
            )
        )
        adapter = NftablesAdapter(intel.protected, self._ground(intel), self._clock.now_us, settings)
        self._nftables = adapter
        limits = PlanLimits(remove_most=max(64, config.enforce.largest_change), add_most=config.enforce.largest_change)
        self._add(
            Reconciler(
                adapter,
                self._rules,
                self._state,
                self._clock.now_us,
                is_known=self._is_known,
                reported=[
                    EnforcementState(one.target, one.decision_id, "nftables", one.state, one.detail) for one in reported
                ],
                on_alarm=lambda text: self._told("nftables", text),
                on_question=lambda text: self._told(
                    "nftables", f"{text}: to make it, egressd reload --force" if text else ""
                ),
                on_repair=self._repaired,
                limits=limits,
                settings=ReconcilerSettings(provisional_s=float(config.enforce.provisional_s)),
            )
        )
        self._kernel_log.listen(config.enforce.nflog_group)

    def _add(self, reconciler: Reconciler) -> None:
        self.reconcilers.append(reconciler)
        name = f"reconciler {reconciler.adapter.name}"
        task = asyncio.get_running_loop().create_task(reconciler.run(), name=name)
        task.add_done_callback(self._reconciler_ended)
        self._tasks.append(task)

    def _reconciler_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.on_fault(task)

    # -- what should be

    def wake(self) -> None:
        """The register changed."""
        self._planned = self._register.version, self._pushes
        for reconciler in self.reconcilers:
            reconciler.wake()

    def written(self) -> None:
        """A commit. Most are of rows that nothing in the kernel is of (attempts, contacts, what an adapter reported),
        and to compare 40,000 targets holds the core up for 25 ms: only what changed since is a reason to."""
        if (self._register.version, self._pushes) != self._planned:
            self.wake()

    def pushed(self, target: Target, decision_id: str) -> None:
        """A packet process put this into the kernel by itself."""
        self._pushes += 1
        for reconciler in self.reconcilers:
            reconciler.pushed(target, decision_id, float(self._config.enforce.provisional_s))

    async def settled(self, timeout_s: float = 2.0) -> None:
        """Wait, for a bounded time, until all that was asked for has been tried."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for reconciler in self.reconcilers:
                    await reconciler.settled()

    def force(self) -> None:
        """A person says yes to the change that waits."""
        for reconciler in self.reconcilers:
            reconciler.force()

    async def protect(self, intel: Intel, own: tuple[Network, ...], remedies: tuple[Network, ...] = ()) -> None:
        """What is protected has changed: in the kernel at once."""
        self._intel = intel
        self._own = own
        self._remedies = (*_networks(self._config.enforce.remedies), *remedies)
        nftables = self._nftables
        if nftables is None:
            return
        for reconciler in self.reconcilers:
            if reconciler.adapter is nftables:
                try:
                    await reconciler.call(nftables.set_ground, self._ground(intel), intel.protected)
                except AdapterError as error:
                    log.error("the protected set could not be renewed: %s", error)
                reconciler.check()

    def clock_was_set(self) -> None:
        """How old what adapters read last is, their time cannot tell any more: they read anew, or all that they hold
        would seem to have lapsed."""
        for reconciler in self.reconcilers:
            reconciler.check()

    def look(self) -> None:
        """What is tried again every second."""
        self._claim.look()
        self._kernel_log.look()
        if self._unlifted:
            self._lift()

    def disregard(self, ports: list[int]) -> None:
        """Netlink ports of our own packet processes."""
        if self._nftables is not None and ports:
            self._nftables.disregard(ports)

    def own(self, pids: list[int]) -> None:
        """Our own packet processes, all there are now, for one may push before it has told its port. What it pushed
        was taken for another program's, and taken out."""
        if self._nftables is not None:
            self._nftables.own(pids)

    def _ground(self, intel: Intel) -> Ground:
        return Ground(
            never=tuple((addr, length) for addr, length, _ in intel.protected.networks),
            spare=self._own,
            remedy=self._remedies,
            unarmed=self.unarmed,
        )

    def _rules(self) -> list[Rule]:
        if self._nftables is None:
            return self._register.rules("enforce")  # a dry run shows what would be
        return self._register.rules(self.mode, self.is_apart)

    def _is_known(self, decision_id: str) -> bool:
        """Asked in an adapter's thread: whether the ledger had this decision, so that an element of it is no push of a
        packet process that we hear of in a moment."""
        return self._register.had(decision_id)

    # -- what is

    def _state(self, states: list[EnforcementState]) -> None:
        by_adapter: dict[str, list[Row]] = {}
        for one in states:
            row = Row(one.decision_id, one.target, one.state, one.detail)
            by_adapter.setdefault(one.adapter, []).append(row)
        for adapter, rows in by_adapter.items():
            self._write(targets.set_enforcements, adapter, rows, self._clock.now_us())

    def _told(self, adapter: str, text: str) -> None:
        if text:
            log.error("%s: %s", adapter, text)
            self.problems[adapter] = text
        elif self.problems.pop(adapter, ""):
            log.warning("%s works again", adapter)

    def _repaired(self, lost: int, added: int) -> None:
        """Somebody else changed what we hold: told at once, and what comes soon after it in one line."""
        self._lost += lost
        self._added += added
        now_us = self._clock.now_us()
        if 0 <= now_us - self._repair_told_us < REPAIR_LINE_US:
            return
        self._repair_told_us = now_us
        what = [f"took away {self._lost} of our blocks"] if self._lost else []
        what += [f"put in {self._added} that are not ours"] if self._added else []
        log.warning("nftables: another program %s; put right. Which: nft monitor", " and ".join(what))
        self._lost = self._added = 0

    async def counters(self, wanted: list[Target]) -> dict[Target, Existing]:
        """The kernel's counters of single targets."""
        nftables = self._nftables
        if nftables is None or not wanted:
            return {}
        found: dict[Target, Existing] = await self._call(nftables.read_counters, wanted)
        return found

    async def take_canary(self, address: str) -> bool:
        """Whether an address stands in the kernel's scratch set; takes it out."""
        nftables = self._nftables
        if nftables is None:
            return False
        return bool(await self._call(nftables.take_canary, address))

    async def flows(self, networks: list[Network]) -> list[Any]:
        """Established flows of machines in these networks."""
        nftables = self._nftables
        if nftables is None:
            return []
        return list(await self._call(nftables.flows.count_flows, networks))

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        for reconciler in self.reconcilers:
            if reconciler.adapter is self._nftables:
                return await reconciler.call(function, *args)
        return None

    def failing(self) -> tuple[str, ...]:
        """Adapters that do not answer or refuse us: whether what they hold is in force is not known."""
        return tuple(one.adapter.name for one in self.reconcilers if one.alarm)

    def adapters(self) -> list[dict[str, Any]]:
        """One entry per adapter, for screens."""
        found = []
        for reconciler in self.reconcilers:
            stats = reconciler.stats
            counts = reconciler.active
            problem = self.problems.get(reconciler.adapter.name, "")
            found.append(
                {
                    "name": reconciler.adapter.name,
                    "state": "failing" if reconciler.alarm else "asks" if reconciler.question else "ok",
                    "detail": problem,
                    "active": counts.get("active", 0),
                    "pending": counts.get("pending", 0),
                    "failed": counts.get("failed", 0),
                    "unsupported": counts.get("unsupported", 0),
                    "drift_repaired": stats.drift_repaired,
                    "push_failures": stats.failed + stats.retries,
                    "gap_s": reconciler.differs_s(),
                    "generation": stats.generation,
                    "last_check_us": stats.last_check_us,
                }
            )
        return found


def _untold(task: asyncio.Task[None]) -> None:
    """Nobody is there who could be told but the journal."""
    log.critical("%s ended, nothing is put into force any more", task.get_name(), exc_info=task.exception())


def _nothing_apart(decision: InForce, target: Target) -> bool:
    """All segments are under one mode."""
    return False


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    found: list[Network] = []
    for text in texts:
        network = parse_network(text)
        if network is not None:
            found.append((first_address(*network), network[1]))
    return tuple(found)
