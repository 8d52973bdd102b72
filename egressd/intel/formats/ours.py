"""egressd's own list format: text, one indicator a line, options after it, and what a line may not do.

    # comment
    bad.example                          threat=family confidence=90 ref=case-17
    *.sub.bad.example                    # the subtree only
    192.0.2.1
    198.51.100.0/24                      expires=2030-01-31 owner="network team"
    http://bad.example/gate.php          # this path, on this host

`||name^` of AdBlock lists and `0.0.0.0 name ...` of hosts files are read as the names they hold, with the list's
default scope. A line is taken whole or not at all: what is wrong with it is one Problem at the first wrong word.
A line that says again what an earlier one says is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from egressd.errors import Problem
from egressd.intel.allowances import KINDS
from egressd.intel.entries import DOMAIN, URL, Entry, parse_entry, parse_name
from egressd.intel.formats.hosts import LOCAL, parse_hosts
from egressd.intel.formats.judgement import (
    DEFAULT_CONFIDENCE,
    EXACT,
    HOST,
    REGISTERED,
    SCOPES,
    Found,
    Ignored,
    Judge,
    Rules,
    Said,
)
from egressd.intel.guard import Guard
from egressd.intel.lines import (
    Word,
    Wrong,
    parse_options,
    parse_time,
    problem_at,
    render_option,
    render_time,
    show,
    split_comment,
    split_lines,
)
from egressd.intel.protected import Protected
from egressd.model import Indicator
from egressd.names import Suffixes

OPTIONS: Final = ("scope", "threat", "confidence", "expires", "added", "first_seen", "ref", "owner", "force")

# https://docs.suricata.io/en/latest/rules/intro.html: what a rule begins with.
_RULES: Final = frozenset(("alert", "drop", "pass", "reject", "rejectsrc", "rejectdst", "rejectboth"))
# https://unbound.docs.nlnetlabs.nl/en/latest/manpages/unbound.conf.html: what lists of names in its form have.
_UNBOUND: Final = frozenset(("server:", "local-zone:", "local-data:"))
_ADBLOCK: Final = re.compile(r"\|\|([^\^$|/]+)\^\|?")


def parse_list(
    text: str,
    source: str,
    suffixes: Suffixes,
    guard: Guard,
    *,
    protected: Protected | None = None,
    default_scope: str = REGISTERED,
    default_threat: str = "",
    default_confidence: int = DEFAULT_CONFIDENCE,
    force: bool = False,
) -> tuple[list[Indicator], list[Problem]]:
    """The indicators of a list in our format and everything that is wrong with it, in order of lines. For the options
    see Rules."""
    rules = Rules(suffixes, guard, protected, default_scope, default_threat, default_confidence, force)
    indicators: list[Indicator] = []
    problems: list[Problem] = []
    for found in read_ours(text, source, rules):
        if type(found) is Indicator:
            indicators.append(found)
        elif type(found) is Problem:
            problems.append(found)
    return indicators, problems


def read_ours(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of our own format."""
    judge = Judge(source, rules, strict=True)
    plain = judge.plain
    for number, line in enumerate(split_lines(text), 1):
        found = plain(line.strip(), number)
        if found is not None:
            yield found
        else:
            yield from _read_words(judge, number, line)


def render_indicator(indicator: Indicator) -> str:
    """A line that `parse_list` reads as this indicator (a protected address only with `force`)."""
    if indicator.kind == URL:
        words = ["http://" + indicator.value]
    else:
        words = [indicator.value]
    if indicator.kind == DOMAIN:
        words.append("scope=" + indicator.scope)
        if not indicator.registered_domain:
            words.append("force=yes")
    if indicator.threat:
        words.append(render_option("threat", indicator.threat))
    words.append(f"confidence={indicator.confidence}")
    if indicator.added_s:
        words.append("added=" + render_time(indicator.added_s))
    if indicator.expires_s:
        words.append("expires=" + render_time(indicator.expires_s))
    if indicator.first_seen_s:
        words.append("first_seen=" + render_time(indicator.first_seen_s))
    if indicator.ref:
        words.append(render_option("ref", indicator.ref))
    if indicator.owner:
        words.append(render_option("owner", indicator.owner))
    return " ".join(words)


def parse_line(line: str) -> tuple[list[tuple[Entry, int]], list[Word]] | None:
    """What a line names, each with its column, and the words of its options, which are not looked at; None for blank
    and comment lines. Raises Wrong."""
    words = split_comment(line)[0]
    if not words or words[0].text == "!" or words[0].text.startswith("[Adblock"):
        return None
    first = words[0]
    if first.text in _UNBOUND:
        what = "a line of unbound's configuration is no indicator"
        raise Wrong(first.column, what, "list the names of its zones, or take the list in its dnsmasq or RPZ form")
    count = 1
    while count < len(words) and "=" not in words[count].text:
        count += 1
    names, rest = words[1:count], words[count:]
    if not names:
        return [(_parse_first(first), first.column)], rest
    if first.text in KINDS:
        advice = "put it into a file that allow: names; check-config --allow FILE checks such a file"
        raise Wrong(first.column, f"{first.text} is an allowance, no block", advice)
    hosts = parse_hosts(first, names)
    if hosts is None and first.text in _RULES:
        what = "a rule of Suricata or Snort is no indicator"
        raise Wrong(first.column, what, "list the names that it looks for, one on a line")
    if hosts is None:
        what = f'unexpected word "{show(names[0].text)}"'
        advice = "put one indicator on a line; options are written key=value, comments after #"
        raise Wrong(names[0].column, what, advice)
    return hosts, rest


def _read_words(judge: Judge, number: int, line: str) -> list[Found]:
    try:
        parsed = parse_line(line)
        if parsed is None:
            return []
        entries, rest = parsed
        options = parse_options(rest, OPTIONS)
        found = [judge.judge(entry, column, number, _said(judge, entry, options)) for entry, column in entries]
    except Wrong as wrong:
        return [problem_at(judge.source, number, wrong)]
    return [judge.once(one) for one in found] or [Ignored(number, LOCAL)]


def _said(judge: Judge, entry: Entry, options: dict[str, Word]) -> Said:
    """Raises Wrong when an option's value is none."""
    default = judge.default
    if not options:
        return default
    force = _choice("force", options.get("force"), ("yes", "no"), "yes" if default.force else "no") == "yes"
    confidence = _confidence(options.get("confidence"), default.confidence)
    added_s = parse_time("added", options.get("added"))
    expires_s = parse_time("expires", options.get("expires"))
    if expires_s and expires_s <= added_s:
        raise Wrong(options["expires"].column, "expires= is not after added=", "check the two dates")
    scope = _choice("scope", options.get("scope"), SCOPES if entry.kind == DOMAIN else (EXACT,), "")
    if entry.subtree and scope and scope != HOST:
        what = f"scope={scope} contradicts a subtree"
        raise Wrong(options["scope"].column, what, "leave scope= out, or write the name alone")
    threat, ref, owner = (options[key].text if key in options else "" for key in ("threat", "ref", "owner"))
    first_seen_s = parse_time("first_seen", options.get("first_seen"))
    return Said(threat or default.threat, confidence, force, scope, added_s, expires_s, ref, owner, first_seen_s)


def _parse_first(word: Word) -> Entry:
    text = word.text
    if text.startswith("@@"):
        advice = "write an exception as an allowance, such as ignore-indicator"
        raise Wrong(word.column, f'an exception cannot be listed: "{show(text)}"', advice)
    if text.startswith("|"):
        found = _ADBLOCK.fullmatch(text)
        if found is None:
            raise Wrong(word.column, f'not a plain AdBlock rule: "{show(text)}"', "write ||name^ or the name alone")
        return Entry(DOMAIN, parse_name(found[1], word.column))
    return parse_entry(word)


def _choice(key: str, word: Word | None, choices: tuple[str, ...], default: str) -> str:
    if word is None:
        return default
    if word.text not in choices:
        advice = f"write {key}=" + " or ".join(choices)
        raise Wrong(word.column, f'{key}= cannot be "{show(word.text)}" here', advice)
    return word.text


def _confidence(word: Word | None, default: int) -> int:
    if word is None:
        return default
    text = word.text
    if not (text.isascii() and text.isdigit()) or len(text) > 3 or int(text) > 100:
        raise Wrong(
            word.column, f'confidence= is not a whole number of 0 to 100: "{show(text)}"', "write confidence=75"
        )
    return int(text)
