"""What a person asks about: a name, an address or a URL, and the verdict on it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from egressd.config.load import LoadedIntel
from egressd.detect.blocks import main_target
from egressd.detect.kept import Kept, tell
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.reasons import scoped_target
from egressd.detect.rules import ALERT, ASK, BLOCK, CLIENT, IGNORE, ISOLATE, NO_RULE, Rule, failed, failing
from egressd.detect.sharing import chose_address
from egressd.detect.site import lists_guarded_site
from egressd.errors import ConfigError, Problem
from egressd.intel.entries import refang
from egressd.intel.index import Index
from egressd.intel.layered import AnyIndex
from egressd.intel.networks import parse_address, render_address
from egressd.model import TCP, FlowKey, Match, Sighting
from egressd.names import to_a_label
from egressd.units import SECOND_US


class Question(NamedTuple):
    """The thing asked about. `name` is normalised or ""; `address` packed or empty; `path` "" unless it was a URL."""

    text: str
    name: str
    address: bytes
    path: str


class Verdict(NamedTuple):
    """What is known about it. `match` is None when nothing is listed; `allowance` names what takes the match out.
    `rule` is the one of the policy that decides, `rules` has a line for each that was tried: why it does not apply."""

    question: Question
    registered_domain: str
    suffix_rule: str
    match: Match | None
    would: str
    allowance: str
    guard: str
    protected: str
    shared: str  # the shared range that the address lies in
    rule: str = ""
    rules: tuple[str, ...] = ()


def parse_question(text: str) -> Question:
    """Read what was typed. Raises ConfigError when it is neither a name, an address nor a URL."""
    plain = refang(text.strip())
    path = ""
    if "://" in plain:
        plain = plain.split("://", 1)[1]
        host, slash, rest = plain.partition("/")
        path = slash + rest or "/"
        plain = host.rpartition("@")[2]
    elif "/" in plain:
        plain, _, rest = plain.partition("/")
        path = "/" + rest
    host = plain[1 : plain.index("]")] if plain.startswith("[") and "]" in plain else plain
    if host.count(":") == 1:
        host = host.partition(":")[0]
    address = parse_address(host)
    if address:
        return Question(text, "", address, path)
    name = to_a_label(host)
    if not name:
        advice = "give a host name, an IPv4 or IPv6 address, or a URL"
        raise ConfigError([Problem("argument", 1, 1, f"{text!a} is no name, address or URL", advice)])
    return Question(text, name, b"", path)


def out_of_force(question: Question, loaded: LoadedIntel, now_s: int) -> str:
    """The line that would list it at another time, and why not now; "" when there is none. Looks through all lines."""
    intel = loaded.intel
    lapsed = [one for one in intel.index.listed() if 0 < one.expires_s <= now_s or one.added_s > now_s]
    index = Index.build(
        (one._replace(added_s=0, expires_s=0) for one in lapsed), intel.suffixes, intel.allowances.nat64
    )
    match = _match(question, index, now_s)
    if match is None:
        return ""
    found = next(one for one in lapsed if (one.source, one.line) == (match.indicator.source, match.indicator.line))
    over = 0 < found.expires_s <= now_s
    when = "expired" if over else "from"
    day = f"{datetime.fromtimestamp(found.expires_s if over else found.added_s, UTC):%Y-%m-%d %H:%M} UTC"
    return f"{found.value} ({found.source}:{found.line}) {when} {day}"


def _match(question: Question, index: AnyIndex, now_s: int) -> Match | None:
    host = question.name or (render_address(question.address) if question.address else "")
    match = index.match_url(host, question.path, now_s) if question.path else None
    if match is not None:
        return match
    if question.name:
        return index.match_name(question.name, now_s)
    return index.match_address(question.address, now_s)


def judge(question: Question, loaded: LoadedIntel, settings: PolicySettings, now_s: int) -> Verdict:
    """The verdict that replay and the daemon would give, by the same index."""
    intel = loaded.intel.protecting(settings.of_our_hosts())
    domain, _, suffix_rule = intel.suffixes.split(question.name) if question.name else ("", "", "")
    match = _match(question, intel.index, now_s)
    allowance = ""
    would = "nothing: not listed"
    protected = intel.protected.why(question.address) if question.address else ""
    shared = intel.shared.why(question.address) if question.address else ""
    name = ""
    tried: tuple[str, ...] = ()
    if match is not None:
        rule, tried = try_rules(match, settings, now_s)
        name = rule.name
        taken = intel.allowances.ignores_indicator(match.indicator, now_s)
        taken = taken or intel.allowances.allows(question.name, question.address, b"", now_s)
        kept = intel.allowances.never_blocks(question.name, question.address, now_s)
        if taken is not None:
            allowance = f"{taken.kind} {taken.value} ({taken.source}:{taken.line}: {taken.reason})"
            would = "nothing: an allowance covers it"
        elif kept is not None:
            allowance = f"never-block {kept.value} ({kept.source}:{kept.line}: {kept.reason})"
            would = "alert, not block"
        elif (inside := Kept(intel.allowances).inside(main_target(match), now_s)) is not None:
            would = f"alert, not block: {tell(inside)} lies in {main_target(match).value}; a person must decide"
        elif lists_guarded_site(match) and rule.outcome == BLOCK:
            would = "alert, not block: the list names a guarded site whole, a person must decide"
        elif protected and match.level == "address" and rule.outcome in (BLOCK, ASK):
            would = "alert, not block: the address is protected"
        elif shared and match.level == "address" and not chose_address(match.indicator) and rule.outcome == BLOCK:
            would = f"alert, not block: {shared}; a person must decide"
        else:
            would = _outcome(rule, match)
    guard = loaded.guard.why(domain or question.name) if question.name else ""
    return Verdict(question, domain, suffix_rule, match, would, allowance, guard, protected, shared, name, tried)


def try_rules(match: Match, settings: PolicySettings, now_s: int) -> tuple[Rule, tuple[str, ...]]:
    """The rule that decides about a match by itself - one client, in no segment, now - and a line for each rule that
    was tried before."""
    rules = settings.rules_in_force()
    flow = FlowKey(TCP, b"", 0, b"", 0)
    sighting = Sighting(now_s * SECOND_US, 0, flow, "", match, "", "", False, 1, 0, 0)
    facts = settings.site().facts(sighting, rules, 1, 0, False)
    tried: list[str] = []
    for rule in rules.rules:
        wanting = failing(rule, facts)
        if wanting is None:
            return rule, (*tried, f"{rule.name}: decides, {rule.outcome}" + (f" ({rule.why})" if rule.why else ""))
        tried.append(f"{rule.name}: not, {failed(wanting, facts)}")
    return NO_RULE, (*tried, f"{NO_RULE.name}: decides, {NO_RULE.outcome}")


def _outcome(rule: Rule, match: Match) -> str:
    """What a rule would do, in words."""
    target = scoped_target(Sighting(0, 0, FlowKey(TCP, b"", 0, b"", 0), "", match, "", "", False, 1, 0, 0), rule.scope)
    what = f"{target.kind.replace('_', ' ')} {target.value}"
    if rule.outcome == IGNORE:
        return f"nothing: rule {rule.name} ignores it"
    if rule.outcome == ALERT:
        for one in rule.conditions:
            if one.fact == "confidence" and one.spans[0][1] < 100:
                return f"alert: confidence {match.indicator.confidence} is under {one.spans[0][1] + 1}"
        return f"alert: rule {rule.name}"
    if rule.outcome == ISOLATE or rule.scope == CLIENT:
        return "isolate the client" if rule.outcome == ISOLATE else "ask a person whether to isolate the client"
    if target.kind == "url":
        return "tell of it and count it: one page cannot be blocked, list the host"
    return f"ask a person whether to block {what}" if rule.outcome == ASK else f"block {what}"


def render_verdict(verdict: Verdict, mode: str) -> dict[str, Any]:
    """The verdict for programs."""
    match = verdict.match
    rendered: dict[str, Any] = {
        "subject": verdict.question.text,
        "listed": match is not None,
        "match_level": match.level if match is not None else "",
        "name": verdict.question.name,
        "registered_domain": verdict.registered_domain,
        "suffix_rule": verdict.suffix_rule,
    }
    if match is not None:
        indicator = match.indicator
        rendered["indicator"] = {
            "value": indicator.value,
            "source": indicator.source,
            "line": indicator.line,
            "scope": indicator.scope,
            "narrowed": indicator.narrowed,
            "threat": indicator.threat,
            "confidence": indicator.confidence,
            "ref": indicator.ref,
            "owner": indicator.owner,
            "added_s": indicator.added_s,
            "expires_s": indicator.expires_s,
            "first_seen_s": indicator.first_seen_s,
        }
    rendered.update(
        guard=verdict.guard,
        protected=verdict.protected,
        shared=verdict.shared,
        allowance=verdict.allowance,
        would=verdict.would,
        rule=verdict.rule,
        rules=list(verdict.rules),
        mode=mode,
    )
    return rendered
