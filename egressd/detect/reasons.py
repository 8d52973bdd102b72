"""What a verdict is about, and its reason in words."""

from __future__ import annotations

from egressd.detect.blocks import main_target
from egressd.detect.rules import ASK, Facts, Rule, told
from egressd.intel.networks import render_address
from egressd.model import BEHAVIOUR, Match, Sighting, Target


def scoped_target(sighting: Sighting, scope: str) -> Target:
    """What a block is about when a rule narrows its scope."""
    match = sighting.match
    if scope == "host" and sighting.name:
        return Target("host", sighting.name)
    if scope == "address" and sighting.address:
        return Target("address", render_address(sighting.address))
    return main_target(match)


def why(rule: Rule, match: Match) -> str:
    """Why something is blocked, asked for or isolated."""
    indicator = match.indicator
    if match.level == BEHAVIOUR:
        why_so = f": {indicator.ref}" if indicator.ref else ""
        reason = f"no list names it, {indicator.source} scores {indicator.confidence}{why_so}"
    else:
        reason = f"{_how(match)} {indicator.value} ({indicator.source}:{indicator.line})"
    if indicator.narrowed and indicator.kind == "domain":
        reason += f"; narrowed: {indicator.narrowed}"
    if rule.outcome == ASK:
        reason += f"; rule {rule.name} leaves it to a person"
    return reason


def why_alert(rule: Rule, facts: Facts, match: Match) -> str:
    """Why something only alerts."""
    indicator = match.indicator
    where = f"{indicator.source}:{indicator.line}"
    if match.level == BEHAVIOUR:
        return f"{where.removesuffix(':0')} scores {indicator.confidence}"
    for one in rule.conditions:
        if one.fact == "confidence" and facts.confidence < 100:
            return f"{where} has confidence {indicator.confidence}, under {one.spans[0][1] + 1}"
    wanted = ", ".join(told(one) for one in rule.conditions) or rule.why or "no condition"
    return f"{where}: rule {rule.name} alerts ({wanted})"


def _how(match: Match) -> str:
    if match.level == "sibling":
        return f"a sibling under {match.registered_domain} of"
    if match.level == "host":
        return "at or below the listed"
    return f"matches the listed {match.indicator.kind}"
