"""What a person asks about: a name, an address or a URL, and the verdict on it."""

from __future__ import annotations

from typing import Any, NamedTuple

from egressd.config.load import LoadedIntel
from egressd.detect.blocks import main_target
from egressd.detect.policy import PolicySettings
from egressd.detect.site import lists_guarded_site
from egressd.errors import ConfigError, Problem
from egressd.intel.entries import refang
from egressd.intel.networks import parse_address, render_address
from egressd.model import Match
from egressd.names import to_a_label


class Question(NamedTuple):
    """The thing asked about. `name` is normalised or ""; `address` packed or empty; `path` "" unless it was a URL."""

    text: str
    name: str
    address: bytes
    path: str


class Verdict(NamedTuple):
    """What is known about it. `match` is None when nothing is listed; `allowance` names what takes the match out."""

    question: Question
    registered_domain: str
    suffix_rule: str
    match: Match | None
    would: str
    allowance: str
    guard: str
    protected: str


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


def judge(question: Question, loaded: LoadedIntel, settings: PolicySettings, now_s: int) -> Verdict:
    """The verdict that replay and the daemon would give, by the same index."""
    intel = loaded.intel
    domain, _, rule = intel.suffixes.split(question.name) if question.name else ("", "", "")
    match: Match | None
    host = question.name or (render_address(question.address) if question.address else "")
    match = intel.index.match_url(host, question.path, now_s) if question.path else None
    if match is None:
        match = (
            intel.index.match_name(question.name, now_s)
            if question.name
            else intel.index.match_address(question.address, now_s)
        )
    allowance = ""
    would = "nothing: not listed"
    protected = intel.protected.why(question.address) if question.address else ""
    if match is not None:
        taken = intel.allowances.ignores_indicator(match.indicator, now_s)
        taken = taken or intel.allowances.allows(question.name, question.address, b"", now_s)
        kept = intel.allowances.never_blocks(question.name, question.address, now_s)
        target = main_target(match)
        if taken is not None:
            allowance = f"{taken.kind} {taken.value} ({taken.source}:{taken.line}: {taken.reason})"
            would = "nothing: an allowance covers it"
        elif kept is not None:
            allowance = f"never-block {kept.value} ({kept.source}:{kept.line}: {kept.reason})"
            would = "alert, not block"
        elif lists_guarded_site(match):
            would = "alert, not block: the list names a guarded site whole, a person must decide"
        elif protected and match.level == "address":
            would = "alert, not block: the address is protected"
        elif match.indicator.confidence < settings.block_confidence:
            would = f"alert: confidence {match.indicator.confidence} is under {settings.block_confidence}"
        else:
            would = f"block {target.kind.replace('_', ' ')} {target.value}"
    guard = loaded.guard.why(domain or question.name) if question.name else ""
    return Verdict(question, domain, rule, match, would, allowance, guard, protected)


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
        allowance=verdict.allowance,
        would=verdict.would,
        mode=mode,
    )
    return rendered
