"""An engine that runs for months: lists, protected addresses and blocks change under it.

What is decided elsewhere (by a person, by another packet process, before a restart) comes in by `adopt`; what ended
elsewhere goes by `end` and `rest`. Lists and allowances are swapped whole by `swap`, which looks again at every block.
Replay runs the plain engine; everything that is seen takes the same way through both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from egressd.detect.blocks import MAX_REFUSED, Block
from egressd.detect.calendar import Calendar
from egressd.detect.casework import NOBODY
from egressd.detect.correlator import Correlator
from egressd.detect.coverage import E1, E2
from egressd.detect.engine import Engine
from egressd.detect.history import PastContact
from egressd.detect.hunt import LOOKED_UP, hunt, recall, sieve_for
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.resolutions import own_prefixes
from egressd.detect.review import KEPT, Free, kept_targets, rests_on_list, review
from egressd.detect.rules import ASK, PAIR, is_share
from egressd.intel.layered import AnyIndex, in_memory
from egressd.intel.networks import parse_address
from egressd.intel.protected import Protected
from egressd.model import FLOW, Event, Indicator, Match, Observation, Sighting, Target
from egressd.units import HOUR_US, SECOND_US

# Twice that long a client counts among the known ones: IPv6 addresses come and go (RFC 8981), some thousand a day.
CLIENTS_TURN_US: Final = 12 * HOUR_US
# Of what a change gives to do, so much is done at once: all of it where lists and history are small. A hundred blocks
# or two thousand contacts take some ten milliseconds.
STEPS_AT_ONCE: Final = 16
LOOKED_AT: Final = 16  # blocks in one step
_DONE: Final = object()


class Standing(NamedTuple):
    """A decision that stands, as the core knows it: `addresses` are packed, `pairs` are (client, address), `resting`
    are (address, evidence) that may come back with a try. `enforced` when the kernel holds it. `mode` is the one under
    which it was made, "" for the strongest of the site; `waits` when a person has to say yes; `final` when policy does
    not change it by itself. `rule` made it, when `client` met what it is about. `began_us` is when it first stood,
    0: as `created_us`. What was away and is back takes nothing from the budgets of this hour."""

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
    began_us: int = 0


class ChangingEngine(Engine):
    """An engine whose lists and blocks change while it runs. Times are those of its clock, like packets'."""

    def __init__(
        self,
        intel: Intel,
        settings: PolicySettings,
        on_event: Callable[[Event], None],
        *,
        enforced: bool,
        sensors: bool = False,
    ) -> None:
        """See Engine."""
        super().__init__(intel, settings, on_event, enforced=enforced, sensors=sensors)
        self.resolutions.learned = []
        self.intel = intel
        self._before: AnyIndex = intel.index  # what was in force when the change began that is going on
        self._change: Iterator[None] | None = None  # what the last swap has not looked at yet
        self._hunts: list[Iterator[None]] = []  # for indicators that came into force by their date
        self._turned_us = 0

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
            block.asked = rule.outcome == ASK
        addresses = [address for address in standing.addresses if address not in block.addresses]
        pairs = [one for one in standing.pairs if one not in block.pairs]
        for address in addresses:
            blocks.add_address(block, address, since_us)
        for client, address in pairs:
            blocks.add_pair(block, client, address, since_us)
        machine = self.devices.machine_of(standing.client) if standing.client else b""
        counted_us = min(since_us, standing.began_us) if is_new and standing.began_us else since_us
        self.policy.count_elsewhere(block, is_new, len(addresses), counted_us, machine)
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
        now_s = ts_us // SECOND_US
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
            intel.protected, ts_us // SECOND_US, self.policy.kept,
        )  # fmt: skip
        if verdict.match is None:
            self._lift(block, ts_us, verdict.reason, verdict.rule)
            return
        block.match = verdict.match
        self._calendar.watch(block)
        self.policy.forget_refusals(block, ts_us // SECOND_US)
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
        now_s = ts_us // SECOND_US
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
