"""The engine of a packet process that runs for months: lists, protected addresses and blocks change under it.

What is decided elsewhere (by a person, by another packet process, before a restart) comes in by `adopt`; what ended
elsewhere goes by `end` and `rest`. Lists and allowances are swapped whole by `swap`, which looks again at every block.
Replay runs the plain engine; everything that is seen takes the same way through both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from egressd.detect.blocks import MAX_REFUSED, Block
from egressd.detect.calendar import Calendar
from egressd.detect.casework import NOBODY
from egressd.detect.contacts import SAME_CONNECTION_US
from egressd.detect.correlator import Correlator
from egressd.detect.coverage import E1, E2
from egressd.detect.engine import Engine
from egressd.detect.gathering import GatheringHistory
from egressd.detect.history import PastContact
from egressd.detect.hunt import LOOKED_UP, hunt, recall, sieve_for
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.resolutions import own_prefixes
from egressd.detect.review import KEPT, Free, kept_targets, rests_on_list, review
from egressd.detect.rules import PAIR, is_share
from egressd.intel.layered import AnyIndex, in_memory
from egressd.intel.networks import parse_address
from egressd.intel.protected import Protected
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    REPLY,
    UDP,
    Event,
    FlowKey,
    Indicator,
    Match,
    Observation,
    Sighting,
    Target,
)
from egressd.wire.dissector import Dissector
from egressd.wire.table import RecentTable

MICROSECONDS: Final = 1_000_000
DNS_PORT: Final = 53
# Twice that long a client counts among the known ones: IPv6 addresses come and go (RFC 8981), some thousand a day.
CLIENTS_TURN_US: Final = 43_200 * MICROSECONDS
MAX_SPOKEN: Final = 4_096  # samples that wait to be told
TOLD_BY_KERNEL: Final = 16_384  # conversations that only the kernel's log told of
CANARY_ZONE: Final = ".canary.egressd.invalid"  # RFC 6761 section 6.4: never a real name
CANARY_SOURCE: Final = bytes((192, 0, 2, 53))  # TEST-NET-1, RFC 5737: nobody's
CANARY_TARGET: Final = bytes((192, 0, 2, 54))
ASKED_FROM_OUTSIDE: Final = 4_096  # questions to servers of ours, which they answer at once
MAX_CANARIES: Final = 64  # in a second, an interface each: anybody can send their like, and each goes to the kernel
# Of what a change gives to do, so much is done at once: all of it where lists and history are small. A hundred blocks
# or two thousand contacts take some ten milliseconds.
STEPS_AT_ONCE: Final = 16
LOOKED_AT: Final = 16  # blocks in one step
BY_KERNEL: Final = "kernel"  # the note of a connection that the kernel's log told of
_DONE: Final = object()


class Standing(NamedTuple):
    """A decision that stands, as the core knows it: `addresses` are packed, `pairs` are (client, address), `resting`
    are (address, evidence) that may come back with a try. `enforced` when the kernel holds it. `mode` is the one under
    which it was made, "" for the strongest of the site; `waits` when a person has to say yes; `final` when policy does
    not change it by itself. `rule` made it, when `client` met what it is about."""

    id: str
    target: Target
    match: Match
    created_us: int
    campaign: str
    enforced: bool
    addresses: tuple[bytes, ...]
    pairs: tuple[tuple[bytes, bytes], ...]
    resting: tuple[tuple[bytes, str], ...]
    mode: str = ""
    waits: bool = False
    final: bool = False
    rule: str = ""
    client: bytes = b""


class LiveEngine(Engine):
    """An engine whose lists and blocks change while it runs. Times are those of its clock, like packets'."""

    def __init__(
        self,
        intel: Intel,
        settings: PolicySettings,
        on_event: Callable[[Event], None],
        *,
        enforced: bool,
        first_number: int = 1,
        stride: int = 1,
        sensors: bool = False,
    ) -> None:
        """Decisions are numbered `first_number`, then every `stride`-th; the rest is the engine's."""
        super().__init__(intel, settings, on_event, enforced=enforced, sensors=sensors)
        self.gathering = GatheringHistory()
        self.history = self.gathering
        self.blocks.number_from(first_number, stride)
        self.resolutions.learned = []
        self.intel = intel
        self._before: AnyIndex = intel.index  # what was in force when the change began that is going on
        self._change: Iterator[None] | None = None  # what the last swap has not looked at yet
        self._hunts: list[Iterator[None]] = []  # for indicators that came into force by their date
        self.packets: Dissector | None = None  # where observations come from, if they come from packets
        self.knows_ways = True  # whether `packets.incoming` tells; of what a mirror port copies it does not
        self.spoken: dict[tuple[bytes, bytes, bool], int] = {}  # (MAC, client, attached) -> when, for the core
        self.spoken_beyond = 0
        self._turned_us = 0
        self._told_by_kernel: RecentTable[FlowKey, int] = RecentTable(TOLD_BY_KERNEL)
        self._asked_from_outside: RecentTable[FlowKey, int] = RecentTable(ASKED_FROM_OUTSIDE)
        self.canary: Callable[[str, int], None] | None = None  # told of our own canaries: (name, when)
        self._canary_second = 0
        self._canaries = 0  # within it
        self.arrived_us = 0  # when what another sensor tells of came here, while that is judged

    def _is_from_outside(self, seen: Observation) -> bool:
        """Of what a client sends: whether it went to the hosts' side, from no address of theirs to one of theirs."""
        packets = self.packets
        if packets is None or seen.note == BY_KERNEL:
            return False
        if not self.knows_ways:
            return super()._is_from_outside(seen)
        if seen.kind in (DNS_ANSWER, REPLY) or packets.came_in(seen.flow.proto):
            return False
        is_outsiders = self.policy.site.comes_in(seen.flow)
        if is_outsiders and seen.kind == DNS_QUERY:
            self._asked_from_outside.put(seen.flow, seen.ts_us)
        return is_outsiders

    def _answer(self, seen: Observation) -> None:
        """A host may speak with its server in what looks like answers, to nobody's question."""
        flow = seen.flow
        packets = self.packets
        if flow.proto == UDP and self.knows_ways and packets is not None and packets.came_in(UDP):
            if self.policy.site.comes_in(flow) and flow not in self._asked_from_outside:
                sent = FlowKey(UDP, flow.server, flow.server_port, flow.client, flow.client_port)
                self._speaks(seen, sent)
        super()._answer(seen)

    def _spoke(self, mac: bytes, client: bytes, ts_us: int, is_attached: bool) -> None:
        """The core knows all devices; a sample that finds no room comes again within SAMPLE_US."""
        super()._spoke(mac, client, ts_us, is_attached)
        key = (mac, client, is_attached)
        if key in self.spoken or len(self.spoken) < MAX_SPOKEN:
            self.spoken[key] = ts_us
        else:
            self.spoken_beyond += 1

    def take_spoken(self, limit: int) -> list[tuple[bytes, bytes, bool, int]]:
        """At most `limit` of who sent whose frames since this was asked last, oldest first."""
        spoken = self.spoken
        keys = list(islice(spoken, limit))
        return [(*key, spoken.pop(key)) for key in keys]

    def _question(self, seen: Observation) -> None:
        """Canaries are nobody's traffic. What asks a server for such a name, or for others beside it, is no canary."""
        if seen.name.endswith(CANARY_ZONE) and seen.flow.client == CANARY_SOURCE and seen.flow.server == CANARY_TARGET:
            second = seen.ts_us // MICROSECONDS
            if second != self._canary_second:
                self._canary_second = second
                self._canaries = 0
            self._canaries += 1
            if self.canary is not None and self._canaries <= MAX_CANARIES:
                self.canary(seen.name, seen.ts_us)
            return
        super()._question(seen)

    def _is_evidence(self, answer: Observation) -> bool:
        """Not what a host of ours sends under the resolver's address, or a part of it: on the hosts' side of a gateway
        every answer to them goes out. Nor what comes inside another packet, which whoever sends that writes as he likes
        (on a mirror port all may come so: VXLAN, ERSPAN). Nor what comes from another port than the resolver's."""
        packets = self.packets
        proto = answer.flow.proto
        if answer.flow.server_port != DNS_PORT or (packets is not None and packets.came_in(proto)):
            return False
        if packets is not None and self.knows_ways and packets.is_carried(proto):
            return False
        return super()._is_evidence(answer)

    def dropped(self, flow: FlowKey, ts_us: int) -> None:
        """The kernel's log says that it stopped the first packet of a conversation. What the tap has seen is known;
        what it has not (a lost packet, the gateway's own) is a try all the same."""
        if self.contacts.knows(flow, ts_us):
            return
        self._told_by_kernel.put(flow, ts_us)
        self.observe(Observation(FLOW, ts_us, 0, flow, "", "", None, 0, BY_KERNEL))

    def _reply(self, seen: Observation) -> None:
        """A host may send the answer of a blocked server itself, so that the block seems not to hold: on a gateway what
        answers from outside goes to the hosts."""
        packets = self.packets
        if packets is None or not self.knows_ways or not packets.came_in(seen.flow.proto):
            super()._reply(seen)

    def _begins(self, seen: Observation) -> None:
        if len(self._told_by_kernel) and seen.note != BY_KERNEL:
            told_us = self._told_by_kernel.pop(seen.flow)
            if told_us is not None and abs(seen.ts_us - told_us) <= SAME_CONNECTION_US:
                return  # the kernel was quicker than the ring: one and the same packet
        super()._begins(seen)

    def _met(self, client: bytes, ts_us: int, mac: bytes = b"") -> None:
        """Remembered where all packet processes come together (runtime/core.py)."""

    def _decide(self, sighting: Sighting) -> None:
        seen_us = self._now(sighting)
        super()._decide(sighting)
        sighting.ts_us = seen_us

    def _meet_alone(self, block: Block, sighting: Sighting) -> None:
        seen_us = self._now(sighting)
        super()._meet_alone(block, sighting)
        sighting.ts_us = seen_us

    def _extend(self, sighting: Sighting, address: bytes, evidence: str) -> None:
        seen_us = self._now(sighting)
        super()._extend(sighting, address, evidence)
        sighting.ts_us = seen_us

    def _now(self, sighting: Sighting) -> int:
        """It is decided on now, whenever a log says that it was seen: lines of many hours would have the budgets of as
        many. Returns when it was seen."""
        seen_us = sighting.ts_us
        sighting.ts_us = max(seen_us, self.arrived_us)
        return seen_us

    def _ran_into(self, block: Block, sighting: Sighting) -> None:
        """Counted where all packet processes come together (runtime/rulings.py)."""

    def tick(self, ts_us: int) -> None:
        """Time has passed without a packet."""
        if ts_us >= self._calendar.next_us:
            self._indicators_change(ts_us)
        if ts_us >= self.behaviour.openings.due_us:
            self.judge_nameless(ts_us)
        if not 0 <= ts_us - self._turned_us < CLIENTS_TURN_US:
            self._turned_us = ts_us
            evicted = self.clients.evicted
            self.clients.rotate()
            self.machines.rotate()
            self.clients.evicted = evicted  # who was quiet for so long was not pushed out by others

    # -- what others decided

    def adopt(self, standing: Standing, ts_us: int = 0) -> None:
        """A decision that was made elsewhere. One of our own with the same target becomes that one. With `ts_us`, which
        is now, what is new of one that is known counts as covered from now on only, and an address where an innocent
        name was seen meanwhile is given free: what stands again may rest on evidence of weeks ago."""
        blocks = self.blocks
        block = blocks.by_target.get(standing.target)
        since_us = ts_us if block is not None and ts_us else standing.created_us
        if ts_us:
            since_us = min(since_us, ts_us)  # the clock was set back since then
        is_new = block is None
        if block is None:
            block = blocks.add(standing.target, standing.match, standing.created_us, standing.id)
            self._calendar.watch(block)
        elif block.id != standing.id:
            self.watch.rename(block.id, standing.id)
            blocks.rename(block, standing.id)
            self._calendar.watch(block)
        block.match = standing.match
        block.campaign = block.campaign or standing.campaign
        blocks.enforce(block, standing.enforced, ts_us)
        block.mode = standing.mode or self.policy.site.strongest
        block.waits = standing.waits
        block.final = standing.final
        block.ends_us = 0  # the core sees to that
        blocks.keep_alone(block, standing.client if is_share(standing.rule) else b"")
        rule = self.policy.rules.named(standing.rule)
        if rule is not None:  # of one that is gone the block stays as it was
            block.narrow = rule.scope == PAIR
        addresses = [address for address in standing.addresses if address not in block.addresses]
        pairs = [one for one in standing.pairs if one not in block.pairs]
        for address in addresses:
            blocks.add_address(block, address, since_us)
        for client, address in pairs:
            blocks.add_pair(block, client, address, since_us)
        machine = self.devices.machine_of(standing.client) if standing.client else b""
        self.policy.count_elsewhere(block, is_new, len(addresses), since_us, machine)
        block.resting.update(standing.resting[: max(0, MAX_REFUSED - len(block.resting))])
        if ts_us:
            for address in dict.fromkeys((*addresses, *(address for _, address in pairs))):
                self._give_free(Observation(FLOW, ts_us, 0, NOBODY, "", "", None, 0, ""), address)
            self._free_shared(block, ts_us)

    def end(self, block_id: str) -> None:
        """A decision was lifted elsewhere."""
        block = self.blocks.by_id.get(block_id)
        if block is not None:
            self.blocks.remove(block)

    def rest(self, block_id: str, target: Target) -> None:
        """An address or pair was forgotten because nobody tried it: a try brings it back."""
        block = self.blocks.by_id.get(block_id)
        if block is None:
            return
        client_text, _, address_text = target.value.rpartition(">")
        address = parse_address(address_text)
        evidence = E1
        if target.kind == "address":
            evidence = E2
            if address in block.addresses:
                self.blocks.withdraw_address(block, address)
        elif (parse_address(client_text), address) in block.pairs:
            self.blocks.withdraw_pair(block, parse_address(client_text), address)
        if len(block.resting) < MAX_REFUSED:
            block.resting[address] = evidence

    # -- lists, allowances and protected addresses change

    def swap(self, intel: Intel, settings: PolicySettings, enforced: bool, ts_us: int) -> None:
        """Everything that text files and people say, anew. Blocks that are no longer called for are lifted, and whoever
        contacted what is listed only now is found: here from what was not told yet, the rest by the core from disk."""
        self.tick(ts_us)
        if self._change is None:
            self._before = self.intel.index
        ignored = self.correlator.clients_ignored
        self.intel = intel
        self._suffixes = intel.suffixes
        self.enforced = enforced
        self.resolutions.nat64 = own_prefixes(intel.allowances.nat64)
        self.blocks.know_nat64(self.resolutions.nat64)
        self.correlator = Correlator(intel.index, intel.allowances, self.resolutions, intel.suffixes)
        self.correlator.clients_ignored = ignored
        self.policy.replace(settings, intel.protected, intel.allowances, intel.shared)
        self.blind.resolvers = intel.resolvers
        self.behaviour.replace(intel.behaviour, intel.suffixes, intel.guard, intel.protected, intel.resolvers)
        now_s = ts_us // MICROSECONDS
        self._calendar = Calendar(intel.index.pending_after(now_s))
        self._change = self._follow_up(ts_us)
        self.carry_on(STEPS_AT_ONCE)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to carry on with."""
        return self._change is not None or bool(self._hunts)

    def carry_on(self, steps: int) -> None:
        """Do some more of what changed lists gave to do; a step takes a quarter of a millisecond in pure Python."""
        for _ in range(steps):
            if self._change is not None:
                if next(self._change, _DONE) is _DONE:
                    self._change = None
            elif self._hunts:
                if next(self._hunts[0], _DONE) is _DONE:
                    del self._hunts[0]
            else:
                return

    def _follow_up(self, ts_us: int) -> Iterator[None]:
        """What a swap has to look at again, in steps: every block, then every contact that matched nothing before. A
        swap during that begins anew, and what was new to the first is new to it."""
        before = self._before
        for number, block in enumerate(list(self.blocks.by_id.values()), 1):
            if self.blocks.by_id.get(block.id) is block:
                self._look_again(block, ts_us)
            if number % LOOKED_AT == 0:
                yield

        def is_new(one: Indicator) -> bool:
            return not before.holds(one)

        index = self.intel.index
        sieve = None
        short = in_memory(before, index)
        if short is not None:  # what is new is among few: often nothing is
            arrived: list[Indicator] = []
            for start in range(0, len(short), LOOKED_UP):
                arrived += [one for one in short[start : start + LOOKED_UP] if is_new(one)]
                yield
            if not arrived:
                return
            sieve = sieve_for(arrived)
        yield from hunt(self, is_new, ts_us, sieve)

    def _arrive(self, arrived: set[Indicator], arrival_us: int) -> None:
        self._hunts.append(hunt(self, arrived.__contains__, arrival_us, sieve_for(arrived)))
        self.carry_on(STEPS_AT_ONCE)

    def recall(self, rows: Iterable[PastContact], ts_us: int) -> None:
        """Contacts of the past with what is listed by now, found on disk by the core."""
        for row in rows:
            recall(self, row, ts_us)

    def protect(self, protected: Protected, ts_us: int) -> None:
        """What may never be blocked has changed: blocked addresses that are protected now are given free."""
        intel = self.intel
        self.intel = intel = Intel(
            intel.index, intel.suffixes, intel.allowances, protected, intel.resolvers, intel.shared, intel.guard,
            intel.behaviour,
        )  # fmt: skip
        self.behaviour.replace(intel.behaviour, intel.suffixes, intel.guard, protected, intel.resolvers)
        self.policy.replace(self.policy.settings, protected, intel.allowances, intel.shared)
        for block in list(self.blocks.by_id.values()):
            self._free_kept(block, ts_us)

    def _look_again(self, block: Block, ts_us: int) -> None:
        if not rests_on_list(block.target, block.match, bool(block.sole)):
            self._free_kept(block, ts_us)
            return
        intel = self.intel
        found = self._match_target(block.target, ts_us)
        verdict = review(
            block.target, block.match, list(block.addresses), list(block.pairs), found, intel.allowances,
            intel.protected, ts_us // MICROSECONDS, self.policy.kept,
        )  # fmt: skip
        if verdict.match is None:
            self._lift(block, ts_us, verdict.reason, verdict.rule)
            return
        block.match = verdict.match
        self._calendar.watch(block)
        self.policy.forget_refusals(block, ts_us // MICROSECONDS)
        if block.target.kind == "pair":
            self._free_shared(block, ts_us)
            if self.blocks.by_id.get(block.id) is block:
                self._free_kept(block, ts_us)
            return
        self._free(block, verdict.free, ts_us)
        self._free_shared(block, ts_us)

    def _free_shared(self, block: Block, ts_us: int) -> None:
        """Give free what `block` covers in ranges that many share."""
        for decision in self.policy.free_shared(block, _because(block, ts_us)):
            self._on_event(decision)

    def _free_kept(self, block: Block, ts_us: int) -> None:
        """Give free what `block` covers and may no longer."""
        intel = self.intel
        now_s = ts_us // MICROSECONDS
        name = block.target.value if block.target.kind in ("registered_domain", "host", "exact") else ""
        self.policy.forget_refusals(block, now_s)
        free = kept_targets(
            name, list(block.addresses), list(block.pairs), intel.allowances, intel.protected, now_s, self.policy.kept
        )
        for target, reason, rule in free:
            if target == block.target:
                self._lift(block, ts_us, reason, "protected" if rule == KEPT else rule)
                return
        self._free(block, free, ts_us)

    def _free(self, block: Block, free: Iterable[Free], ts_us: int) -> None:
        for target, reason, rule in free:
            if target == block.target:
                continue  # is held by its own list line
            client, _, address = target.value.rpartition(">")
            if client:
                self.blocks.withdraw_pair(block, parse_address(client), parse_address(address))
            else:
                self.blocks.withdraw_address(block, parse_address(address))
            self._on_event(self.policy.withdraw(block, _because(block, ts_us), (target,), reason, rule))

    def _lift(self, block: Block, ts_us: int, reason: str, rule: str) -> None:
        self._on_event(self.policy.lift(block, _because(block, ts_us), reason, rule))

    # -- passive DNS

    def learn(self, tenants: Iterable[tuple[str, bytes, int]]) -> None:
        """(registered domain, address, when) that other processes saw, or that was seen before a restart."""
        for domain, address, ts_us in tenants:
            self.resolutions.lives_at(domain, address, ts_us, True)
            self.behaviour.knew(domain, ts_us)
        self.resolutions.learned = []

    def take_learned(self) -> list[tuple[str, bytes, int]]:
        """Tenants that are new since this was asked last."""
        learned = self.resolutions.learned or []
        self.resolutions.learned = []
        return learned


def _because(block: Block, ts_us: int) -> Sighting:
    """A sighting that stands for nobody's traffic: a person or a list decided."""
    return Sighting(ts_us, 0, NOBODY, "", block.match, FLOW, "", False, 0, ts_us, ts_us)
