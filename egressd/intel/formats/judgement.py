"""What the readers of every format share: what is known of a list beside its text, and what a line may not list.

Each reader is a generator of what it found, one thing or more for every line that is not blank or comment: an
`Indicator`, an `Ignored` (legal there, says nothing to us) or a `Problem`. A line is taken whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from egressd.errors import Problem
from egressd.intel.entries import DOMAIN, Entry
from egressd.intel.guard import Guard
from egressd.intel.lines import MAX_VALUE, Word, Wrong, problem_at
from egressd.intel.protected import Protected
from egressd.model import Indicator
from egressd.names import UNLISTED, Suffixes, escape

REGISTERED: Final = "registered"
HOST: Final = "host"
EXACT: Final = "exact"
SCOPES: Final = (REGISTERED, HOST, EXACT)

DEFAULT_CONFIDENCE: Final = 100  # a person wrote the line down, or chose the feed
WIDEST_IPV4: Final = 8  # prefix length; wider is a mistake whatever the line says
WIDEST_IPV6: Final = 19  # the shortest prefix that a registry gives one holder

REPEATED: Final = "an earlier line says the same"
ALLOWANCE: Final = "an allowance: feeds cannot allow"

PLAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.[a-z_-][a-z0-9_-]{0,62}")


class Rules(NamedTuple):
    """What is known of a list or a feed beside its text. `scope` (registered, host or exact) is for names of which it
    says nothing itself, likewise `threat` and `confidence` (0 to 100).

    `force` says of every line what `force=yes` says of one of ours: list it although it is a public suffix (that name
    alone then) or a protected address. It lifts neither the guard nor the bound on a network's width. `now_s`, epoch
    seconds, is when the text was fetched: lifetimes are counted from it, and are not known when it is 0.
    """

    suffixes: Suffixes
    guard: Guard
    protected: Protected | None = None
    scope: str = REGISTERED
    threat: str = ""
    confidence: int = DEFAULT_CONFIDENCE
    force: bool = False
    now_s: int = 0


class Ignored(NamedTuple):
    """A line that is legal in its format and lists nothing for us, and why. `reason` is one of few per format and
    never quotes the line, so that it can be counted."""

    line: int
    reason: str


Found = Indicator | Problem | Ignored


class Said(NamedTuple):
    """What a line says beside what it names, as in model.Indicator; an empty `scope` leaves that to the rules."""

    threat: str
    confidence: int
    force: bool
    scope: str = ""
    added_s: int = 0
    expires_s: int = 0
    ref: str = ""
    owner: str = ""
    first_seen_s: int = 0


class Judge:
    """Turns what the lines of one list name into indicators, by one set of rules for every format; leaves out repeats.

    `threat` and `ref` are what `plain` gives a name; a reader sets them when its text has said something new.
    `strict` repeats agree in everything; else in what they cover and how surely, whatever they refer to.
    """

    def __init__(self, source: str, rules: Rules, *, strict: bool = False) -> None:
        if rules.scope not in SCOPES:
            raise ValueError(f"no such scope: {rules.scope}")
        self.source = source
        self.rules = rules
        self.default = Said(rules.threat, rules.confidence, rules.force)
        self.threat = rules.threat
        self.ref = ""
        self._strict = strict
        self._split = rules.suffixes.split
        self._why = rules.guard.why
        self._confidence = rules.confidence
        self._simple = rules.scope == REGISTERED and not rules.force  # then the guard alone narrows
        self._seen: set[str | Indicator] = set()  # names of which nothing more is said; all else without its place

    def plain(self, name: str, number: int) -> Found | None:
        """A name alone, as nearly every line of a long list has it; None when `name` needs a closer look."""
        threat = self.threat
        key = name if threat is self.default.threat else f"{name} {threat}"
        if key in self._seen:
            return Ignored(number, REPEATED)
        if len(name) > 253 or PLAIN.fullmatch(name) is None:
            return None
        registered, _, rule = self._split(name)
        if not registered:
            return None
        self._seen.add(key)
        if self._simple:
            narrowed = self._why(registered)
            scope = HOST if narrowed else REGISTERED
        else:
            rules = self.rules
            scope, narrowed = self._narrow(name, registered, rules.scope, "list", rules.force)
        return Indicator(
            DOMAIN,
            name,
            scope,
            narrowed,
            registered,
            rule,
            self.source,
            number,
            threat,
            self._confidence,
            0,
            0,
            self.ref,
            "",
            0,
        )

    def take(self, entry: Entry, column: int, number: int, said: Said | None = None) -> Found:
        """What an entry at a place comes to."""
        try:
            return self.once(self.judge(entry, column, number, said or self.default._replace(threat=self.threat)))
        except Wrong as wrong:
            return problem_at(self.source, number, wrong)

    def take_all(self, entries: Sequence[tuple[Entry, int]], number: int, said: Said | None = None) -> list[Found]:
        """What the entries of one line come to, (entry, column) each: one Problem when one of them is refused."""
        said = said or self.default._replace(threat=self.threat, ref=self.ref)
        try:
            judged = [self.judge(entry, column, number, said) for entry, column in entries]
        except Wrong as wrong:
            return [problem_at(self.source, number, wrong)]
        return [self.once(one) for one in judged]

    def once(self, indicator: Indicator) -> Indicator | Ignored:
        """The indicator, unless an earlier line said the same."""
        key: str | Indicator
        if self._is_plain(indicator):
            key = indicator.value
            if indicator.threat != self.rules.threat:
                key += " " + indicator.threat
        elif self._strict:
            key = indicator._replace(line=0)
        else:
            if indicator.narrowed == _SUBTREE and self.rules.scope != EXACT and indicator.value in self._seen:
                return Ignored(indicator.line, REPEATED)  # `*.x` after `x`, as formats write where x is x alone
            key = indicator._replace(line=0, ref="", first_seen_s=0)
        if key in self._seen:
            return Ignored(indicator.line, REPEATED)
        self._seen.add(key)
        return indicator

    def judge(self, entry: Entry, column: int, number: int, said: Said) -> Indicator:
        """The indicator of an entry. Raises Wrong when it may not be listed."""
        registered = rule = narrowed = ""
        if entry.kind == DOMAIN:
            scope, narrowed, registered, rule = self._scope_of_domain(entry, column, said)
        else:
            scope = EXACT
            self._check_address(entry, column, said.force)
            narrowed = FORCED if entry.addr and not entry.host and said.force else ""
            if entry.host and not entry.addr:
                registered, _, rule = self.rules.suffixes.split(entry.host)
        return Indicator(
            entry.kind, entry.value, scope, narrowed, registered, rule, self.source, number, said.threat,
            said.confidence, said.added_s, said.expires_s, said.ref, said.owner, said.first_seen_s,
        )  # fmt: skip

    def _is_plain(self, indicator: Indicator) -> bool:
        """Whether the line says nothing beyond the name (and, where that may differ, its threat)."""
        rules = self.rules
        if indicator[9:12] != (rules.confidence, 0, 0) or indicator.owner or not indicator.registered_domain:
            return False
        if self._strict and (indicator.threat != rules.threat or indicator.ref or indicator.first_seen_s):
            return False
        narrow = self._narrow(indicator.value, indicator.registered_domain, rules.scope, "list", rules.force)
        return indicator.kind == DOMAIN and indicator[2:4] == narrow

    def _scope_of_domain(self, entry: Entry, column: int, said: Said) -> tuple[str, str, str, str]:
        """(scope, why it is narrowed, registered domain, rule). Raises Wrong for what no list may hold."""
        name = entry.value
        registered, _, rule = self.rules.suffixes.split(name)
        if not registered:
            if rule == UNLISTED and "." not in name:
                raise Wrong(column, f'"{name}" is a single label', "write the name in full, with its domain")
            if not said.force:
                what = f'"{name}" is a public suffix (rule {rule}); it would block every site under {name}'
                raise Wrong(column, what, "list the sites, or add force=yes for that one name")
            return EXACT, f"{name} is a public suffix (rule {rule})", "", rule
        if entry.subtree:
            guarded = self._whole_site(name, registered, said.force)
            return HOST, guarded or _SUBTREE, registered, rule
        who = "line" if said.scope else "list"
        return *self._narrow(name, registered, said.scope or self.rules.scope, who, said.force), registered, rule

    def _narrow(self, name: str, registered: str, scope: str, who: str, force: bool) -> tuple[str, str]:
        """(scope, why it is narrower than the registered domain) for a listed name under `registered`."""
        why = self.rules.guard.why(registered)
        if why and name == registered:
            return HOST if scope == REGISTERED else scope, _forced(why) if force else why
        if scope != REGISTERED:
            return scope, f"the {who} says scope={scope}"
        return (HOST, why) if why else (REGISTERED, "")

    def _whole_site(self, name: str, registered: str, force: bool) -> str:
        """The guard's reason when a guarded site is listed whole, whatever the scope: policy leaves it to a person,
        unless the line says force=yes. "" for every other name."""
        why = self.rules.guard.why(registered) if name == registered else ""
        return _forced(why) if why and force else why

    def _check_address(self, entry: Entry, column: int, force: bool) -> None:
        """Raises Wrong for an address or network that may not be listed."""
        if not entry.addr:
            return
        if entry.length < (WIDEST_IPV4 if len(entry.addr) == 4 else WIDEST_IPV6):
            what = f"{entry.value} is too wide: it would block whole registries' worth of hosts"
            raise Wrong(column, what, f"list networks of /{WIDEST_IPV4} (IPv4) or /{WIDEST_IPV6} (IPv6) and longer")
        if self.rules.protected is not None and not force:
            why = self.rules.protected.why_network(entry.addr, entry.length)
            if why:
                raise Wrong(column, f"{entry.value} may not be listed: {why}", "take it out, or add force=yes")


FORCED: Final = "the line says force=yes"  # of an address: a person decided, so that it is blocked though it is shared
_SUBTREE: Final = "the line names a subtree"


def _forced(why: str) -> str:
    return f"{FORCED}; {why}"


def tidy(text: str) -> str:
    """A feed's own words in the form that a value of our options has: printable, no double quote, not too long."""
    if not text.isprintable():
        text = " ".join(text.split())
        text = text if text.isprintable() else escape(text.encode("utf-8", "surrogatepass"))
    return text.replace('"', "'")[:MAX_VALUE].strip()


def word_of(text: str, column: int) -> Word:
    """A piece of a line as a word, white space around it taken off."""
    bare = text.lstrip()
    return Word(bare.rstrip(), column + len(text) - len(bare))
