"""The core: everything that the daemon knows and decides, in one place, on one event loop.

Who owns what: `register` is what stands, `rulings` changes it, `intake` takes what packet processes send, `enforcement`
puts it into the kernel, `scribe` writes it down, `knowledge` is what people say. Verbs and screens act on these.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from egressd.capture.links import lan_interfaces, read_surroundings
from egressd.clock import SteadyClock
from egressd.config.feed_options import feed_host
from egressd.config.schema import Config
from egressd.config.settings import volume_settings
from egressd.detect.address_history import AddressHistory
from egressd.detect.campaigns import Campaigns
from egressd.detect.devices import Devices, parse_mac
from egressd.detect.resolutions import own_prefixes
from egressd.detect.rules import Rule as PolicyRule
from egressd.detect.site import Site
from egressd.enforce.adapter import CLIENT, Rule
from egressd.errors import ConfigError
from egressd.intel.networks import NetworkTable, first_address, parse_address, parse_network, render_address
from egressd.model import Campaign, FlowKey, Incident, Indicator, Target
from egressd.notify.evelog import EveLog
from egressd.runtime import knowledge as known
from egressd.runtime.allowing import Allowing
from egressd.runtime.enforcement import Enforcement, Network
from egressd.runtime.identity import Identity, follow_isolated
from egressd.runtime.in_force import InForce, Register, from_row
from egressd.runtime.intake import HistoryRow, Intake, WatchSum, copy_campaign
from egressd.runtime.knowledge import Fed, Knowledge, Loaded, Surroundings
from egressd.runtime.lapsing import Lapsing
from egressd.runtime.listening import Listening, marks_path
from egressd.runtime.messages import Values
from egressd.runtime.modes import is_apart, site_of, stand_in, unarmed
from egressd.runtime.named_hosts import NamedHosts
from egressd.runtime.orders import Dropped, Learn, LogSource, LogStart, Order, Start, Step, Swap
from egressd.runtime.rollback import Rollback, tell
from egressd.runtime.rulings import HOUR_US, Rulings
from egressd.runtime.scribe import Scribe
from egressd.runtime.sensing import Sensing, reserve_processors, start_order
from egressd.runtime.tellers import Watchers
from egressd.runtime.volume_watch import VolumeWatch
from egressd.runtime.whose import Whose
from egressd.store import decisions, entries, incidents, ledger, meta, targets
from egressd.store.db import Database
from egressd.store.entries import Entry

DRIFT_US: Final = 10_000  # the clock was slewed by so much: packet processes are told
SEEN_US: Final = 10_000_000  # how exactly the ledger knows until when we lived
MAX_PROBLEMS: Final = 20  # of lists that are told one by one
LAPSE_US: Final = 10_000_000  # how often it is looked whether proposals lapse
DEVICE_NOW_US: Final = 600_000_000  # an address that a device used within is still its own
HISTORY_WAITING: Final = 100_000  # rows; lossy by contract
# Sections of the configuration that a reload does not change.
AT_START: Final = ("capture", "enforce", "control", "metrics", "state", "limits", "sensors")

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
        self.loaded_us = self.started_us
        self.mode = loaded.config.mode
        self.modes: dict[str, str] = dict(loaded.config.modes)  # of segments where it is another one
        self._site: tuple[Any, Site] | None = None
        self.entries: list[Entry] = []
        self.fed: Mapping[str, Fed] = {}  # by feed
        self.on_loaded: Callable[[], Awaitable[None]] = _nobody  # configuration and lists were read anew
        self.around = Surroundings((), frozenset())
        self.named = NamedHosts()
        self.own: tuple[Network, ...] = ()
        self.remedies: dict[str, tuple[Network, ...]] = {}  # by decision
        self.interfaces: tuple[str, ...] = ()
        self.judged: list[str] = []
        self.reloads = {"ok": 0, "refused": 0}
        self.reload_problems = [str(one) for one in loaded.kept]
        self.history_waiting: list[HistoryRow] = []
        self.history_lost = 0
        self.tenants_waiting: list[tuple[str, bytes, int]] = []
        self.tenants: tuple[tuple[str, bytes, int], ...] = ()  # of before the start, for new packet processes
        self.fanout_group = os.getpid() & 0xFFFF or 1
        self.processors = reserve_processors(loaded.config)
        self.knowledge: Knowledge = known.combine(loaded, (), self.around, self.mode)
        self.register = Register()
        self.devices = Devices()
        self.campaigns = Campaigns(self.devices)
        self.campaigns.on_merge = self._merged
        self.campaigns.on_fold = self._folded
        self.campaigns.on_candidate = self._proposed
        self.address_history = AddressHistory()
        self.identity = Identity(self.devices, clock, lambda: self.config.devices, loaded.base_dir, self.follow_devices)
        self.identity.wanted = self._nameless
        tellers.domain_of = self.domain_of
        self.register.on_end = self._ended
        self.scribe = Scribe(ledger_db, self._written)
        self.rulings = Rulings(self.register, self.campaigns, self.scribe, clock, self.tell, self.is_enforcing)
        self.allowing = Allowing(
            self.register, self.rulings, self.campaigns, self.scribe, clock, tellers.event, self.new_id
        )
        self.lapsing = Lapsing()
        self.enforcement = Enforcement(self.register, clock, self.scribe.put, self._dropped)
        self.intake = Intake(
            self.register, self.rulings, self.campaigns, self.scribe, clock, tellers, self.segment_of,
            self._take_history, self._take_tenants, self.enforcement.pushed, f"{self.started_us}-{os.getpid()}",
        )  # fmt: skip
        self.listening = Listening(
            dict(loaded.config.sensors), loaded.config.capture.processes, self._log_start, self._tell_one,
            self._last_packet, tellers.event, clock.now_us,
        )  # fmt: skip
        self._taking = 0  # whose batch is at hand
        self._lapse_due_us = 0
        self.register.rule_of = self.rule_of
        self.rulings.isolations_per_hour = lambda: self.knowledge.settings.isolations_per_hour
        self.rulings.is_ours = lambda address: any(render_address(one) == address for one, _ in self.own)
        self.rollback = Rollback(
            self.register, self.rulings, tellers, lambda: self.knowledge.settings, self._known_clients,
            lambda address: self.devices.machine_of(address), lambda: self.enforcement.wake(),
        )  # fmt: skip
        self.intake.on_client = self.rollback.met
        self.intake.on_domain = self._tie
        self.sensing = Sensing(loaded.config.capture.processes, self.start_of, self.take)
        self.whose = Whose()
        self.volume: VolumeWatch | None = None  # who counts bytes, in the daemon
        self.intake.on_reached = self._reached
        self._seen_us = 0
        self._told_offset_us = clock.offset_us
        self.stale = False  # what rests on entries and remedies is to be made anew with the next tick
        self._renewing = asyncio.Lock()
        self.on_canary: Callable[[str, int, int], None] = _nothing
        self.on_interfaces: Callable[[], None] = _nothing
        self.on_arrival: Callable[[tuple[Indicator, ...] | None], None] = _nothing
        self._due_s = 0  # when the next indicator comes into force that says when

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
            self.campaigns.pivots.reject(one, other)
        self.campaigns.number_after(found.last.get("I", 0), found.last.get("C", 0))
        self.intake.leaks = {row.incident.id: row.leaks for row in found.incidents if row.leaks}
        for row in found.decisions:
            self.register.add(from_row(row))
        for watch in found.watches:
            watched = WatchSum(watch.first_us, watch.last_us, watch.attempts, watch.leaks)
            self.intake.restore_watch(watch.decision_id, watch.client, watched)
        self.remedies = {id_: _networks(texts) for id_, texts in remedies.items() if id_ in self.register.by_id}
        self.allowing.restore(found.lifted, found.allowed)
        _, lapsed, _ = known.parse_entries(found.lapsed, self.loaded.texts, self.knowledge.intel.protected)
        self.lapsing.restore(lapsed, self.started_us)
        self._stand_in_mode()

    async def look_around(self) -> None:
        """Read interfaces, addresses, gateways, resolvers, time servers, feeds' hosts and who is logged in. Raises
        OSError when the kernel does not tell."""
        found = await asyncio.to_thread(read_surroundings)
        feeds = {feed_host(one): f"feed {name}" for name, one in self.config.feeds.items() if one.enabled}
        self.named.want({**feeds, **dict.fromkeys(found.time_servers, "time server")})
        depended_on = [*found.protected(), *self.named.addresses()]
        own = {*found.own_addresses(), *found.gateways(), *found.resolvers}
        resolvers = frozenset((*found.own_addresses(), *found.resolvers))
        self.devices.exclude(frozenset(link.mac for link in found.links))
        choice = lan_interfaces(found.links, found.addresses, found.routes)
        self.judged = choice.explain()
        interfaces = self.config.capture.interfaces or choice.names
        if interfaces != self.interfaces:
            self._capture_on(interfaces)
        faces = {link.ifindex for link in found.links if link.name in self.interfaces}
        lan = tuple(sorted({(one.network, one.length, "") for one in found.addresses if one.ifindex in faces}))
        self.whose = Whose(frozenset(found.own_addresses()), NetworkTable(lan), self.knowledge.segments)
        never = tuple((address, 8 * len(address), what) for address, what in depended_on)
        around = Surroundings(never, resolvers, lan)
        if around == self.around:
            return
        self.around = around
        self.own = tuple(sorted((address, 8 * len(address)) for address in own))
        await self.renew()

    def _capture_on(self, interfaces: tuple[str, ...]) -> None:
        """Other interfaces face the hosts now: packet processes begin anew there. None at all is no reason to stop
        looking where we look: an interface that is down comes back."""
        if not set(interfaces) - set(self.interfaces):
            return  # one that went away may come back: its packet processes wait for it
        if self.interfaces:
            log.warning("capturing on %s (before: %s)", ", ".join(interfaces), ", ".join(self.interfaces))
            self.sensing.renew()
        self.interfaces = interfaces
        self.on_interfaces()

    async def start_enforcing(self) -> None:
        """Begin to put decisions into force. Raises AdapterError."""
        reported = await self.ledger.read(targets.load_enforcements, "nftables")
        self._keep_apart()
        await self.enforcement.start(self.site.strongest, self.config, self.knowledge.intel, self.own, reported)

    # -- packet processes

    def start_of(self, number: int) -> tuple[Start, list[Order]]:
        """The first orders of packet process `number`."""
        stride = self.config.capture.processes + 1
        start = start_order(
            self.config,
            number,
            self.interfaces,
            self.fanout_group,
            self.processors,
            self._next_number(number + 1, stride),
            self.clock.offset_us,
            intel=self.knowledge.intel,
            settings=self.knowledge.settings,
            enforced=self.site.strongest == "enforce",
            fast_lane=self.site.strongest == "enforce",
            sensors=self.listening.is_wanted,
        )
        following: list[Order] = [self.rulings.standing()]
        if self.tenants:
            following.append(Learn(self.tenants))
        return start, following

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
        good content (`reload_problems`). Raises ConfigError, and all stays."""
        before = self.knowledge
        changed: list[str] = []
        try:
            config = self.config
            if not only_lists:
                found = await asyncio.to_thread(known.load_own_config, self.path)
                config, changed = _until_restart(config, found), _needs_restart(config, found)
            loaded = await asyncio.to_thread(known.load_texts, self.path, config)
        except ConfigError as error:
            self.reloads["refused"] += 1
            self.reload_problems = [str(one) for one in error.problems[:MAX_PROBLEMS]]
            raise
        self.reloads["ok"] += 1
        self.reload_problems = [str(one) for one in loaded.kept[:MAX_PROBLEMS]]
        for problem in self.reload_problems:
            log.error("%s; only the last good content, if any, is in force", problem)
        mode_before, modes_before = self.loaded.config.mode, dict(self.loaded.config.modes)
        self.loaded = loaded
        self.loaded_us = self.clock.now_us()
        await self.on_loaded()
        await self.renew()
        if dict(loaded.config.modes) != modes_before:
            await self.set_mode(self.mode, loaded.config.modes)
        if loaded.config.mode not in (mode_before, self.mode):
            await self.set_mode(loaded.config.mode)
            changed_mode = [f"the mode is {self.mode}"]
        else:
            changed_mode = []
        now = self.knowledge
        count, earlier = now.intel.index.size, before.intel.index.size
        lines = [f"{count:,} indicators ({earlier:,} before)", *changed_mode]
        if changed:
            lines.append(f"in force only after a restart: {', '.join(changed)}")
        return lines

    async def renew(self) -> None:
        """Lists, entries, mode or surroundings changed: everything that rests on them, anew."""
        async with self._renewing:  # the last to ask must be the last to have its way
            await self._renew()

    async def _renew(self) -> None:
        before = self.knowledge.intel
        while True:
            said = (self.loaded, tuple(self.entries), self.around, self.mode, self.fed, dict(self.modes))
            self.knowledge = await asyncio.to_thread(known.combine, *said)
            if said == (self.loaded, tuple(self.entries), self.around, self.mode, self.fed, self.modes):
                break  # else somebody said more meanwhile, and what rests on that would be taken for unlisted
        intel = self.knowledge.intel
        armed = self.site.strongest == "enforce"
        swap = Swap(intel, self.knowledge.settings, armed, armed)
        self.tell(swap)
        self.listening.tell(swap)
        new = known.arrived(before, intel, self.clock.now_us() // 1_000_000)
        if self.allowing.is_due(self.clock.now_us()):
            new = None  # what it let be until now may be listed
        self.on_arrival(new)
        self._due_s = min(
            (one.added_s for one in intel.index.pending_after(self.clock.now_us() // 1_000_000)), default=0
        )
        self.allowing.look(intel, self.site.strongest)
        self._keep_apart()
        self.whose = Whose(self.whose.own, self.whose.lan, self.knowledge.segments)
        if self.volume is not None:
            self.volume.swap(volume_settings(self.config), own_prefixes(intel.allowances.nat64))
        remedies = tuple(network for networks in self.remedies.values() for network in networks)
        await self.enforcement.protect(intel, self.own, remedies)
        self.enforcement.wake()

    async def set_mode(self, mode: str, modes: Mapping[str, str] | None = None) -> None:
        """Another mode, and others of segments if given. Raises AdapterError when the kernel cannot be used; the modes
        stay then."""
        before = self.mode, self.modes
        self.mode = mode
        self.modes = dict(modes) if modes is not None else self.modes
        self._keep_apart()
        try:
            await self.enforcement.change_mode(self.site.strongest)
        except BaseException:
            self.mode, self.modes = before
            self._keep_apart()
            await self.enforcement.change_mode(self.site.strongest)
            raise
        self._stand_in_mode()
        await self.renew()
        self.tell(self.rulings.standing())
        self.enforcement.force()

    def _stand_in_mode(self) -> None:
        """Decisions that were made in another mode stand in this one from now on."""
        changed = stand_in(self.register, self.site)
        for mode, ids in changed.by_mode.items():
            self.scribe.put(decisions.change_mode, ids, mode, changed.proposed, changed.active)

    async def add_entry(self, kind: str, text: str, actor: str, reason: str, expires_us: int, act: Any) -> Entry:
        """A line of an operator's, on disk when this returns. Raises StoreError."""
        entry = await self.ledger.run(entries.add, kind, text, actor, reason, self.clock.now_us(), expires_us, act)
        self.entries = [one for one in self.entries if (one.kind, one.text) != (kind, text)]
        self.entries.append(entry)
        return entry

    # -- time

    async def tick(self) -> None:
        """Once a second."""
        delta_us = self.clock.follow()
        if delta_us:
            log.warning("the wall clock was set by %.1f s; what was to last an hour lasts an hour", delta_us / 1e6)
            self.register.shift(delta_us)
            self.allowing.shift(delta_us)
            self.scribe.put(targets.shift_deadlines, delta_us)
            moved = [
                one._replace(expires_us=one.expires_us + delta_us) if one.expires_us else one for one in self.entries
            ]
            self.entries = [_added_before(one, self.clock.now_us()) for one in moved]
            self.stale = True
        if abs(self.clock.offset_us - self._told_offset_us) > DRIFT_US:
            self._told_offset_us = self.clock.offset_us
            self.tell(Step(self.clock.offset_us))
            self.listening.tell(Step(self.clock.offset_us))
        self._listen()
        self.rulings.expire()
        now_us = self.clock.now_us()
        if now_us >= self._lapse_due_us:
            self._lapse_due_us = now_us + LAPSE_US
            for lapsed in self.rulings.lapse(self.config.policy.lapse_h * HOUR_US):
                tell(self.tellers, lapsed)
        self.lapsing.follow(self.knowledge.intel.allowances, now_us)
        in_force = [one for one in self.entries if not 0 < known.ends_s(one) <= now_us // 1_000_000]
        if len(in_force) < len(self.entries):
            self.entries = in_force
            self.stale = True
        if self.stale or self.allowing.is_due(now_us):
            self.stale = False
            await self.renew()
        if 0 < self._due_s <= now_us // 1_000_000:
            self._take_effect(now_us // 1_000_000)
        if now_us - self._seen_us >= SEEN_US:
            self._seen_us = now_us
            self.scribe.put(meta.seen, now_us)
        self.tellers.tick()

    def _listen(self) -> None:
        """How other sensors stand, and what of theirs is history by now."""
        if self.listening.is_wanted:
            self.listening.agreed(self.sensing.told("heard"))
            self._keep_history(self.listening.tick())

    def _take_effect(self, now_s: int) -> None:
        """Indicators that said when they come into force have."""
        index = self.knowledge.intel.index
        due_s, pending = self._due_s, index.pending_after(self._due_s - 1)
        self.on_arrival(tuple(one for one in pending if due_s <= one.added_s <= now_s))
        self._due_s = min((one.added_s for one in pending if one.added_s > now_s), default=0)

    # -- from elsewhere

    def is_enforcing(self) -> bool:
        """Whether decisions in force are in the kernel."""
        return self.site.strongest != "monitor"

    @property
    def site(self) -> Site:
        """Segments and the modes that they are under."""
        key = (self.loaded, self.mode, tuple(self.modes.items()))
        if self._site is None or self._site[0][0] is not key[0] or self._site[0][1:] != key[1:]:
            self._site = key, site_of(self.config, self.mode, self.modes)
        return self._site[1]

    def rules(self) -> list[Rule]:
        """What the kernel should hold."""
        return self.register.rules(self.site.strongest, self._is_apart)

    def _is_apart(self, decision: InForce, target: Target) -> bool:
        return is_apart(self.site, decision, target)

    def _keep_apart(self) -> None:
        """What enforcing segments block holds for no other."""
        self.enforcement.is_apart = self._is_apart
        self.enforcement.unarmed = unarmed(self.config, self.site)

    def rule_of(self, name: str) -> PolicyRule | None:
        """A rule of the policy in force, None when it has none of that name."""
        return self.knowledge.settings.rules_in_force().named(name)

    def _known_clients(self) -> int:
        return sum(one["clients"] for one in self.sensing.rows())

    def segment_of(self, client: bytes) -> str:
        """The name of the segment that a client is in, "" for none."""
        return self.knowledge.segments.longest(client) or "" if client else ""

    def domain_of(self, campaign_id: str) -> str:
        """What a campaign is about, for people."""
        campaign = self.campaigns.campaigns.get(campaign_id)
        return campaign.keys[0].rpartition(" ")[2] if campaign is not None and campaign.keys else ""

    def _ended(self, decision_id: str) -> None:
        self.intake.forget(decision_id)
        if self.remedies.pop(decision_id, None) is not None:
            self.scribe.put(meta.forget, f"remedies {decision_id}")
            self.stale = True

    def remember_remedies(self, decision_id: str, texts: Sequence[str]) -> None:
        """What an isolated host may still reach, for as long as that decision stands. Takes effect with `renew`."""
        self.remedies[decision_id] = _networks(texts)
        self.scribe.put(meta.put, f"remedies {decision_id}", ",".join(texts))

    def _written(self) -> None:
        self.enforcement.wake()

    def _merged(self, older: str, younger: str) -> None:
        self.scribe.put(incidents.merge_campaigns, older, younger)
        self.scribe.put(incidents.put_campaign, copy_campaign(self.campaigns.campaigns[older]))

    def _folded(self, kept: Incident, gone: Incident) -> None:
        """One device is behind two incidents: the ledger keeps the older, and the event log is told."""
        self.scribe.put(incidents.fold_incidents, kept.id, gone.id)
        self.tellers.event(self.intake.told(gone, self.segment_of(gone.client)))

    def _proposed(self, campaign: Campaign) -> None:
        """A campaign has a candidate, which waits for a person."""
        self.scribe.put(incidents.put_campaign, copy_campaign(campaign))

    def follow_devices(self) -> None:
        """Once in a few seconds: incidents whose device is known by now, and new addresses of isolated devices."""
        changed = self.campaigns.recognise()
        if changed:
            self.intake.write(one for one in changed if one.id in self.campaigns.incidents)
        isolated = [(id_, parse_address(text)) for text, id_ in self.register.isolated().items()]
        found = follow_isolated(self.devices, isolated, self.clock.now_us() - DEVICE_NOW_US) if isolated else {}
        for id_, addresses in found.items():
            self.cover(self.register.by_id[id_], addresses)

    def cover(self, decision: InForce, addresses: Sequence[bytes]) -> None:
        """An isolated device has further addresses."""
        more = [Target(CLIENT, render_address(one)) for one in addresses if (one, 8 * len(one)) not in self.own]
        taken = self.register.isolated()
        more = [target for target in more if target.value not in taken]
        if more:
            self.rulings.extend(decision, more, "egressd", "devices", "the isolated device has this address now")
            self.enforcement.wake()

    def _tie(self, domain: str) -> None:
        """Campaigns whose names lived on one address are one."""
        intel = self.knowledge.intel
        now_us = self.clock.now_us()

        def is_everybodys(address: bytes) -> bool:
            if intel.protected.why(address) or intel.shared.why(address):
                return True
            return intel.allowances.never_blocks("", address, now_us // 1_000_000) is not None

        self.address_history.tie(self.campaigns, domain, now_us, is_everybodys)

    def remember_tenants(self, tenants: tuple[tuple[str, bytes, int], ...]) -> None:
        """Passive DNS of before the start."""
        self.tenants = tenants
        for domain, address, ts_us in tenants:
            self.address_history.lives_at(domain, address, ts_us)

    def _nameless(self) -> Iterator[tuple[bytes, bytes]]:
        """Devices with an incident and without a name, each with its address of now."""
        for incident in self.campaigns.incidents.values():
            mac = parse_mac(incident.device)
            if mac and not self.devices.name_of(mac):
                yield mac, (incident.addresses or [incident.client])[-1]

    def _dropped(self, flows: list[tuple[int, FlowKey]]) -> None:
        """What the kernel stopped goes to the packet processes: they know which of it the tap has seen."""
        self.tell(Dropped(tuple(flows)))

    def _reached(self, client: bytes, domain: str, address: bytes, ts_us: int) -> None:
        """A listed domain was reached there: history tells only of others."""
        if self.volume is not None:
            self.volume.learn([(client, domain, address, ts_us)])

    def _log_start(self, sources: tuple[LogSource, ...]) -> LogStart:
        directory = self.loaded.base_dir / self.config.state.directory
        return LogStart(sources, str(marks_path(directory)), self.clock.offset_us, self.knowledge.intel)

    def _tell_one(self, number: int, order: Order) -> None:
        self.sensing.tell_one(number, order)

    def _last_packet(self) -> int:
        return max((one["last_us"] for one in self.sensing.interfaces()), default=0)

    def _take_history(self, rows: list[HistoryRow]) -> None:
        if self.volume is not None:
            self.volume.learn((row[0], row[1], row[3], row[5]) for row in rows if row[1] and row[3])
        self.listening.seen(self._taking, rows)
        self._keep_history(rows)

    def _keep_history(self, rows: list[HistoryRow]) -> None:
        room = HISTORY_WAITING - len(self.history_waiting)
        self.history_waiting += rows[:room]
        self.history_lost += max(0, len(rows) - room)

    def _take_tenants(self, number: int, rows: tuple[tuple[str, bytes, int], ...]) -> None:
        if len(self.sensing.processes) > 1:
            self.tell(Learn(rows), but=number)
        if self.volume is not None:
            self.volume.learn((b"", *row) for row in rows)
        for domain, address, ts_us in rows:
            self.address_history.lives_at(domain, address, ts_us)
        for domain in dict.fromkeys(domain for domain, _, _ in rows):
            self._tie(domain)
        self.tenants_waiting += rows[: max(0, HISTORY_WAITING - len(self.tenants_waiting))]


def _added_before(entry: Entry, now_us: int) -> Entry:
    """A line counts from when it was added: where the clock was set back since then, from now on."""
    return entry._replace(created_us=now_us) if entry.created_us > now_us else entry


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    found = [network for network in map(parse_network, texts) if network is not None]
    return tuple((first_address(*one), one[1]) for one in found)


def _needs_restart(now: Config, found: Config) -> list[str]:
    """Sections that a reload does not change, and that are others in the file than what is in force."""
    return [name for name in AT_START if getattr(now, name) != getattr(found, name)]


def _until_restart(now: Config, found: Config) -> Config:
    """The file's configuration with the sections as they are in force: who asks for an option of them must not be told
    what nothing here goes by yet."""
    return replace(found, **{name: getattr(now, name) for name in AT_START})


def address_text(packed: bytes) -> str | None:
    """An address for a screen."""
    return render_address(packed) if packed else None


def _nothing(*_: object) -> None:
    """Nobody waits for that yet."""


async def _nobody() -> None:
    """Nobody waits for that yet."""


def open_events(config: Config, base_dir: Path) -> EveLog | None:
    """The event log that the configuration names, not started."""
    return EveLog(str(base_dir / config.state.events)) if config.state.events else None
