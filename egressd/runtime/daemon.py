"""`egressd run`: the process around the core. Start, serve, stop; signals and systemd.

Start: configuration and lists, ledger, reconcile, capture, READY: blocks stand before anything is seen.
Whatever fails before READY ends the start with one clear line. Stop leaves what is in the kernel in force: it lapses in
its own time, or the next start finds it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from egressd.clock import SteadyClock
from egressd.config.settings import volume_settings
from egressd.detect.probation import FORGET_US
from egressd.detect.resolutions import own_prefixes
from egressd.errors import ConfigError, EgressdError
from egressd.notify.evelog import EveLog
from egressd.notify.journal import Journal, LogHandler
from egressd.notify.service import Service
from egressd.plural import count
from egressd.runtime import knowledge, screens
from egressd.runtime.arming import HOW, LEFT
from egressd.runtime.canary import FAILING, Canary
from egressd.runtime.core import Core
from egressd.runtime.feeding import Feeding
from egressd.runtime.hunting import Hunts
from egressd.runtime.keeping import IN_MEMORY, Keeping
from egressd.runtime.list_following import NOT_ALL, follow_lists
from egressd.runtime.modes import parse_left
from egressd.runtime.processes import PacketProcessHandle
from egressd.runtime.serving import LOW_ON_SPACE, Serving
from egressd.runtime.sight import Sight
from egressd.runtime.tellers import Watchers
from egressd.runtime.vitals import Vitals
from egressd.runtime.volume_watch import VolumeWatch
from egressd.store import audit, ledger, meta
from egressd.store.audit import Act
from egressd.store.errors import FULL, StoreError

OK: Final = 0
RUNTIME: Final = 1
READY_S: Final = 20.0  # until packet processes capture
STOP_S: Final = 8.0
MAX_UNREAD: Final = 10  # rows of the ledger that are named

log = logging.getLogger("egressd")


def run_daemon(path: Path) -> int:
    """Run until stopped; returns the exit code. Raises ConfigError."""
    journal = Journal()
    handler = LogHandler(journal)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    loaded = knowledge.load_texts(path)
    try:
        return asyncio.run(Daemon(path, loaded, journal).run())
    except EgressdError as error:
        log.error("%s", error)
        return RUNTIME
    finally:
        journal.close()


class Daemon:
    """One run."""

    def __init__(self, path: Path, loaded: knowledge.Loaded, journal: Journal) -> None:
        self._path = path
        self._loaded = loaded
        self._journal = journal
        self._service = Service.from_environment(os.environ, os.getpid())
        self._clock = SteadyClock()
        self._stop = asyncio.Event()
        self._failed = False  # a part has ended, also before we are ready
        self._vitals = Vitals(self._clock)
        self._sight = Sight()
        self._serving: Serving | None = None  # not before all that it tells of is there
        self._tasks: list[asyncio.Task[None]] = []
        self._unread: list[str] = []  # what of the ledger could not be read

    async def run(self) -> int:
        """Until SIGTERM or SIGINT."""
        config = self._loaded.config
        directory = self._loaded.base_dir / config.state.directory
        database = await asyncio.to_thread(ledger.open_ledger, directory / "ledger.db", self._clock.now_us())
        events = EveLog(str(self._loaded.base_dir / config.state.events)) if config.state.events else None
        keeping = Keeping(directory, config, self._loaded.base_dir / config.state.heads, self._clock)
        try:
            if events is not None:
                events.start()
            tellers = Watchers(events, self._journal, self._clock)
            self._core = core = Core(self._path, self._loaded, self._clock, database, tellers)
            self._keeping = keeping
            self._feeding = Feeding(core, directory)
            return await self._live(core)
        finally:
            await asyncio.to_thread(keeping.close)
            await asyncio.to_thread(database.close)
            if events is not None:
                await asyncio.to_thread(events.close)

    async def _live(self, core: Core) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        await self._begin(core)
        self._canary = Canary(self._clock, core.enforcement, core.sensing.canaries)
        core.on_canary = self._canary.seen
        hunts = self._hunter(core)
        self._serving = serving = Serving(
            core, self._clock, self._canary, self._keeping, self._feeding, self._vitals, self._unread
        )
        control = serving.control()
        await control.open()
        metrics = serving.metrics()
        if metrics is not None:
            self._watch(serving.serve_metrics(metrics), "metrics")
        self._watch(core.scribe.run(), "ledger")
        core.enforcement.on_fault = self._part_ended
        await core.start_enforcing()
        capturing = asyncio.Event()
        for process in core.sensing.processes:
            self._watch(self._capture(core, process, capturing), f"packet process {process.number}")
        if core.station.interfaces:
            capturing.set()
        core.on_interfaces = capturing.set
        self._watch(control.serve(), "control")
        self._watch(self._every_second(core, serving), "clock")
        self._watch(self._vitals.measure_lag(), "lag")
        self._watch(core.station.follow(core.look_around), "links")
        self._watch(core.station.named.run(), "names")
        self._watch(core.identity.run(), "devices")
        self._watch(self._keeping.run(core), "keeping")
        self._watch(self._feeding.run(), "feeds")
        self._watch(self._count_volume(core), "volume")
        if not core.station.interfaces:
            # At boot we come before the network, and the network waits for us: what stood before is in force already.
            log.error("no interface faces your hosts yet; waiting for one (or name them: capture: interfaces: [eth1])")
        elif not await self._unless_stopped(core.sensing.ready(READY_S)):
            log.error("no packet process captures after %.0f s; egressd goes on trying", READY_S)
        if core.listening.is_wanted:
            self._watch(core.listening.run(), "log process")
        self._watch(self._prove(core), "canary")
        self._watch(follow_lists(core), "lists")
        hunts.hunt(None)  # for what was listed while nothing ran
        self._watch(hunts.run(), "retro-hunt")
        where = ", ".join(core.station.interfaces) or "no interface"
        log.info("egressd %s: mode %s on %s", screens.version()["version"], core.arming.mode, where)
        self._service.ready(serving.line())
        code = await self._until_stopped()
        self._service.stopping()
        await self._end(core)
        return code

    def _hunter(self, core: Core) -> Hunts:
        """Who searches history for what was listed."""
        hunts = Hunts(
            self._keeping.history, lambda: self._keeping.flush(core), lambda: core.knowledge.intel,
            lambda: core.sensing.processes, self._clock,
        )  # fmt: skip
        core.on_news = hunts.hunt
        return hunts

    async def _begin(self, core: Core) -> None:
        """Ledger, surroundings, everything that stood before."""
        now_us = self._clock.now_us()
        last = await core.ledger.read(meta.last_run)
        set_us = meta.set_by_us(last, now_us)
        found = await core.ledger.read(ledger.load_all, now_us - set_us, FORGET_US)
        left, how = [await core.ledger.read(meta.get, key) for key in (LEFT, HOW)]
        changed = core.arming.begin(parse_left(left), clean=last.clean, how=how)
        told = {"clean": last.clean, "pid": os.getpid()}
        act = Act("egressd", "start", "start", "", f"mode {core.arming.mode}", None, told)
        try:
            await core.ledger.run(_begin_run, act, now_us, set_us)
        except StoreError as error:
            if error.kind != FULL:
                raise
            log.error("%s; egressd starts all the same", error)
            core.scribe.put(_begin_run, act, now_us, set_us)
        self._unread = unread_rows((*core.ledger.aside, *found.unread))
        for line in self._unread:
            log.error("%s", line)
        if self._loaded.unkept:
            log.error("no last good copy of the lists is kept: %s", self._loaded.unkept)
        if core.ledger.in_memory:
            log.error("%s", IN_MEMORY)
        if core.ledger.upgraded:
            log.warning("%s", core.ledger.upgraded)
        if changed:
            log.warning("%s", changed)
        remedies = await core.ledger.read(meta.under, "remedies")
        core.restore(found, {id_: text.split(",") for id_, text in remedies.items()})
        if set_us:
            log.warning("the clock was set by %.1f s since the last run; what was to last an hour does", set_us / 1e6)
            core.shift(set_us)
        core.learning.remember(await self._keeping.open(now_us, last.seen_us))
        await self._feeding.open()
        await core.look_around()
        for line in core.station.judged:
            log.info("interface %s", line)

    # -- parts that run

    def _watch(self, what: Awaitable[Any], name: str) -> None:
        """Run a part; when it ends by itself, or fails, the daemon ends, and systemd starts it anew."""

        async def part() -> None:
            await what

        task = asyncio.get_running_loop().create_task(part(), name=name)
        task.add_done_callback(self._part_ended)
        self._tasks.append(task)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._stop.is_set():
            return
        error = task.exception()
        log.critical("%s ended: %s", task.get_name(), error or "without a reason", exc_info=error)
        self._failed = True
        self._stop.set()

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, bool]) -> bool:
        """What comes of it; True as soon as we are to stop: it may take as long as systemd waits for that."""
        loop = asyncio.get_running_loop()
        found, stop = loop.create_task(waiting, name="beginning"), loop.create_task(self._stop.wait(), name="stopping")
        try:
            await asyncio.wait((found, stop), return_when=asyncio.FIRST_COMPLETED)
            return not found.done() or found.result()
        finally:
            found.cancel()
            stop.cancel()

    async def _until_stopped(self) -> int:
        await self._stop.wait()
        return RUNTIME if self._failed else OK

    async def _end(self, core: Core) -> None:
        """From the source to the sink, within a bounded time; what is in the kernel stays."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await core.listening.stop()  # before packet processes, which judge what it tells
                processes = [one for one in self._tasks if one.get_name() == "log process"]
                if processes:
                    await asyncio.wait(processes, timeout=STOP_S / 4)
                await core.sensing.stop()
                processes = [one for one in self._tasks if one.get_name().startswith("packet process")]
                if processes:
                    await asyncio.wait(processes, timeout=STOP_S / 2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await core.enforcement.stop()
        self._feeding.flush()
        with suppress(StoreError):
            await core.scribe.drain()
            await self._keeping.flush(core)
            await core.ledger.run(meta.end_run, self._clock.now_us())
            await self._keeping.save_displaced(core)
            await self._keeping.write_head(core)
        core.tellers.finish()
        log.info("stopped; what is blocked stays blocked until its time is over")

    async def _every_second(self, core: Core, serving: Serving) -> None:
        pause_s = self._service.pause_s(1.0)
        while True:
            await asyncio.sleep(pause_s)
            await core.tick()
            self._vitals.note(core.sensing)
            self._look(core)
            self._service.watchdog()
            self._service.status(serving.line())

    def _look(self, core: Core) -> None:
        canary, vitals = self._canary, self._vitals
        states = {one["name"]: screens.state_of(core, canary, one) for one in core.sensing.interfaces()}
        failing = canary.problem or "there is no interface to send it on"
        self._sight.look(
            states,
            failing if canary.state == FAILING else "",
            vitals.loss_ratio if vitals.is_degraded else 0.0,
            LOW_ON_SPACE if core.ledger.low_on_space else "",
        )

    async def _capture(self, core: Core, process: PacketProcessHandle, capturing: asyncio.Event) -> None:
        await capturing.wait()
        await process.run()

    async def _count_volume(self, core: Core) -> None:
        suffixes = core.knowledge.intel.suffixes
        core.volume = VolumeWatch(
            volume_settings(core.config), suffixes, self._clock, lambda *ends: core.station.whose.leads_out(*ends),
            core.intake.suspect,
        )  # fmt: skip
        core.volume.swap(volume_settings(core.config), own_prefixes(core.knowledge.intel.allowances.nat64))
        core.volume.learn((b"", *row) for row in core.learning.tenants)
        await core.volume.run()

    async def _prove(self, core: Core) -> None:
        await self._canary.run(core.canary_interfaces)

    def _hangup(self) -> None:
        """SIGHUP: read configuration and lists anew, and go on in a new event log."""
        if self._core.tellers.events is not None:
            self._core.tellers.events.reopen()
        self._service.reloading()

        async def reload() -> None:
            try:
                lines = await self._core.reload()
            except ConfigError as error:
                for problem in error.problems[:20]:
                    log.error("%s", problem)
                log.error("%s; everything stays as it was", count(len(error.problems), "problem"))
            except EgressdError as error:
                log.error("%s: %s", NOT_ALL, error)
            else:
                log.info("reloaded: %s", "; ".join(lines))
            if self._serving is not None:
                self._service.ready(self._serving.line())

        task = asyncio.get_running_loop().create_task(reload(), name="reload")
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)


def _begin_run(connection: Connection, act: Act, now_us: int, set_us: int) -> None:
    meta.clock_was_set(connection, set_us, now_us)
    meta.begin_run(connection, now_us)
    audit.append(connection, act, now_us)


def unread_rows(unread: Sequence[str]) -> list[str]:
    """What to tell of rows of the ledger that could not be read whole: a disk may be failing."""
    told = list(unread[:MAX_UNREAD])
    if len(unread) > MAX_UNREAD:
        told.append(f"and {count(len(unread) - MAX_UNREAD, 'row')} more")
    return [f"the ledger is damaged: {one}" for one in told]


def main() -> int:
    """For `python -m egressd.runtime.daemon CONFIG`."""
    return run_daemon(Path(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
