"""Policy: what a sighting justifies (DESIGN section 6).

Names that a client sends are accusations: they justify a block by name, and of that client's way to that address. An
address is blocked for everybody only when an answer to an outstanding question ties it to a listed name, it is not
protected and no other registered domain was seen on it. Every refusal is a decision too, with its reason.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressd.detect.blocks import MAX_BLOCKS, Block, Blocks, main_target
from egressd.intel.allowances import Allowances
from egressd.intel.networks import render_address
from egressd.intel.protected import Protected
from egressd.model import Decision, Match, Sighting, Target

HOUR_US: Final = 3_600_000_000
E0: Final = "E0"
E1: Final = "E1"
E2: Final = "E2"


class PolicySettings(NamedTuple):
    """What an operator may set of the default policy."""

    mode: str = "monitor"
    block_confidence: int = 50  # a sighting by a less certain indicator alerts only
    shared_after: int = 3  # other registered domains on an address: from here on not even a pair is blocked
    addresses_per_indicator_hour: int = 16
    blocks_per_hour: int = 200


class Policy:
    """The default policy over the blocks in force."""

    def __init__(self, settings: PolicySettings, blocks: Blocks, protected: Protected, allowances: Allowances) -> None:
        self.settings = settings
        self._blocks = blocks
        self._protected = protected
        self._allowances = allowances
        self._recent_us: list[int] = []
        self._alerted: set[tuple[Target, str]] = set()

    def decide(self, sighting: Sighting) -> Decision | None:
        """The verdict on a sighting whose target is not blocked yet; None when it was given before."""
        match = sighting.match
        target = main_target(match)
        indicator = match.indicator
        where = f"{indicator.source}:{indicator.line}"
        kept = self._allowances.never_blocks(sighting.name, sighting.address, sighting.ts_us // 1_000_000)
        if kept is not None:
            reason = f"never-block {kept.value} ({kept.source}:{kept.line}: {kept.reason})"
            return self._alert(sighting, target, reason, "never-block")
        if indicator.confidence < self.settings.block_confidence:
            reason = f"{where} has confidence {indicator.confidence}, under {self.settings.block_confidence}"
            return self._alert(sighting, target, reason, "confidence")
        if indicator.narrowed and indicator.value == match.registered_domain:
            reason = f"{where} lists a guarded site whole: {indicator.narrowed}; a person must decide"
            return self._alert(sighting, target, reason, "guarded")
        if target.kind == "address":
            why = self._protected.why(sighting.address)
            if why:
                return self._alert(sighting, target, f"{target.value} is protected: {why}", "protected")
        self._recent_us = [t for t in self._recent_us if sighting.ts_us - t < HOUR_US]
        if len(self._recent_us) >= self.settings.blocks_per_hour or len(self._blocks) >= MAX_BLOCKS:
            return self._alert(sighting, target, f"over {self.settings.blocks_per_hour} blocks in an hour", "budget")
        self._recent_us.append(sighting.ts_us)
        block = self._blocks.add(target, match, sighting.ts_us)
        block.campaign = sighting.campaign
        if target.kind == "address":
            self._blocks.add_address(block, sighting.address, sighting.ts_us)
        reason = f"{_how(match)} {indicator.value} ({where})"
        if indicator.narrowed:
            reason += f"; narrowed: {indicator.narrowed}"
        evidence = E0 if match.level == "address" else E1
        return self._verdict(sighting, block.id, "block", (target,), reason, f"level-{match.level}", evidence)

    def extend(
        self, block: Block, sighting: Sighting, address: bytes, evidence: str, others: list[str]
    ) -> Decision | None:
        """Whether `block` may also cover `address`, which `evidence` ties to it; `others` are the co-tenants. None when
        that was settled before."""
        client = sighting.flow.client
        if address in block.addresses or address in block.refused:
            return None
        wide = evidence == E2 and not others
        if (client, address) in block.pairs and not wide:
            return None
        text = render_address(address)
        why = self._protected.why(address)
        if why:
            return self._refuse(block, sighting, address, text, why, "protected")
        kept = self._allowances.never_blocks("", address, sighting.ts_us // 1_000_000)
        if kept is not None:
            reason = f"never-block {kept.value} ({kept.source}:{kept.line}: {kept.reason})"
            return self._refuse(block, sighting, address, text, reason, "never-block")
        if len(others) >= self.settings.shared_after:
            reason = f"shared: {len(others)} other registered domains seen on it, among them {others[0]}"
            return self._refuse(block, sighting, address, text, reason, "shared")
        block.recent_us = [t for t in block.recent_us if sighting.ts_us - t < HOUR_US]
        if len(block.recent_us) >= self.settings.addresses_per_indicator_hour:
            if block.budget_told_us >= 0 and sighting.ts_us - block.budget_told_us < HOUR_US:
                return None  # a flux of addresses is not to become a flood of events
            block.budget_told_us = sighting.ts_us
            limit = self.settings.addresses_per_indicator_hour
            return self._refuse(block, sighting, address, text, f"over {limit} addresses in an hour", "budget")
        block.recent_us.append(sighting.ts_us)
        if wide:
            self._blocks.add_address(block, address, sighting.ts_us)
            target = Target("address", text)
            reason = f"{sighting.name} resolved to it, asked and answered"
            return self._verdict(sighting, block.id, "extend", (target,), reason, "address", evidence)
        self._blocks.add_pair(block, client, address, sighting.ts_us)
        reason = f"{sighting.name or text} named by this client only"
        if others:
            reason = f"also seen on it: {', '.join(others)}; so this client only"
        return self._verdict(
            sighting,
            block.id,
            "extend",
            (Target("pair", f"{render_address(client)}>{text}"),),
            reason,
            "pair",
            evidence,
        )

    def reconsider(self, sighting: Sighting, address: bytes, others: list[str]) -> Decision | None:
        """An innocent name appeared on a blocked address: give the address free, the name stays blocked."""
        block = self._blocks.by_address.get(address)
        if block is None or not others or block.target.kind == "address":
            return None
        self._blocks.withdraw_address(address)
        reason = f"{others[-1]} was seen on it too: an innocent site would be cut off"
        block.refused[address] = reason
        sighting.match = block.match
        target = Target("address", render_address(address))
        return self._verdict(sighting, block.id, "withdraw", (target,), reason, "shared", E2)

    def _refuse(self, block: Block, sighting: Sighting, address: bytes, text: str, reason: str, rule: str) -> Decision:
        if len(block.refused) < MAX_BLOCKS:
            block.refused[address] = reason
        return self._verdict(sighting, block.id, "refuse", (Target("address", text),), reason, rule, E1)

    def _alert(self, sighting: Sighting, target: Target, reason: str, rule: str) -> Decision | None:
        if (target, rule) in self._alerted:
            return None
        if len(self._alerted) < MAX_BLOCKS:
            self._alerted.add((target, rule))
        return self._verdict(sighting, "", "alert", (target,), reason, rule, E1)

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


def _how(match: Match) -> str:
    if match.level == "sibling":
        return f"a sibling under {match.registered_domain} of"
    if match.level == "host":
        return "at or below the listed"
    return f"matches the listed {match.indicator.kind}"
