"""Policy: what a sighting justifies.

Names that a client sends are accusations: they justify a block by name, and of that client's way to that address. An
address is blocked for everybody only when an answer to an outstanding question ties it to a listed name, it is not
protected and not shared (egressd.detect.sharing). Every refusal is a decision too, with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from egressd.detect.blocks import MAX_BLOCKS, Block, main_target
from egressd.detect.budgets import ALONE_TIMES, IN_ALL, MAX_ALONE, share_of, why_rolled_back
from egressd.detect.coverage import E0, E1, Coverage, pair
from egressd.detect.kept import Kept, tell
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.reasons import scoped_target, why, why_alert
from egressd.detect.rules import (
    ADDRESS,
    ALERT,
    ASK,
    BLOCK,
    CLIENT,
    HOST,
    IGNORE,
    ISOLATE,
    PAIR,
    SHARE,
    Facts,
    Rule,
)
from egressd.detect.sharing import (
    chose_address,
    leave_to_person,
    why_too_wide,
)
from egressd.detect.site import RANKS, lists_guarded_site
from egressd.intel.allowances import Allowances
from egressd.intel.networks import parse_address, parse_network, render_address
from egressd.intel.protected import Protected
from egressd.intel.shared_ranges import NO_SHARED_RANGES, SharedRanges
from egressd.model import BEHAVIOUR, Decision, Sighting, Target
from egressd.units import SECOND_US


class Policy(Coverage):
    """The rules of a policy over the blocks in force."""

    def decide(
        self, sighting: Sighting, others: Sequence[str] = (), clients: int = 1, known: int = 0, machine: bytes = b""
    ) -> Decision | None:
        """The verdict on a sighting whose target is not blocked yet; None when it was given before, or a rule ignores
        it. `others` are the co-tenants of the address that matched, if one did; `clients` hit the same, of `known`;
        `machine` is what the client counts as where blocks have a budget, b"" itself."""
        target = main_target(sighting.match)
        refusal = self._kept(sighting, target)
        if refusal is not None:
            return self._alert(sighting, target, *refusal)
        rule, facts = self._choose(sighting, clients, known)
        if rule.outcome == IGNORE:
            self.ignored += 1
            return None
        if rule.outcome == ALERT:
            return self._alert(sighting, target, why_alert(rule, facts, sighting.match), rule.name)
        if rule.outcome == ISOLATE or rule.scope == CLIENT:
            return self._isolate(sighting, target, rule, machine or sighting.flow.client)
        target = scoped_target(sighting, rule.scope)
        waits = rule.outcome == ASK
        refusal = self._refusal(sighting, target, others, waits)
        if refusal is not None:
            return self._alert(sighting, target, *refusal)
        machine = self._counts_as(sighting.flow.client, machine)
        alone = self._budget.is_over_share(self.settings.blocks_per_hour, machine, sighting.ts_us)
        over = self._over_blocks(sighting, machine, alone)
        if over is not None:
            return self._verdict(sighting, "", "alert", (target,), over, "budget", E1) if over else None
        if alone and target.kind in ("address", "network"):
            target = pair(sighting.flow.client, sighting.address)
        block = self._blocks.add(target, sighting.match, sighting.ts_us)
        if alone:
            self._blocks.keep_alone(block, sighting.flow.client)
            self.over_share += 1
        block.campaign = sighting.campaign
        block.mode = self.site.mode_of(sighting.flow.client)
        block.waits = block.asked = waits
        self._holds(block, rule, sighting.ts_us)
        if target.kind == "address" and sighting.address:
            self._blocks.add_address(block, parse_address(target.value), sighting.ts_us)
        elif target.kind == PAIR:
            self._blocks.add_pair(block, sighting.flow.client, sighting.address, sighting.ts_us)
        evidence = E0 if sighting.match.level == "address" else E1
        action = "ask" if waits else "block"
        reason = why(rule, sighting.match)
        if alone:
            limit = self.settings.blocks_per_hour
            reason += f"; for this client alone, which caused {share_of(limit)} of the {limit} blocks of an hour"
        return self._verdict(sighting, block.id, action, (target,), reason, _named(block, rule), evidence)

    def _holds(self, block: Block, rule: Rule, ts_us: int) -> None:
        """What a rule says of a block that it calls for at `ts_us`."""
        block.narrow = rule.scope == PAIR
        block.ends_us = ts_us + rule.ttl_s * SECOND_US if rule.ttl_s else 0

    def _counts_as(self, client: bytes, machine: bytes = b"") -> bytes:
        """Whose share a block is taken from; nobody's when a resolver asks, which does so for everybody."""
        return b"" if client in self.settings.resolvers else machine or client

    def _over_blocks(self, sighting: Sighting, machine: bytes, alone: bool) -> str | None:
        """Which budget one more block would exceed, in words; "" when that was told within the hour, None when it is
        within all of them, and then it is counted. One alert: the sightings and incidents tell the rest."""
        if alone and sighting.match.level == BEHAVIOUR:
            return ""  # a question about what it does is asked no more often; incidents tell the rest
        limit = self.settings.blocks_per_hour * (ALONE_TIMES if alone else 1)
        hourly = self._budget.alone(machine, sighting.ts_us) if alone else self._budget.all
        full = self._why_full(alone)
        if not full and not hourly.is_over(limit, sighting.ts_us):
            self._budget.take(machine, sighting.ts_us, alone)
            return None
        whose = f" for {render_address(sighting.flow.client)} alone" if alone else ""
        return "" if hourly.is_told(sighting.ts_us) else full or f"over {limit} blocks{whose} in an hour"

    def _why_full(self, alone: bool) -> str:
        """Which bound over all blocks is reached, in words; "" for none."""
        if len(self._blocks) >= MAX_BLOCKS:
            return f"over {MAX_BLOCKS} blocks{IN_ALL}"
        if alone and self._blocks.alone >= MAX_ALONE:
            return f"over {MAX_ALONE} blocks for one client alone{IN_ALL}"
        return ""

    def widen(
        self, block: Block, sighting: Sighting, others: Sequence[str], clients: int, known: int, machine: bytes
    ) -> Decision | None:
        """Another machine meets what is blocked for one client alone: the block is for everybody, as it would have been
        without the budget. None when it stays as it is."""
        client = sighting.flow.client
        limit = self.settings.blocks_per_hour
        if (
            block.target.kind == PAIR
            or client in self.settings.resolvers
            or self._kept(sighting, block.target) is not None
        ):
            return None  # a resolver repeats what the client asked it
        rule, _ = self._choose(sighting, clients, known)
        if (
            rule.outcome not in (ASK, BLOCK)
            or rule.scope in (CLIENT, PAIR)
            or (rule.outcome == ASK and not block.waits)
        ):
            return None
        if self._refusal(sighting, block.target, others, block.waits) is not None:
            return None
        if self._budget.is_over_share(limit, machine, sighting.ts_us) or self._budget.all.is_over(
            limit, sighting.ts_us
        ):
            return None
        self._budget.take(machine, sighting.ts_us)
        self._blocks.keep_alone(block, b"")
        action = "ask" if block.waits else "block"
        reason = f"{why(rule, sighting.match)}; a second machine met it"
        return self._verdict(sighting, block.id, action, (block.target,), reason, rule.name, E1)

    def decide_again(
        self, block: Block, sighting: Sighting, others: Sequence[str], clients: int, known: int
    ) -> Decision | None:
        """A sighting of what is decided already can call for more: its client's segment is under a stronger mode, or a
        rule that blocks applies where before one asked. None when it stays as it is, which it does when a person has
        spoken."""
        mode = self.site.mode_of(sighting.flow.client)
        if block.final or (not block.waits and RANKS[mode] <= RANKS[block.mode]):
            return None
        if self._kept(sighting, block.target) is not None:
            return None
        rule, _ = self._choose(sighting, clients, known)
        waits = rule.outcome != BLOCK
        if rule.outcome not in (ASK, BLOCK) or rule.scope == CLIENT or (waits and not block.waits):
            return None
        if waits == block.waits and RANKS[mode] <= RANKS[block.mode]:
            return None
        if block.waits and not waits and rule.scope in (HOST, ADDRESS):
            if scoped_target(sighting, rule.scope) != block.target:
                return None  # the question is about more than the rule may block
        if self._refusal(sighting, block.target, others, waits) is not None:
            return None
        if block.waits and not waits:
            self._holds(block, rule, sighting.ts_us)
        block.waits = block.asked = waits
        block.mode = mode if RANKS[mode] > RANKS[block.mode] else block.mode
        action = "ask" if waits else "block"
        reason = why(rule, sighting.match)
        return self._verdict(sighting, block.id, action, (block.target,), reason, _named(block, rule), E1)

    def block_of(self, sighting: Sighting) -> Block | None:
        """The block that a sighting falls under, whatever scope a rule gave it."""
        by_target = self._blocks.by_target
        block = by_target.get(main_target(sighting.match))
        if block is None and self._blocks.scoped:
            for scope in ("host", "address"):
                block = block or by_target.get(scoped_target(sighting, scope))
            if block is None and sighting.address:
                block = by_target.get(pair(sighting.flow.client, sighting.address))
        return block

    def roll_back(self, block: Block, sighting: Sighting, clients: int, known: int) -> Decision | None:
        """An automatic block that too many run into waits for a person; None when it stands."""
        settings = self.settings
        age_us = sighting.ts_us - block.created_us
        reason = why_rolled_back(clients, known, age_us, settings.rollback_clients, settings.rollback_share)
        if not reason or block.waits or block.final:
            return None
        block.waits = block.final = True
        block.enforced = False
        return self._verdict(sighting, block.id, "ask", (block.target,), reason, "rollback", E0)

    def _choose(self, sighting: Sighting, clients: int, known: int) -> tuple[Rule, Facts]:
        facts = self.site.facts(sighting, self.rules, clients, known, self.trusts(sighting.flow.server))
        rule = self.rules.choose(facts)
        if facts.match == BEHAVIOUR and rule.outcome == BLOCK:
            # Whatever a file says (config.policy_file refuses it): innocent programs behave so, too.
            rule = rule._replace(outcome=ASK)
        if rule.outcome in (ASK, ISOLATE) and sighting.match.indicator.source in self.settings.alert_only:
            rule = rule._replace(outcome=ALERT)
        return rule, facts

    def _isolate(self, sighting: Sighting, about: Target, rule: Rule, machine: bytes) -> Decision | None:
        """A rule isolates a client, which is `machine`, or asks for it."""
        client = sighting.flow.client
        target = Target("client", render_address(client))
        if target in self._isolated:
            return None
        kept = self._allowances.ignores_client(client, sighting.ts_us // SECOND_US)
        if kept is not None:
            return self._alert(sighting, about, tell(kept), kept.kind)
        over = self._over_isolations(machine, sighting.ts_us)
        if over is not None:
            return self._verdict(sighting, "", "alert", (about,), over, "budget", E1) if over else None
        self._isolated.add(target)
        action = "ask" if rule.outcome == ASK else "isolate"
        reason = why(rule, sighting.match)
        return self._verdict(sighting, self._blocks.next_id(), action, (target,), reason, rule.name, E1)

    def _over_isolations(self, machine: bytes, ts_us: int) -> str | None:
        """As `_over_blocks`, of one more isolated client."""
        limit = self.settings.isolations_per_hour
        hourly = self._isolations.all
        why_over = f"over {limit} isolated clients in an hour"
        if self._isolations.is_over_share(limit, machine, ts_us):
            hourly = self._isolations.alone(machine, ts_us)
            why_over = f"over {share_of(limit)} isolated addresses of one machine in an hour"
        elif not hourly.is_over(limit, ts_us) and len(self._isolated) < MAX_BLOCKS:
            self._isolations.take(machine, ts_us)
            return None
        return "" if hourly.is_told(ts_us) else why_over

    def _kept(self, sighting: Sighting, target: Target) -> tuple[str, str] | None:
        """(reason, rule) when people said that this is never blocked: it only alerts."""
        now_s = sighting.ts_us // SECOND_US
        kept = self._allowances.never_blocks(sighting.name, sighting.address, now_s)
        if kept is not None:
            return tell(kept), "never-block"
        kept = self.kept.inside(target, now_s)
        if kept is not None:
            return f"{tell(kept)} lies in {target.value}; a person must decide", kept.kind
        return None

    def _refusal(
        self, sighting: Sighting, target: Target, others: Sequence[str], waits: bool
    ) -> tuple[str, str] | None:
        """(reason, rule) when what a rule blocks may not be blocked by itself, or (`waits`) by nobody."""
        indicator = sighting.match.indicator
        if not waits and lists_guarded_site(sighting.match):
            where = f"{indicator.source}:{indicator.line}"
            return f"{where} lists a guarded site whole: {indicator.narrowed}; a person must decide", "guarded"
        network = parse_network(target.value) if target.kind in ("address", "network") else None
        if network is not None:
            why = self._protected.why_network(*network) or self._protected.why(sighting.address)
            if why:
                return f"{target.value} is protected: {why}", "protected"
            if waits or chose_address(indicator):
                return None
            why = self._why_shared(sighting.address, others) or self._shared.why_network(*network)
            if why:
                return leave_to_person(why), "shared"
            why = why_too_wide(*network, self._allowances.nat64)
            if why:
                return why, "too-wide"
        return None

    def replace(
        self,
        settings: PolicySettings,
        protected: Protected,
        allowances: Allowances,
        shared: SharedRanges = NO_SHARED_RANGES,
    ) -> None:
        """What people say has changed. What was told of it before is told again where it still holds."""
        self.settings = settings
        self.site = settings.site()
        self.rules = settings.rules_in_force()
        self._protected = protected
        self._allowances = allowances
        self._shared = shared
        self.kept = Kept(allowances)
        self._alerted.clear()
        self._isolated.clear()

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


def _named(block: Block, rule: Rule) -> str:
    """The rule of a verdict about a block."""
    return f"{SHARE}:{rule.name}" if block.sole else rule.name
