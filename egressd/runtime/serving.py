"""What the daemon serves: verbs and screens over the control socket, metrics and health over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from egressd.clock import Clock
from egressd.errors import ConfigError
from egressd.metrics.exposition import render
from egressd.metrics.health import health_of
from egressd.metrics.snapshot import Snapshot
from egressd.notify.eve import render_time
from egressd.plural import count
from egressd.runtime import screens
from egressd.runtime.block_plan import BlockPlan
from egressd.runtime.canary import Canary
from egressd.runtime.core import Core
from egressd.runtime.doctor import examine
from egressd.runtime.explaining import Explaining
from egressd.runtime.feeding import Feeding
from egressd.runtime.health import snapshot_of
from egressd.runtime.keeping import IN_MEMORY, Keeping
from egressd.runtime.preview import Preview
from egressd.runtime.verbs import Verbs
from egressd.runtime.vitals import Vitals
from egressd.store import audit
from egressd.store.audit import Act
from egressd.web.app import MetricsServer, WebStats
from egressd.web.connection import Stats
from egressd.web.control import ControlServer, Peer, Roles, Standing
from egressd.web.requests import INVALID

LOW_ON_SPACE: Final = "the disk of state.directory is nearly full: little more can be recorded; free space on it"
METRICS_AGAIN_S: Final = 5.0

log: Final = logging.getLogger("egressd")

Args = dict[str, Any]
Answer = dict[str, Any]


class Serving:
    """Over the parts that know the answers."""

    def __init__(
        self,
        core: Core,
        clock: Clock,
        canary: Canary,
        keeping: Keeping,
        feeding: Feeding,
        vitals: Vitals,
        unread: Sequence[str],
    ) -> None:
        """`unread` is what of the ledger could not be read, in words."""
        self._core = core
        self._clock = clock
        self._canary = canary
        self._keeping = keeping
        self._feeding = feeding
        self._vitals = vitals
        self._unread = unread
        self._unserved: list[str] = []  # why metrics are not
        self._sockets: dict[str, Stats | WebStats] = {}  # what each server of ours has counted

    def control(self) -> ControlServer:
        """The control socket, not open yet."""
        core = self._core
        preview = Preview(core, self._keeping.history, lambda: self._keeping.flush(core))
        verbs = {**Verbs(core, preview).table(), **self._feeding.table()}
        readers = self._readers(preview)
        acting = asyncio.Lock()

        async def handle(peer: Peer, verb: str, args: Args) -> Answer:
            if verb in readers:
                return await readers[verb](args)
            if verb == "list":
                return screens.listed(core)
            if verb == "version":
                return screens.version()
            try:
                if verb == "reload":  # a minute where lists are long, and one reading waits for the other by itself
                    return await verbs[verb](peer, args)
                async with acting:  # one change after the other, as their audit rows stand
                    return await verbs[verb](peer, args)
            except ConfigError as error:
                raise screens.refuse(str(error), INVALID) from None

        def refused(peer: Peer, verb: str) -> None:
            act = Act(peer.actor, "socket", "refused", verb, "the role does not allow it")
            core.scribe.put(audit.append, act, self._clock.now_us())

        config = core.config.control
        roles = Roles(config.viewers, config.operators, config.admins)
        path = core.loaded.base_dir / config.socket
        server = ControlServer(path, handle, roles, self.standing, refused=refused)
        self._sockets["control"] = server.stats
        return server

    def _readers(self, preview: Preview) -> dict[str, Callable[[Args], Awaitable[Answer]]]:
        """Verb -> what tells without changing anything."""
        core = self._core
        plan = BlockPlan(core, self._keeping.history, lambda: self._keeping.flush(core))
        return {
            "status": lambda args: self._screen(),
            "hosts": lambda args: screens.hosts(core),
            "incidents": lambda args: screens.incidents(core, args["state"], args["client"]),
            "watch": lambda args: screens.watch(core, args["id"]),
            "decisions": lambda args: screens.decisions(core, args),
            "audit": lambda args: screens.audit_rows(core, args),
            "explain": Explaining(core, preview, self._feeding.score_of).explain,
            "list-preview": lambda args: screens.preview(preview, args),
            "plan": lambda args: screens.plan(plan, args),
            "feeds": self._feeding.screen,
            "doctor": lambda args: examine(core, self._canary),
        }

    async def _screen(self) -> Answer:
        core, vitals = self._core, self._vitals
        space = [LOW_ON_SPACE] if core.ledger.low_on_space else []
        memory = [IN_MEMORY] if core.ledger.in_memory else []
        more = [*memory, *space, *core.listening.warnings(), *self._feeding.warnings(), *self._unserved, *self._unread]
        return await screens.status(
            core, self._canary, vitals.loss_ratio, vitals.is_degraded, vitals.lag_s, self._keeping.warnings(), more
        )

    def standing(self) -> Standing:
        """What every answer over the control socket says first."""
        core = self._core
        interfaces = core.sensing.interfaces()
        return Standing(
            core.arming.mode,
            core.sensing.total("packets"),
            render_time(core.started_us),
            tuple(one["name"] for one in interfaces if screens.state_of(core, self._canary, one) != "up"),
            core.enforcement.failing(),
            core.scribe.waiting if core.scribe.trouble else 0,
            sum(mode != core.arming.mode for mode in core.arming.modes.values()),
        )

    def metrics(self) -> MetricsServer[Snapshot] | None:
        """The HTTP server, not started; None when none is configured."""
        config = self._core.config.metrics
        if not config.address:
            return None
        server = MetricsServer(
            config.address,
            config.port,
            snapshot=self._snapshot,
            health=health_of,
            encode=render,
            hosts=config.hosts,
        )
        self._sockets["metrics"] = server.stats
        return server

    async def serve_metrics(self, server: MetricsServer[Snapshot]) -> None:
        """Until cancelled. What cannot be listened on, as an address that the network brings (at boot we come before
        it), is an alarm and tried again: nobody's watch ends for the sake of a page."""
        where = f"{server.host}:{server.port}"
        try:
            while True:
                try:
                    await server.start()
                    break
                except OSError as error:
                    why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
                    told = f"METRICS are not served: {where}: {why}; tried again every {METRICS_AGAIN_S:.0f} s"
                    if self._unserved != [told]:
                        log.error("%s", told)
                    self._unserved = [told]
                await asyncio.sleep(METRICS_AGAIN_S)
            if self._unserved:
                log.warning("metrics are served at %s now", where)
            self._unserved = []
            await asyncio.Event().wait()
        finally:
            await server.close()

    def _snapshot(self) -> Snapshot:
        turned_away = {name: counted.turned_away for name, counted in self._sockets.items()}
        feeds = self._feeding.feeds.states
        return snapshot_of(self._core, self._canary, self._keeping, feeds, self._vitals, turned_away)

    def line(self) -> str:
        """How things stand, for `systemctl status`."""
        core = self._core
        interfaces = core.sensing.interfaces()
        packets = sum(one["packets"] for one in interfaces)
        down = [one["name"] for one in interfaces if one["state"] != "up"]
        seen = count(packets, "packet") if not down else f"DOWN: {', '.join(down)}"
        standing = f"{count(len(core.register), 'decision')}, {count(len(core.campaigns.incidents), 'incident')} open"
        return f"mode {core.arming.mode}; {seen}; {standing}"
