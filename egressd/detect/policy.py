"""Policy: what a sighting justifies (DESIGN section 6).

Names that a client sends are accusations: they justify a block by name, and of that client's way to that address. An
address is blocked for everybody only when an answer to an outstanding question ties it to a listed name, it is not
protected and not shared (egressd.detect.sharing). Every refusal is a decision too, with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from egressd.detect.blocks import MAX_ADDRESSES, MAX_BLOCKS, MAX_PAIRS, MAX_REFUSED, Block, Blocks, main_target
from egressd.detect.kept import Kept, tell
from egressd.detect.resolutions import on_the_wire, place_of
from egressd.detect.sharing import (
    BY_COMMAND,
    BY_LINE,
    BY_NAME_AND_HOST,
    BY_NAME_ONLY,
    chose_address,
    held_in_ranges,
    leave_to_person,
    listed_in_range,
    shared_with,
    target_of,
    why_shared,
    why_too_wide,
)
from egressd.intel.allowances import Allowances
from egressd.intel.networks import parse_network, render_address
from egressd.intel.protected import Protected
from egressd.intel.shared_ranges import NO_SHARED_RANGES, SharedRanges
from egressd.model import Decision, Match, Sighting, Target

HOUR_US: Final = 3_600_000_000
PAIRS_PER_HOUR: Final = 256  # of one block, over all clients: senders' addresses can be forged, so clients can
E0: Final = "E0"
E1: Final = "E1"
E2: Final = "E2"
_ALL_ADDRESSES: Final = b""  # keys of a block's budget beside the clients, which are 4 or 16 bytes
_ALL_PAIRS: Final = b"*"
_IN_ALL: Final = " in all"  # how the reason of a bound over all blocks ends


class PolicySettings(NamedTuple):
    """What an operator may set of the default policy. `resolvers` are the packed addresses of the network's own: whose
    answers can be evidence for everybody. While none is known every server's are, except in mode enforce."""

    mode: str = "monitor"
    block_confidence: int = 50  # a sighting by a less certain indicator alerts only
    shared_after: int = 3  # other registered domains on an address: from here on not even a pair is blocked
    addresses_per_indicator_hour: int = 16
    blocks_per_hour: int = 200
    resolvers: frozenset[bytes] = frozenset()
    ask_score: int = 80  # behaviour that is at least so sure is put before a person; less alerts
    alert_only: frozenset[str] = frozenset()  # sources of behaviour that never ask: "behaviour:" and the detector


class Policy:
    """The default policy over the blocks in force."""

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
        self._recent_us: list[int] = []
        self._budget_told_us = -HOUR_US
        self._bound_told_us: dict[bool, int] = {}  # as Block.budget_told_us, of the bounds over all blocks
        self._alerted: set[tuple[Target, str]] = set()

    def trusts(self, server: bytes) -> bool:
        """Whether answers of the DNS server at `server` can tie an address to a name for everybody: a client may ask
        any server, one of its own too, and let it answer with whom it wants to see cut off."""
        if self.settings.resolvers:
            return server in self.settings.resolvers
        return self.settings.mode != "enforce"

    def decide(self, sighting: Sighting, others: Sequence[str] = ()) -> Decision | None:
        """The verdict on a sighting whose target is not blocked yet; None when it was given before. `others` are the
        co-tenants of the address that matched, if one did."""
        match = sighting.match
        target = main_target(match)
        indicator = match.indicator
        if match.level == "behaviour":
            asks = indicator.confidence >= self.settings.ask_score and indicator.source not in self.settings.alert_only
            action = "ask" if asks else "alert"
            reason = f"behaviour, score {indicator.confidence}: {indicator.ref}"
            return self._alert(sighting, target, reason, f"behaviour-{action}", action)
        refusal = self._refusal(sighting, target, others)
        if refusal is not None:
            reason, rule = refusal
            return self._alert(sighting, target, reason, rule)
        self._recent_us = [t for t in self._recent_us if sighting.ts_us - t < HOUR_US]
        if len(self._recent_us) >= self.settings.blocks_per_hour or len(self._blocks) >= MAX_BLOCKS:
            if 0 <= sighting.ts_us - self._budget_told_us < HOUR_US:
                return None  # one alert: the sightings and incidents tell the rest
            self._budget_told_us = sighting.ts_us
            full = len(self._blocks) >= MAX_BLOCKS
            reason = f"over {MAX_BLOCKS} blocks{_IN_ALL}" if full else ""
            reason = reason or f"over {self.settings.blocks_per_hour} blocks in an hour"
            return self._verdict(sighting, "", "alert", (target,), reason, "budget", E1)
        self._recent_us.append(sighting.ts_us)
        block = self._blocks.add(target, match, sighting.ts_us)
        block.campaign = sighting.campaign
        if target.kind == "address":
            self._blocks.add_address(block, sighting.address, sighting.ts_us)
        reason = f"{_how(match)} {indicator.value} ({indicator.source}:{indicator.line})"
        if indicator.narrowed and indicator.kind == "domain":
            reason += f"; narrowed: {indicator.narrowed}"
        evidence = E0 if match.level == "address" else E1
        return self._verdict(sighting, block.id, "block", (target,), reason, f"level-{match.level}", evidence)

    def _refusal(self, sighting: Sighting, target: Target, others: Sequence[str]) -> tuple[str, str] | None:
        """(reason, rule) when a sighting only alerts."""
        indicator = sighting.match.indicator
        where = f"{indicator.source}:{indicator.line}"
        now_s = sighting.ts_us // 1_000_000
        kept = self._allowances.never_blocks(sighting.name, sighting.address, now_s)
        if kept is not None:
            return tell(kept), "never-block"
        kept = self.kept.inside(target, now_s)
        if kept is not None:
            return f"{tell(kept)} lies in {target.value}; a person must decide", kept.kind
        if indicator.confidence < self.settings.block_confidence:
            return (
                f"{where} has confidence {indicator.confidence}, under {self.settings.block_confidence}",
                "confidence",
            )
        if lists_guarded_site(sighting.match):
            return f"{where} lists a guarded site whole: {indicator.narrowed}; a person must decide", "guarded"
        network = parse_network(indicator.value) if target.kind in ("address", "network") else None
        if network is not None:
            why = self._protected.why_network(*network) or self._protected.why(sighting.address)
            if why:
                return f"{target.value} is protected: {why}", "protected"
            why = self._why_shared(sighting.address, others) or self._shared.why_network(*network)
            if why and not chose_address(indicator):
                return leave_to_person(why), "shared"
            why = why_too_wide(*network)
            if why and not chose_address(indicator):
                return why, "too-wide"
        return None

    def _why_shared(self, address: bytes, others: Sequence[str]) -> str:
        return why_shared(self._shared, address, others, self.settings.shared_after)

    def is_settled(self, block: Block, address: bytes) -> bool:
        """Whether `extend` has nothing more to say of an address, whoever goes there."""
        return on_the_wire(address) in block.addresses or address in block.refused

    def extend(
        self, block: Block, sighting: Sighting, address: bytes, evidence: str, others: Sequence[str]
    ) -> Decision | None:
        """Whether `block` may also cover `address`, which `evidence` ties to it; `others` are the co-tenants. None when
        that was settled before."""
        client = sighting.flow.client
        now_s = sighting.ts_us // 1_000_000
        goes_to = on_the_wire(address)
        if self.is_settled(block, address):
            return None
        for_some = None
        wide = evidence == E2 and not others and goes_to not in block.given_back
        wide = wide and len(block.given_back) < MAX_REFUSED  # a name whose addresses were given back so often is shared
        if wide:
            for_some = self.kept.for_some(sighting.name, goes_to, now_s)
            wide = for_some is None
        if not wide and ((client, goes_to) in block.pairs or client in self.settings.resolvers):
            return None  # a resolver asks for everybody: kept from a name server, it would answer nobody
        allowed = self._allowances.allows("", goes_to, client, now_s)
        if allowed is not None and allowed.client:
            return None  # this client may go there; of others nothing is said
        refusal = self._address_refusal(sighting, address, others)
        if refusal is None and allowed is not None:
            refusal = tell(allowed), allowed.kind
        if refusal is not None:
            return self._refuse(block, sighting, address, *refusal, evidence)
        over = self._over_budget(block, b"" if wide else client, sighting.ts_us)
        if over:
            return self._tell_budget(block, sighting, address, wide, evidence, over)
        if wide:
            self._blocks.add_address(block, goes_to, sighting.ts_us)
            target = Target("address", render_address(goes_to))
            reason = f"{sighting.name} resolved to it, asked and answered"
            return self._verdict(sighting, block.id, "extend", (target,), reason, "address", evidence)
        self._blocks.add_pair(block, client, goes_to, sighting.ts_us)
        reason = f"{sighting.name or render_address(address)} named by this client only"
        if others:
            reason = f"{BY_NAME_AND_HOST}: {shared_with(others)}"
        elif for_some is not None:
            reason = f"{tell(for_some)} is for {for_some.client}; so this client only"
        elif evidence == E2:
            reason = "given back before; so this client only"
        return self._verdict(sighting, block.id, "extend", (pair(client, goes_to),), reason, "pair", evidence)

    def _address_refusal(self, sighting: Sighting, address: bytes, others: Sequence[str]) -> tuple[str, str] | None:
        """(reason, rule) when nobody may be kept from an address."""
        why = self._protected.why(address)
        if why:
            return why, "protected"
        kept = self._allowances.never_blocks(sighting.name, address, sighting.ts_us // 1_000_000)
        if kept is not None:
            return tell(kept), "never-block"
        why = self._why_shared(address, others)
        return (f"{BY_NAME_ONLY}: {why}", "shared") if why else None

    def reconsider(self, sighting: Sighting, address: bytes, others: dict[str, list[str]]) -> list[Decision]:
        """An innocent name appeared on a blocked address: give the address free, the names stay blocked; from
        `shared_after` names on give free the pairs too. `others` has the co-tenants by id of each block concerned."""
        decisions: list[Decision] = []
        place = place_of(address)
        for block in self._blocks.holders(address):
            names = others.get(block.id)
            if not names:
                continue
            if block.target.kind == "address":
                if len(names) >= self.settings.shared_after and not chose_address(block.match.indicator):
                    decisions.append(self.lift(block, sighting, leave_to_person(shared_with(names)), "shared"))
                continue
            addresses = [held for held in block.addresses if place_of(held) == place]
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
            pairs = [(client, held) for client, held in block.pairs if place_of(held) == place]
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
        return self._allowances.never_blocks("", address, ts_us // 1_000_000) is not None

    def replace(
        self,
        settings: PolicySettings,
        protected: Protected,
        allowances: Allowances,
        shared: SharedRanges = NO_SHARED_RANGES,
    ) -> None:
        """What people say has changed. What was told of it before is told again where it still holds."""
        self.settings = settings
        self._protected = protected
        self._allowances = allowances
        self._shared = shared
        self.kept = Kept(allowances)
        self._alerted.clear()

    def forget_refusals(self, block: Block, now_s: int) -> None:
        """What people say has changed: addresses that `block` was refused for what holds no more may be asked about
        again. Whether other sites still live there is told by who asks."""
        for address in list(block.refused):
            kept = self._allowances.never_blocks("", address, now_s) or self._allowances.allows("", address, b"", now_s)
            if kept is None and not self._protected.why(address) and not self._shared.why(address):
                del block.refused[address]

    def free_shared(self, block: Block, sighting: Sighting) -> list[Decision]:
        """Shared ranges have changed, or `block` came from elsewhere: give free what it covers there."""
        why = listed_in_range(self._shared, block)
        if why:
            return [self.lift(block, sighting, leave_to_person(why), "shared")]
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

    def count_elsewhere(self, block: Block, is_new: bool, addresses: int, ts_us: int) -> None:
        """Another packet process made `block` (`is_new`), or added `addresses` to it, at `ts_us`: the budgets are those
        of all processes together. What people do takes nothing from them."""
        if block.match.indicator.source == BY_COMMAND:
            return
        if is_new:
            self._recent_us.append(ts_us)
        if addresses:
            block.recent_us.setdefault(_ALL_ADDRESSES, []).extend([ts_us] * min(addresses, MAX_ADDRESSES))

    def _over_budget(self, block: Block, client: bytes, ts_us: int) -> str:
        """Which budget one more address (`client` empty) or pair of `client` would exceed, in words; "" when it is
        within all of them, and then it is counted."""
        hourly = self.settings.addresses_per_indicator_hour
        if client:
            if self._blocks.pairs >= MAX_PAIRS:
                return f"over {MAX_PAIRS} pairs{_IN_ALL}"
            keys = [(client, hourly, f"over {hourly} addresses of {render_address(client)} in an hour")]
            keys.append((_ALL_PAIRS, PAIRS_PER_HOUR, f"over {PAIRS_PER_HOUR} pairs in an hour"))
        else:
            if self._blocks.addresses >= MAX_ADDRESSES:
                return f"over {MAX_ADDRESSES} addresses{_IN_ALL}"
            keys = [(_ALL_ADDRESSES, hourly, f"over {hourly} addresses in an hour")]
        if len(block.recent_us) > 2 * PAIRS_PER_HOUR:
            block.recent_us = {k: times for k, times in block.recent_us.items() if ts_us - times[-1] < HOUR_US}
        for key, limit, reason in keys:
            recent = [t for t in block.recent_us.get(key, ()) if ts_us - t < HOUR_US]
            if recent:
                block.recent_us[key] = recent
            if len(recent) >= limit:
                return reason
        for key, _, _ in keys:
            block.recent_us.setdefault(key, []).append(ts_us)
        return ""

    def _tell_budget(
        self, block: Block, sighting: Sighting, address: bytes, wide: bool, evidence: str, reason: str
    ) -> Decision | None:
        """Once an hour: a flux of addresses is not to become a flood of events. A bound over all blocks is told once
        for all of them."""
        told = self._bound_told_us if reason.endswith(_IN_ALL) else block.budget_told_us
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
        target = Target("address", render_address(address))
        return self._verdict(sighting, block.id, "refuse", (target,), reason, rule, evidence)

    def _alert(
        self, sighting: Sighting, target: Target, reason: str, rule: str, action: str = "alert"
    ) -> Decision | None:
        if (target, rule) in self._alerted:
            return None
        if len(self._alerted) >= MAX_BLOCKS:
            self.untold += 1
            return None
        self._alerted.add((target, rule))
        return self._verdict(sighting, "", action, (target,), reason, rule, E1)

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
        return Decision(
            id=id_,
            ts_us=sighting.ts_us,
            number=sighting.number,
            action=action,
            targets=targets,
            reason=reason,
            rule=rule,
            evidence=evidence,
            mode=self.settings.mode,
            match=sighting.match,
            client=sighting.flow.client,
            name=sighting.name,
            campaign=sighting.campaign,
        )


def pair(client: bytes, address: bytes) -> Target:
    """One client's way to one address."""
    return target_of(client, address)


def lists_guarded_site(match: Match) -> bool:
    """Whether a list names a whole site that the guard keeps, and no person narrowed that very line."""
    indicator = match.indicator
    if not indicator.narrowed or indicator.value != match.registered_domain:
        return False
    return not indicator.narrowed.startswith(BY_LINE)


def _how(match: Match) -> str:
    if match.level == "sibling":
        return f"a sibling under {match.registered_domain} of"
    if match.level == "host":
        return "at or below the listed"
    return f"matches the listed {match.indicator.kind}"
