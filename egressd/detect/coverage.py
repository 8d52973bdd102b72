"""What a block may cover: which addresses, for everybody or for one client, and what it gives free again.

Names that a client sends are accusations: they justify its own way to that address. An address is blocked for everybody
only when an answer to an outstanding question ties it to a listed name, it is not protected and nobody else lives
there: a host can say any name to any server, and would cut everybody off from there. Every refusal is a decision too,
with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from egressd.detect.blocks import MAX_ADDRESSES, MAX_REFUSALS, MAX_REFUSED, Block, Blocks
from egressd.detect.budgets import ALL_ADDRESSES, IN_ALL, BlockBudget, over_budget
from egressd.detect.kept import Kept, tell
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.resolutions import place_of
from egressd.detect.sharing import (
    BY_COMMAND,
    BY_NAME_AND_HOST,
    BY_NAME_ONLY,
    held_in_ranges,
    is_persons,
    leave_to_person,
    listed_in_range,
    listed_too_wide,
    shared_with,
    target_of,
    why_shared,
)
from egressd.detect.site import APPROVE
from egressd.intel.allowances import Allowances
from egressd.intel.networks import on_the_wire, render_address
from egressd.intel.protected import Protected
from egressd.intel.shared_ranges import NO_SHARED_RANGES, SharedRanges
from egressd.model import Decision, Sighting, Target
from egressd.units import HOUR_US, SECOND_US

E0: Final = "E0"
E1: Final = "E1"
E2: Final = "E2"


class Coverage:
    """The blocks in force, and the checks that no rule can turn off."""

    def __init__(
        self,
        settings: PolicySettings,
        blocks: Blocks,
        protected: Protected,
        allowances: Allowances,
        shared: SharedRanges = NO_SHARED_RANGES,
    ) -> None:
        self.settings = settings
        self.untold = 0  # alerts beyond the bound of what is remembered as told
        self._blocks = blocks
        self._protected = protected
        self._allowances = allowances
        self._shared = shared
        self.kept = Kept(allowances)
        self._bound_told_us: dict[bool, int] = {}  # as Block.budget_told_us, of the bounds over all blocks
        self.site = settings.site()
        self.rules = settings.rules_in_force()
        self.ignored = 0  # sightings that a rule ignores
        self._budget = BlockBudget()
        self.over_share = 0  # blocks for one client alone, which had caused its share of blocks
        self._isolations = BlockBudget()
        self._isolated: set[Target] = set()
        self._alerted: set[tuple[Target, str]] = set()

    def trusts(self, server: bytes) -> bool:
        """Whether answers of the DNS server at `server` can tie an address to a name for everybody: a client may ask
        any server, one of its own too, and let it answer with whom it wants to see cut off."""
        if self.settings.resolvers:
            return server in self.settings.resolvers
        return self.site.strongest != "enforce"

    def _why_shared(self, address: bytes, others: Sequence[str]) -> str:
        return why_shared(self._shared, address, others, self.settings.shared_after)

    def is_settled(self, block: Block, address: bytes, client: bytes) -> bool:
        """Whether `extend` has nothing more to say of an address that `client` goes to."""
        if address in block.refused:
            return True
        goes_to = on_the_wire(address)
        return goes_to in block.addresses and (not self.site.is_narrow(client) or (client, goes_to) in block.pairs)

    def extend(
        self,
        block: Block,
        sighting: Sighting,
        address: bytes,
        evidence: str,
        others: Sequence[str],
        machine: bytes = b"",
    ) -> Decision | None:
        """Whether `block` may also cover `address`, which `evidence` ties to it; `others` are the co-tenants; `machine`
        is what the client counts as, b"" itself. None when that was settled before."""
        client = sighting.flow.client
        now_s = sighting.ts_us // SECOND_US
        goes_to = on_the_wire(address)
        if self.is_settled(block, address, client):
            return None
        for_some = None
        narrow = block.narrow or bool(block.sole) or self.site.is_narrow(client)
        wide = evidence != E1 and not others and not narrow and goes_to not in block.given_back
        wide = wide and len(block.given_back) < MAX_REFUSED  # a name whose addresses were given back so often is shared
        if wide:
            for_some = self.kept.for_some(sighting.name, goes_to, now_s)
            wide = for_some is None
        if not wide and ((client, goes_to) in block.pairs or client in self.settings.resolvers):
            return None  # a resolver asks for everybody: kept from a name server, it would answer nobody
        if self._blocks.is_crowded(goes_to, b"" if wide else client):
            return None  # it is closed already, by many
        allowed = self._allowances.allows("", goes_to, client, now_s)
        if allowed is not None and allowed.client:
            return None  # this client may go there; of others nothing is said
        refusal = self._address_refusal(sighting, address, others)
        if refusal is None and allowed is not None:
            refusal = tell(allowed), allowed.kind
        if refusal is not None:
            return self._refuse(block, sighting, address, *refusal, evidence)
        hourly = self.settings.addresses_per_indicator_hour
        over = over_budget(block, self._blocks, b"" if wide else client, machine, hourly, sighting.ts_us)
        if over:
            return self._tell_budget(block, sighting, address, wide, evidence, over)
        if wide:
            self._blocks.add_address(block, goes_to, sighting.ts_us)
            target = Target("address", render_address(goes_to))
            reason = f"{sighting.name} resolved to it, asked and answered"
            if evidence == E0:
                reason = f"packets to the listed {sighting.match.indicator.value} carry it"
            return self._verdict(sighting, block.id, "extend", (target,), reason, "address", evidence)
        self._blocks.add_pair(block, client, goes_to, sighting.ts_us)
        reason = f"{sighting.name or render_address(address)} named by this client only"
        if others:
            reason = f"{BY_NAME_AND_HOST}: {shared_with(others)}"
        elif for_some is not None:
            reason = f"{tell(for_some)} is for {for_some.client}; so this client only"
        elif evidence != E1 and not narrow:
            reason = "given back before; so this client only"
        return self._verdict(sighting, block.id, "extend", (pair(client, goes_to),), reason, "pair", evidence)

    def _address_refusal(self, sighting: Sighting, address: bytes, others: Sequence[str]) -> tuple[str, str] | None:
        """(reason, rule) when nobody may be kept from an address."""
        why = self._protected.why(address)
        if why:
            return why, "protected"
        kept = self._allowances.never_blocks(sighting.name, address, sighting.ts_us // SECOND_US)
        if kept is not None:
            return tell(kept), "never-block"
        why = self._why_shared(address, others)
        return (f"{BY_NAME_ONLY}: {why}", "shared") if why else None

    def reconsider(self, sighting: Sighting, address: bytes, others: dict[str, list[str]]) -> list[Decision]:
        """An innocent name appeared on a blocked address: give the address free, the names stay blocked; from
        `shared_after` names on give free the pairs too. `others` has the co-tenants by id of each block concerned."""
        decisions: list[Decision] = []
        place = place_of(address, self._blocks.nat64)
        for block in self._blocks.holders(address):
            names = others.get(block.id)
            if not names:
                continue
            if block.target.kind == "address":
                if len(names) >= self.settings.shared_after and not is_persons(block):
                    decisions.append(self.lift(block, sighting, leave_to_person(shared_with(names)), "shared"))
                continue
            addresses = [held for held in block.addresses if place_of(held, self._blocks.nat64) == place]
            for held in addresses:
                self._blocks.withdraw_address(block, held)
                block.given_back.add(held)
            targets = tuple(Target("address", render_address(held)) for held in addresses)
            reason = f"{names[-1]} was seen on it too: an innocent site would be cut off"
            decisions.append(self.withdraw(block, sighting, targets, reason))
        for block in dict.fromkeys(block for block, _ in self._blocks.pairs_at(address)):
            names = others.get(block.id, [])
            if len(names) < self.settings.shared_after:
                continue
            if block.sole and block.target.kind == "pair":
                if is_persons(block):
                    continue
                decisions.append(self.lift(block, sighting, leave_to_person(shared_with(names)), "shared"))
                continue
            pairs = [(client, held) for client, held in block.pairs if place_of(held, self._blocks.nat64) == place]
            for client, held in pairs:
                self._blocks.withdraw_pair(block, client, held)
            reason = f"{BY_NAME_ONLY}: {shared_with(names)}"
            if len(block.refused) < MAX_REFUSED:
                block.refused[address] = reason
            decisions.append(self.withdraw(block, sighting, tuple(pair(*one) for one in pairs), reason))
        return decisions

    def is_everybodys(self, address: bytes, ts_us: int) -> bool:
        """Whether who uses an address says nothing: it is protected, in a range that many share, or never blocked by
        an allowance (a sinkhole, where names of many campaigns end)."""
        if self._protected.why(address) or self._shared.why(address):
            return True
        return self._allowances.never_blocks("", address, ts_us // SECOND_US) is not None

    def forget_refusals(self, block: Block, now_s: int) -> None:
        """What people say has changed: addresses that `block` was refused for what holds no more may be asked about
        again. Whether other sites still live there is told by who asks."""
        for address in list(block.refused):
            kept = self._allowances.never_blocks("", address, now_s) or self._allowances.allows("", address, b"", now_s)
            if kept is None and not self._protected.why(address) and not self._shared.why(address):
                del block.refused[address]

    def free_shared(self, block: Block, sighting: Sighting) -> list[Decision]:
        """Shared ranges or lines have changed, or `block` came from elsewhere: give free what it covers there, and what
        only a person blocks."""
        why = listed_in_range(self._shared, block)
        if why:
            return [self.lift(block, sighting, leave_to_person(why), "shared")]
        why = listed_too_wide(block, self._allowances.nat64)
        if why:
            return [self.lift(block, sighting, why, "too-wide")]
        freed: list[Decision] = []
        for why, held in held_in_ranges(self._shared, block).items():
            for client, address in held:
                if client:
                    self._blocks.withdraw_pair(block, client, address)
                else:
                    self._blocks.withdraw_address(block, address)
            targets = tuple(target_of(client, address) for client, address in held)
            freed.append(self.withdraw(block, sighting, targets, f"{BY_NAME_ONLY}: {why}"))
        return freed

    def lapse(self, block: Block, sighting: Sighting) -> Decision:
        """The indicator of `block` is no longer in force: so is the block, with all that was added to it."""
        indicator = block.match.indicator
        reason = f"{indicator.value} ({indicator.source}:{indicator.line}) has expired"
        return self.lift(block, sighting, reason, "expired")

    def lift(self, block: Block, sighting: Sighting, reason: str, rule: str) -> Decision:
        """`block` ends, with all that was added to it."""
        self._blocks.remove(block)
        return self.withdraw(block, sighting, (block.target,), reason, rule, E0)

    def withdraw(
        self,
        block: Block,
        sighting: Sighting,
        targets: tuple[Target, ...],
        reason: str,
        rule: str = "shared",
        evidence: str = E2,
    ) -> Decision:
        """The verdict that `targets`, which `block` no longer covers, are given free."""
        sighting.match = block.match
        sighting.campaign = block.campaign
        return self._verdict(sighting, block.id, "withdraw", targets, reason, rule, evidence)

    # -- budgets

    def count_elsewhere(self, block: Block, is_new: bool, addresses: int, ts_us: int, machine: bytes = b"") -> None:
        """Another packet process made `block` (`is_new`), which `machine` caused, or added `addresses` to it, at
        `ts_us`: the budgets are those of all processes together. What people do takes nothing from them."""
        if block.match.indicator.source == BY_COMMAND:
            return
        if is_new:
            self._budget.take(machine, ts_us, bool(block.sole))
        if addresses:
            block.recent_us.setdefault(ALL_ADDRESSES, []).extend([ts_us] * min(addresses, MAX_ADDRESSES))

    def _tell_budget(
        self, block: Block, sighting: Sighting, address: bytes, wide: bool, evidence: str, reason: str
    ) -> Decision | None:
        """Once an hour: a flux of addresses is not to become a flood of events. A bound over all blocks is told once
        for all of them."""
        told = self._bound_told_us if reason.endswith(IN_ALL) else block.budget_told_us
        told_us = told.get(wide)
        if told_us is not None and 0 <= sighting.ts_us - told_us < HOUR_US:
            return None
        told[wide] = sighting.ts_us
        target = Target("address", render_address(address)) if wide else pair(sighting.flow.client, address)
        return self._verdict(sighting, block.id, "refuse", (target,), reason, "budget", evidence)

    # -- verdicts

    def _refuse(
        self, block: Block, sighting: Sighting, address: bytes, reason: str, rule: str, evidence: str
    ) -> Decision | None:
        if len(block.refused) >= MAX_REFUSED:
            return None  # refused all the same, but an answer of thousands is not to become thousands of events
        block.refused[address] = reason
        if len(block.refused) > MAX_REFUSALS:
            return None
        target = Target("address", render_address(address))
        return self._verdict(sighting, block.id, "refuse", (target,), reason, rule, evidence)

    def _verdict(
        self,
        sighting: Sighting,
        id_: str,
        action: str,
        targets: tuple[Target, ...],
        reason: str,
        rule: str,
        evidence: str,
    ) -> Decision:
        block = self._blocks.by_id.get(id_) if action == "extend" else None
        mode = self.site.mode_of(sighting.flow.client)
        if block is not None and block.waits:
            mode = APPROVE  # what is added to a proposal waits with it
        return Decision(
            id=id_,
            ts_us=sighting.ts_us,
            number=sighting.number,
            action=action,
            targets=targets,
            reason=reason,
            rule=rule,
            evidence=evidence,
            mode=mode,
            match=sighting.match,
            client=sighting.flow.client,
            name=sighting.name,
            campaign=sighting.campaign,
        )


def pair(client: bytes, address: bytes) -> Target:
    """One client's way to one address."""
    return target_of(client, address)
