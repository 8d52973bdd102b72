"""What lies on disk beside the ledger, and the upkeep of both: history, audit heads, retention, checkpoints.

None of it may stop the daemon: trouble is told and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from egressd.clock import Clock
from egressd.config.schema import Config
from egressd.detect.acquaintance import MAX_KNOWN
from egressd.runtime.ageing import Ageing
from egressd.runtime.bulk_rows import Tenants
from egressd.runtime.core import Core
from egressd.runtime.orders import Learn
from egressd.store import audit, past, retention
from egressd.store.audit import Act
from egressd.store.errors import StoreError
from egressd.store.heads import append_head, load_heads
from egressd.store.history import Bounds, Contact, History, Tenant
from egressd.units import DAY_US

FLUSH_S: Final = 5.0
HEAD_S: Final = 60.0
UPKEEP_S: Final = 300.0
REOPEN_S: Final = 60.0
MOST_PARTS: Final = 64  # of retention at a time; the rest comes with the next upkeep
TENANTS_KEPT_US: Final = DAY_US  # "seen on it in the last day" (detect/resolutions.py)
MAX_TENANTS: Final = 100_000
CLOSE_QUIET_US: Final = 30 * DAY_US
QUIET: Final = f"somebody had it in hand, and its host was quiet for {CLOSE_QUIET_US // DAY_US} days"
BACKUP: Final = "ledger.db.backup"  # beside the ledger; a day old at most
DISPLACED: Final = (
    "the LEDGER was removed or replaced while egressd writes it: what it holds ends with this process."
    f" {BACKUP} is a copy of it; put that in its place as docs/operating.md says"
)
IN_MEMORY: Final = (
    "the LEDGER lies on a disk that was READ-ONLY at the start: what is decided is in memory alone, and saved every"
    " five minutes once the disk can be written. Mend that (the kernel's log tells why), then restart egressd"
)

RETENTION: Final = Act("egressd", "timer", "retention", "", "rows beyond the bounds of state.ledger_days")

log = logging.getLogger("egressd.keeping")


class Keeping:
    """Owns the history file and the timers of upkeep."""

    def __init__(self, directory: Path, config: Config, heads: Path, clock: Clock) -> None:
        self.history_rows = 0
        self._config = config
        self._heads = heads
        self._clock = clock
        self._backup = directory / BACKUP
        self._bounds = retention.Bounds(age_us=config.state.ledger_days * DAY_US)
        bounds = Bounds(age_us=config.state.history_days * DAY_US, contacts=config.state.history_rows)
        self._history = History(directory / "history.db", bounds)
        self._trouble = ""  # why history is not kept, while it is not
        self._failing: dict[str, str] = {}  # which part of the upkeep, and why
        self._displaced = False
        self._head_seq = 0
        self._ageing = Ageing(0)
        self._doubt_us = 0

    async def open(self, now_us: int, seen_us: int = 0) -> Tenants:
        """Open history; returns the passive DNS of the last day. Trouble with it is told, and costs only history.
        `seen_us` is when the last run was alive, 0: there was none."""
        if seen_us:
            self._ageing = Ageing(seen_us)
        try:
            for warning in await asyncio.to_thread(self._history.open, now_us):
                log.error("%s", warning)
        except StoreError as error:
            self._is_not_kept(error)
            return ()
        self._trouble = ""
        try:
            at_us = max(now_us, seen_us)  # the clock may be behind
            found = await self._history.tenants_since(at_us - TENANTS_KEPT_US, MAX_TENANTS, at_us + DAY_US)
        except StoreError as error:
            log.error("who lived where before now is not known: %s", error)
            return ()
        return tuple((one.registered_domain, one.address, one.last_us) for one in found)

    async def open_again(self, core: Core) -> None:
        """Try what failed. What history knows is learnt as at the start, and what is listed is searched for in it."""
        tenants = await self.open(self._clock.now_us())
        if not self._history.is_open:
            return
        log.warning("history is kept again")
        core.learning.remember(tenants)
        core.tell(Learn(tenants))
        await self.acquaint(core)
        core.on_news(None)

    async def acquaint(self, core: Core) -> None:
        """Which clients were here before the start is known from history. Raises StoreError."""
        if self._history.is_open:
            clients, since_us = await self._history.ask(past.clients_known, MAX_KNOWN)
            if clients:
                core.acquaintances.remember(clients, since_us)

    def _is_not_kept(self, why: StoreError) -> None:
        if str(why) != self._trouble:
            log.error("history is not kept: %s", why)
        self._trouble = str(why)

    def close(self) -> None:
        """Finish what waits."""
        self._history.close()

    @property
    def history(self) -> History:
        """The history, which may not be open."""
        return self._history

    def warnings(self) -> list[str]:
        """What somebody should know: without history nobody is found who was there before."""
        displaced = [DISPLACED] if self._displaced else []
        unkept = [f"HISTORY is not kept: {self._trouble}"] if self._trouble else []
        return [*displaced, *unkept, *(f"upkeep: {why}" for why in self._failing.values())]

    @property
    def dropped(self) -> int:
        """Rows of history that were not written."""
        return self._history.stats.dropped

    async def run(self, core: Core) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        head_at_s = upkeep_at_s = reopen_at_s = loop.time()
        await self._try(self.acquaint, core)
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush(core)
            now_s = loop.time()
            if not self._history.is_open and now_s >= reopen_at_s + REOPEN_S:
                reopen_at_s = now_s
                await self._try(self.open_again, core)
            if not self._displaced:
                await self._try(self.save_displaced, core)
            if now_s >= head_at_s + HEAD_S:
                head_at_s = now_s
                await self._try(self.write_head, core)
            if now_s >= upkeep_at_s + UPKEEP_S:
                upkeep_at_s = now_s
                await self.upkeep(core)

    async def _try(self, part: Callable[[Core], Awaitable[None]], core: Core) -> None:
        name = getattr(part, "__name__", "").strip("_").replace("_", " ")
        try:
            await part(core)
        except StoreError as error:
            if self._failing.get(name) != str(error):
                log.error("upkeep: %s", error)
            self._failing[name] = str(error)
        else:
            if self._failing.pop(name, ""):
                log.warning("upkeep: %s works again", name)

    async def flush(self, core: Core) -> None:
        """Write history that waits. What cannot be written is lost, and counted."""
        rows, core.learning.history_waiting = core.learning.history_waiting, []
        tenants, core.learning.tenants_waiting = core.learning.tenants_waiting, []
        if not (rows or tenants):
            return
        contacts = [Contact(*row) for row in rows if row[6] > 0]
        places = [Tenant(domain, address, ts_us, ts_us, 1) for domain, address, ts_us in tenants]
        try:
            for warning in await self._history.record(contacts, places):
                log.error("%s", warning)
        except StoreError as error:
            self._is_not_kept(error)

    async def write_head(self, core: Core) -> None:
        """Tell the head of the audit chain to a file apart, and to the journal. Raises StoreError."""
        head = await core.ledger.read(audit.head)
        if head.seq == self._head_seq or not head.seq:
            return
        await asyncio.to_thread(append_head, self._heads, head, self._clock.now_us())
        self._head_seq = head.seq
        log.info("audit head %d:%s", head.seq, head.hash)

    async def save_displaced(self, core: Core) -> None:
        """Copy the ledger when somebody took it away, for nothing else will have what it holds. Raises StoreError."""
        displaced = await asyncio.to_thread(core.ledger.is_displaced)
        if displaced and not self._displaced:
            log.error("%s", DISPLACED)
        self._displaced = displaced
        if displaced:
            await core.ledger.backup(self._backup)

    async def _save_memory(self, core: Core) -> None:
        if core.ledger.in_memory:
            await core.ledger.save()

    async def upkeep(self, core: Core) -> None:
        """Retention, checkpoints, and the copy of the ledger. Trouble with one of them holds up no other."""
        now_us = self._clock.now_us()
        # What is forgotten by age waits for so long.
        self._doubt_us = now_us - self._ageing.now_us(now_us, asyncio.get_running_loop().time())
        for part in (
            self.save_displaced,
            self._save_memory,
            self._trim_ledger,
            self._trim_audit,
            self._checkpoint,
            self._trim_history,
        ):
            await self._try(part, core)
        await self._try(self.back_up, core)

    async def _trim_ledger(self, core: Core) -> None:
        now_us = self._clock.now_us()
        before_us = now_us - self._doubt_us - CLOSE_QUIET_US
        for id_ in await core.ledger.run(retention.close_quiet, before_us, now_us, RETENTION):
            incident = core.casebook.close(id_)
            if incident is not None:
                core.casebook.tell(incident, "closed", now_us, QUIET)
        bounds = self._bounds._replace(age_us=self._bounds.age_us + self._doubt_us)
        for _ in range(MOST_PARTS):
            trimmed = await core.ledger.run(retention.trim, bounds, now_us, RETENTION)
            if not trimmed.is_empty():
                log.info("retention: %s", trimmed)
            if not trimmed.more:
                break

    async def _trim_audit(self, core: Core) -> None:
        heads, _ = await asyncio.to_thread(load_heads, self._heads)
        bounds = self._bounds._replace(audit_age_us=self._bounds.audit_age_us + self._doubt_us)
        await core.ledger.run(retention.trim_audit, heads, bounds, self._clock.now_us(), RETENTION)

    async def _checkpoint(self, core: Core) -> None:
        await core.ledger.checkpoint()

    async def _trim_history(self, core: Core) -> None:
        if not self._history.is_open:
            return
        for _ in range(MOST_PARTS):
            if not any((await self._history.trim(self._clock.now_us() - self._doubt_us)).values()):
                break
        await self._history.checkpoint()

    async def back_up(self, core: Core) -> None:
        """Once a day: a copy of the ledger, for when the ledger is damaged. Raises StoreError; the old copy stays."""
        age_us = self._clock.now_us() - await asyncio.to_thread(_written_us, self._backup)
        if not 0 <= age_us < DAY_US:  # one from the future was written before the clock was set
            size_bytes = await core.ledger.backup(self._backup)
            log.info("the ledger's copy %s is of now, %d bytes", self._backup.name, size_bytes)


def _written_us(path: Path) -> int:
    """When a file was written, 0 when there is none."""
    try:
        return path.stat().st_mtime_ns // 1_000
    except OSError:
        return 0
