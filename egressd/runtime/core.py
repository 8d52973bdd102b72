"""The core: everything that the daemon knows and decides, in one place, on one event loop.

Who owns what: `register` is what stands, `rulings` changes it, `arming` says under which modes, `intake` takes what
packet processes send, `enforcement` puts it into the kernel, `scribe` writes it down, `knowledge` is what people say.
Verbs and screens act on these.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from egressd.clock import SteadyClock
from egressd.config.schema import Config
from egressd.config.settings import volume_settings
from egressd.detect.acquaintance import Acquaintances
from egressd.detect.campaigns import Campaigns
from egressd.detect.devices import Devices
from egressd.detect.resolutions import own_prefixes
from egressd.detect.rules import Rule as PolicyRule
from egressd.model import FlowKey
from egressd.plural import count
from egressd.runtime import knowledge as known
from egressd.runtime.allowing import Allowing
from egressd.runtime.arming import Arming
from egressd.runtime.bulk_rows import HistoryRow, Tenants
from egressd.runtime.casebook import Casebook
from egressd.runtime.enforcement import Enforcement
from egressd.runtime.identity import Identity
from egressd.runtime.in_force import Register, from_row
from egressd.runtime.intake import Intake
from egressd.runtime.isolation import Isolation
from egressd.runtime.knowledge import Fed, Knowledge, Loaded, Surroundings
from egressd.runtime.lapsing import Lapsing
from egressd.runtime.learning import Learning, Reached
from egressd.runtime.listening import Listening, marks_path
from egressd.runtime.messages import Values
from egressd.runtime.news import News, news
from egressd.runtime.orders import Dropped, Learn, LogSource, LogStart, Order, Start, Step, Swap
from egressd.runtime.reloading import Reloading
from egressd.runtime.rollback import Rollback, tell
from egressd.runtime.rulings import Rulings
from egressd.runtime.scribe import Scribe
from egressd.runtime.sensing import Sensing, reserve_processors, start_order
from egressd.runtime.station import Station
from egressd.runtime.tellers import Watchers
from egressd.runtime.volume_watch import VolumeWatch
from egressd.runtime.watched import WatchSum
from egressd.store import entries, ledger, meta, targets
from egressd.store.db import Database
from egressd.store.entries import Entry
from egressd.units import HOUR_US, SECOND_US

DRIFT_US: Final = 10_000  # the clock was slewed by so much: packet processes are told
SEEN_US: Final = 10_000_000  # how exactly the ledger knows until when we lived
LAPSE_US: Final = 10_000_000  # how often it is looked whether proposals lapse

log = logging.getLogger("egressd")


class Core:
    """The daemon without its process: no signals, no sockets of its own."""

    def __init__(self, path: Path, loaded: Loaded, clock: SteadyClock, ledger_db: Database, tellers: Watchers) -> None:
        self.path = path
        self.clock = clock
        self.started_us = clock.now_us()
        self.tellers = tellers
        self.ledger = ledger_db
        self.loaded = loaded
        self.entries: list[Entry] = []
        self.fed: Mapping[str, Fed] = {}  # by feed
        self.stale = False  # what rests on entries and remedies is to be made anew with the next tick
        self._taking = 0  # whose batch is at hand
        self._lapse_due_us = 0
        self._seen_us = 0
        self._told_offset_us = clock.offset_us
        self._renewing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._due_s = 0  # when the next indicator comes into force that says when
        self.on_loaded: Callable[[], Awaitable[None]] = _nobody  # configuration and lists were read anew
        self.on_canary: Callable[[str, int, int], None] = _nothing
        self.on_interfaces: Callable[[], None] = _nothing
        self.on_news: Callable[[News | None], None] = _nothing

        self.reloading = Reloading(path, loaded, clock)
        self.fanout_group = os.getpid() & 0xFFFF or 1
        self.processors = reserve_processors(loaded.config)
        self.register = Register()
        self.devices = Devices()
        self.station = Station(self.devices, self._capture_elsewhere)
        self.knowledge: Knowledge = known.combine(loaded, (), self.station.around, loaded.config.mode)
        self.campaigns = Campaigns(self.devices)
        self.learning = Learning(self.campaigns, clock, lambda: self.knowledge.intel, self._learn)
        self.identity = Identity(self.devices, clock, lambda: self.config.devices, loaded.base_dir, self.follow_devices)
        self.scribe = Scribe(ledger_db, self._written)
        self.enforcement = Enforcement(self.register, clock, self.scribe.put, self._dropped)
        self.arming = Arming(
            lambda: self.loaded, self.register, self.scribe, self.enforcement, self._armed, clock.now_us
        )
        self.rulings = Rulings(self.register, self.campaigns, self.scribe, clock, self.tell, self.arming.is_enforcing)
        self.allowing = Allowing(
            self.register, self.rulings, self.campaigns, self.scribe, clock, tellers.event, self.new_id
        )
        self.lapsing = Lapsing()
        self.intake = Intake(
            self.register, self.rulings, self.campaigns, self.scribe, clock, tellers, self.segment_of,
            self._take_history, self._take_tenants, self.enforcement.pushed, f"{self.started_us}-{os.getpid()}",
        )  # fmt: skip
        self.casebook = Casebook(self.campaigns, self.devices, self.intake, self.scribe, tellers, self.segment_of)
        self.listening = Listening(
            dict(loaded.config.sensors), loaded.config.capture.processes, self._log_start, self._tell_one,
            self._last_packet, tellers.event, clock.now_us,
        )  # fmt: skip
        self.isolation = Isolation(self.register, self.rulings, self.scribe, self.devices, self.station, clock)
        self.acquaintances = Acquaintances(self.started_us)
        self.rollback = Rollback(
            self.register, self.rulings, tellers, lambda: self.knowledge.settings, self._known_clients,
            self.devices.machine_of, self.acquaintances, lambda: self.enforcement.wake(),
        )  # fmt: skip
        self.sensing = Sensing(loaded.config.capture.processes, self.start_of, self.take)
        self.volume: VolumeWatch | None = None  # who counts bytes, in the daemon
        self._introduce()

    def _introduce(self) -> None:
        """Parts that ask, or tell, each other."""
        self.tellers.domain_of = self.domain_of
        self.register.on_end = self._ended
        self.register.rule_of = self.rule_of
        self.identity.wanted = self.casebook.nameless
        self.rulings.leave.per_hour = lambda: self.knowledge.settings.isolations_per_hour
        self.rulings.leave.is_ours = self.station.may_isolate
        self.campaigns.shares.knew = self.acquaintances.knew
        self.intake.on_client = self.rollback.met
        self.intake.lets_through = self.arming.lets_through
        self.intake.on_spoken = self.acquaintances.met
        self.intake.on_domain = self.learning.tie
        self.intake.on_reached = self.learning.reached

    def canary_interfaces(self) -> list[str]:
        """Where a canary can be sent: interfaces that are captured from."""
        return [one["name"] for one in self.sensing.interfaces() if one["state"] == "up"]

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.loaded.config

    # -- start

    def restore(self, found: ledger.Loaded, remedies: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        """Carry on with what the ledger knows; `remedies` are those of isolations, by decision."""
        self.register.earlier = self.register.highest = found.last.get("D", 0)
        self.entries = [_added_before(one, self.started_us) for one in found.entries]
        self.campaigns.restore(found.campaigns, [row.incident for row in found.incidents])
        for one, other in found.rejected:
            self.campaigns.candidates.remember_rejected(one, other)
        self.campaigns.number_after(found.last.get("I", 0), found.last.get("C", 0))
        self.intake.leaks = {row.incident.id: row.leaks for row in found.incidents if row.leaks}
        for row in found.decisions:
            self.register.add(from_row(row))
        self.rulings.restore(found.spared, found.waits, found.began)
        for watch in found.watches:
            watched = WatchSum(watch.first_us, watch.last_us, watch.attempts, watch.leaks)
            self.intake.watched.restore(watch.decision_id, watch.client, watched)
        self.isolation.restore(remedies)
        self.allowing.restore(found.lifted, found.allowed)
        _, lapsed, _ = known.parse_entries(found.lapsed, self.loaded.texts, self.knowledge.intel.protected)
        self.lapsing.restore(lapsed, self.started_us)
        self.arming.stand_in()

    async def look_around(self) -> None:
        """See how the machine stands now. Raises OSError when the kernel does not tell."""
        if await self.station.look(self.config, self.knowledge.segments):
            await self.renew()

    def _capture_elsewhere(self, has_captured: bool) -> None:
        """Packet processes begin, or begin anew, on the interfaces that face the hosts now."""
        if has_captured:
            self.sensing.renew()
        self.on_interfaces()

    async def start_enforcing(self) -> None:
        """Begin to put decisions into force. Raises AdapterError."""
        reported = await self.ledger.read(targets.load_enforcements, "nftables")
        self.arming.keep_apart()
        await self.enforcement.start(
            self.arming.site.strongest, self.config, self.knowledge.intel, self.station.own, reported
        )

    # -- packet processes

    def start_of(self, number: int) -> tuple[Start, list[Order]]:
        """The first orders of packet process `number`."""
        self._own_processes()
        stride = self.config.capture.processes + 1
        start = start_order(
            self.config,
            number,
            self.station.interfaces,
            self.fanout_group,
            self.processors,
            self._next_number(number + 1, stride),
            self.clock.offset_us,
            intel=self.knowledge.intel,
            settings=self.knowledge.settings,
            enforced=self.arming.site.strongest == "enforce",
            fast_lane=self.arming.site.strongest == "enforce",
            sensors=self.listening.is_wanted,
        )
        following: list[Order] = [self.rulings.standing()]
        if self.learning.tenants:
            following.append(Learn(self.learning.tenants))
        return start, following

    def _own_processes(self) -> None:
        self.enforcement.own([one.pid for one in self.sensing.processes if one.pid])

    def new_id(self) -> str:
        """The id of a person's decision."""
        id_ = f"D{self._next_number(0, self.config.capture.processes + 1)}"
        self.register.note(id_)
        return id_

    def _next_number(self, residue: int, stride: int) -> int:
        """The next free number of a class: packet processes and people never give out the same."""
        after = self.register.highest + 1
        return after + (residue - after) % stride

    async def take(self, number: int, batch: dict[str, Any]) -> None:
        """A batch of a packet process."""
        self._taking = number
        self.intake.take(number, batch)
        canaries = batch.get("canaries")
        if canaries is not None:
            rows = Values(canaries)
            for _ in range(len(rows)):
                row = Values(rows.next())
                self.on_canary(row.text(), row.number(), row.number())
        ports = self.sensing.netlink_ports()
        if ports:
            self.enforcement.disregard(ports)

    def tell(self, order: Order, but: int = -1) -> None:
        """Send an order to the packet processes."""
        self.sensing.tell(order, but)

    # -- what people say

    async def reload(self, *, only_lists: bool = False) -> list[str]:
        """Read configuration and lists anew; returns what changed, in words. A list with a mistake in it keeps its last
        good content (`reloading.problems`). Raises ConfigError, and all stays; AdapterError when the kernel refuses a
        mode, which stays as it was and is tried with the next reading."""
        async with self._reading:  # the last to ask must be the last to have its way
            return await self._reload(only_lists)

    async def _reload(self, only_lists: bool) -> list[str]:
        before, word = self.knowledge, self.arming.word
        in_force = frozenset(one.name for one in self.loaded.texts.files)
        loaded, waiting = await self.reloading.read(self.config, in_force, only_lists=only_lists)
        self.loaded = loaded
        await self.on_loaded()
        await self.renew()
        modes = await self.arming.follow(loaded.config, word)
        now = self.knowledge
        size, earlier = now.intel.index.size, before.intel.index.size
        lines = [f"{count(size, 'indicator')} ({earlier:,} before)", *modes]
        if waiting:
            lines.append(f"in force only after a restart: {', '.join(waiting)}")
        return lines

    async def renew(self) -> None:
        """Lists, entries, mode or surroundings changed: everything that rests on them, anew."""
        async with self._renewing:  # the last to ask must be the last to have its way
            await self._renew()

    async def _renew(self) -> None:
        before = self.knowledge.intel
        while True:
            said = self._said()
            self.knowledge = await asyncio.to_thread(known.combine, *said)
            if said == self._said():
                break  # else somebody said more meanwhile, and what rests on that would be taken for unlisted
        intel = self.knowledge.intel
        armed = self.arming.site.strongest == "enforce"
        swap = Swap(intel, self.knowledge.settings, armed, armed)
        self.tell(swap)
        self.listening.tell(swap)
        now_us = self.clock.now_us()
        self.on_news(news(before, intel, self.allowing.over(now_us), now_us // SECOND_US))
        self._due_s = min((one.added_s for one in intel.index.pending_after(now_us // SECOND_US)), default=0)
        self.allowing.look(intel, self.arming.site)
        self.arming.keep_apart()
        self.station.name(self.knowledge.segments)
        if self.volume is not None:
            self.volume.swap(volume_settings(self.config), own_prefixes(intel.allowances.nat64))
        await self.enforcement.protect(intel, self.station.own, self.isolation.reachable())
        self.enforcement.wake()

    def _said(self) -> tuple[Loaded, Sequence[Entry], Surroundings, str, Mapping[str, Fed], Mapping[str, str]]:
        """All that knowledge is put together from."""
        arming = self.arming
        return self.loaded, tuple(self.entries), self.station.around, arming.mode, self.fed, dict(arming.modes)

    async def _armed(self) -> None:
        """Modes were set."""
        self._own_processes()
        await self.renew()
        self.tell(self.rulings.standing())

    async def add_entry(self, kind: str, text: str, actor: str, reason: str, expires_us: int, act: Any) -> Entry:
        """A line of an operator's, on disk when this returns. Raises StoreError."""
        entry = await self.ledger.run(entries.add, kind, text, actor, reason, self.clock.now_us(), expires_us, act)
        self.entries = [one for one in self.entries if (one.kind, one.text) != (kind, text)]
        self.entries.append(entry)
        return entry

    # -- time

    def shift(self, delta_us: int) -> None:
        """The clock was set: what was to last an hour lasts an hour. Whoever calls this has it written, too."""
        self.register.shift(delta_us)
        self.rulings.keep_waits()
        self.allowing.shift(delta_us)
        moved = [one._replace(expires_us=one.expires_us + delta_us) if one.expires_us else one for one in self.entries]
        self.entries = [_added_before(one, self.clock.now_us()) for one in moved]
        self.stale = True

    def _shift_what_was_seen(self, delta_us: int) -> None:
        """What this run saw, it saw by the clock that was set. Packet processes, whose every table has times, begin
        anew when it was set back, or ahead by more than a day: for hours, or years, nothing there would become old."""
        for one in (self.rulings.leave, self.devices, self.acquaintances):
            one.shift(delta_us)
        if not -HOUR_US <= delta_us <= 24 * HOUR_US:
            self.learning.begin_anew()
            self.sensing.renew()

    async def tick(self) -> None:
        """Once a second."""
        delta_us = self.clock.follow()
        if delta_us:
            log.warning("the wall clock was set by %.1f s; what was to last an hour lasts an hour", delta_us / 1e6)
            self.shift(delta_us)
            self.scribe.put(meta.clock_was_set, delta_us, self.clock.now_us())
            self._shift_what_was_seen(delta_us)
            self.enforcement.clock_was_set()
        if abs(self.clock.offset_us - self._told_offset_us) > DRIFT_US:
            self._told_offset_us = self.clock.offset_us
            self.tell(Step(self.clock.offset_us))
            self.listening.tell(Step(self.clock.offset_us))
        self.enforcement.look()
        self._listen()
        self.rulings.expire()
        now_us = self.clock.now_us()
        if now_us >= self._lapse_due_us:
            self._lapse_due_us = now_us + LAPSE_US
            for lapsed in self.rulings.lapse(self.config.policy.lapse_h * HOUR_US):
                tell(self.tellers, lapsed)
        self.lapsing.follow(self.knowledge.intel.allowances, now_us)
        in_force = [one for one in self.entries if not 0 < known.ends_s(one) <= now_us // SECOND_US]
        if len(in_force) < len(self.entries):
            self.entries = in_force
            self.stale = True
        if self.stale or self.allowing.is_due(now_us):
            self.stale = False
            await self.renew()
        if 0 < self._due_s <= now_us // SECOND_US:
            self._take_effect(now_us // SECOND_US)
        if abs(now_us - self._seen_us) >= SEEN_US:  # further back, too: the clock was set
            self._seen_us = now_us
            self.scribe.put(meta.seen, now_us)
        self.tellers.tick()

    def _listen(self) -> None:
        """How other sensors stand, and what of theirs is history by now."""
        if self.listening.is_wanted:
            self.listening.agreed(self.sensing.told("heard"))
            self.learning.keep(self.listening.tick())

    def _take_effect(self, now_s: int) -> None:
        """Indicators that said when they come into force have."""
        index = self.knowledge.intel.index
        due_s, pending = self._due_s, index.pending_after(self._due_s - 1)
        self.on_news(News(tuple(one for one in pending if due_s <= one.added_s <= now_s)))
        self._due_s = min((one.added_s for one in pending if one.added_s > now_s), default=0)

    # -- from elsewhere

    def rule_of(self, name: str) -> PolicyRule | None:
        """A rule of the policy in force, None when it has none of that name."""
        return self.knowledge.settings.rules_in_force().named(name)

    def _known_clients(self) -> int:
        return sum(one["machines"] for one in self.sensing.rows())

    def segment_of(self, client: bytes) -> str:
        """The name of the segment that a client is in, "" for none."""
        return self.knowledge.segments.longest(client) or "" if client else ""

    def domain_of(self, campaign_id: str) -> str:
        """What a campaign is about, for people."""
        campaign = self.campaigns.campaigns.get(campaign_id)
        return campaign.keys[0].rpartition(" ")[2] if campaign is not None and campaign.keys else ""

    def _ended(self, decision_id: str) -> None:
        self.intake.watched.forget(decision_id)
        if self.isolation.ended(decision_id):
            self.stale = True

    def _written(self) -> None:
        self.enforcement.written()

    def follow_devices(self) -> None:
        """Once in a few seconds: incidents whose device is known by now, and new addresses of isolated devices."""
        self.casebook.recognise()
        if self.isolation.follow():
            self.enforcement.wake()

    def _dropped(self, flows: list[tuple[int, FlowKey]]) -> None:
        """What the kernel stopped goes to the packet processes: they know which of it the tap has seen."""
        self.tell(Dropped(tuple(flows)))

    def _learn(self, reached: Iterable[Reached]) -> None:
        if self.volume is not None:
            self.volume.learn(reached)

    def _take_history(self, rows: list[HistoryRow]) -> None:
        self.listening.seen(self._taking, rows)
        for row in rows:
            self.acquaintances.met(row[0], row[4])
        self.learning.take_history(rows)

    def _take_tenants(self, number: int, rows: Tenants) -> None:
        if len(self.sensing.processes) > 1:
            self.tell(Learn(rows), but=number)
        self.learning.take_tenants(rows)

    def _log_start(self, sources: tuple[LogSource, ...]) -> LogStart:
        directory = self.loaded.base_dir / self.config.state.directory
        return LogStart(sources, str(marks_path(directory)), self.clock.offset_us, self.knowledge.intel)

    def _tell_one(self, number: int, order: Order) -> None:
        self.sensing.tell_one(number, order)

    def _last_packet(self) -> int:
        return max((one["last_us"] for one in self.sensing.interfaces()), default=0)


def _added_before(entry: Entry, now_us: int) -> Entry:
    """A line counts from when it was added: where the clock was set back since then, from now on."""
    return entry._replace(created_us=now_us) if entry.created_us > now_us else entry


def _nothing(*_: object) -> None:
    """Nobody waits for that yet."""


async def _nobody() -> None:
    """Nobody waits for that yet."""
