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
from typing import Final

from egressd.errors import Problem
from egressd.intel.entries import DOMAIN, URL, Entry, parse_entry, parse_name
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
from egressd.intel.networks import parse_address
from egressd.intel.protected import Protected
from egressd.model import Indicator
from egressd.names import UNLISTED, Suffixes

REGISTERED: Final = "registered"
HOST: Final = "host"
EXACT: Final = "exact"
SCOPES: Final = (REGISTERED, HOST, EXACT)

OPTIONS: Final = ("scope", "threat", "confidence", "expires", "added", "ref", "owner", "force")
DEFAULT_CONFIDENCE: Final = 100  # a person wrote the line down
WIDEST_IPV4: Final = 8  # prefix length; wider is a mistake whatever the line says
WIDEST_IPV6: Final = 19  # the shortest prefix that a registry gives one holder

_PLAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.[a-z_-][a-z0-9_-]{0,62}")
_ADBLOCK: Final = re.compile(r"\|\|([^\^$|/]+)\^\|?")
_SINKS: Final = frozenset(parse_address(text) for text in ("0.0.0.0", "127.0.0.1", "::", "::1"))
_LOCAL_NAMES: Final = frozenset(
    {"localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0", "ip6-localhost", "ip6-loopback"}
    | {"ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts"}
)


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
    """The indicators of a list and everything that is wrong with it, in order of lines.

    `force` says of every line what `force=yes` says of one: list it although it is a public suffix (that name alone
    then) or a protected address. It lifts neither the guard nor the bound on a network's width.
    """
    reader = _Reader(source, suffixes, guard, protected, default_scope, default_threat, default_confidence, force)
    for number, line in enumerate(split_lines(text), 1):
        reader.read(number, line)
    return reader.indicators, reader.problems


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
    if indicator.ref:
        words.append(render_option("ref", indicator.ref))
    if indicator.owner:
        words.append(render_option("owner", indicator.owner))
    return " ".join(words)


class _Reader:
    """Reads the lines of one list."""

    def __init__(
        self,
        source: str,
        suffixes: Suffixes,
        guard: Guard,
        protected: Protected | None,
        scope: str,
        threat: str,
        confidence: int,
        force: bool,
    ) -> None:
        if scope not in SCOPES:
            raise ValueError(f"no such scope: {scope}")
        self.source = source
        self.suffixes = suffixes
        self.guard = guard
        self.protected = protected
        self.scope = scope
        self.threat = threat
        self.confidence = confidence
        self.force = force
        self.indicators: list[Indicator] = []
        self.problems: list[Problem] = []
        self._seen: set[str | Indicator] = set()  # names without options; all else whole, its line number left out

    def read(self, number: int, line: str) -> None:
        """One line: to `indicators`, to `problems`, or neither when it says nothing."""
        name = line.strip()
        if name in self._seen:
            return
        if len(name) <= 253 and _PLAIN.fullmatch(name) is not None:
            registered, _, rule = self.suffixes.split(name)
            if registered:  # the way of nearly every line of a long list
                self._seen.add(name)
                scope, narrowed = self._narrow(name, registered, self.scope, "list", self.force)
                threat, confidence, source = self.threat, self.confidence, self.source
                self.indicators.append(
                    Indicator(
                        DOMAIN,
                        name,
                        scope,
                        narrowed,
                        registered,
                        rule,
                        source,
                        number,
                        threat,
                        confidence,
                        0,
                        0,
                        "",
                        "",
                    )
                )
                return
        try:
            found = self._read_words(number, split_comment(line)[0])
        except Wrong as wrong:
            self.problems.append(problem_at(self.source, number, wrong))
            return
        for indicator in found:
            key = indicator.value if self._is_plain(indicator) else indicator._replace(line=0)
            if key not in self._seen:
                self._seen.add(key)
                self.indicators.append(indicator)

    def _is_plain(self, indicator: Indicator) -> bool:
        """Whether the line says nothing beyond the name."""
        scope, narrowed = self._narrow(indicator.value, indicator.registered_domain, self.scope, "list", self.force)
        said = indicator[2:4] + indicator[8:]
        return said == (scope, narrowed, self.threat, self.confidence, 0, 0, "", "")

    def _read_words(self, number: int, words: list[Word]) -> list[Indicator]:
        if not words or words[0].text == "!" or words[0].text.startswith("[Adblock"):
            return []
        first = words[0]
        count = 1
        while count < len(words) and "=" not in words[count].text:
            count += 1
        names, rest = words[1:count], words[count:]
        if names:
            entries = _parse_hosts(first, names)
        else:
            entries = [(_parse_first(first), first.column)]
        options = parse_options(rest, OPTIONS)
        return [self._indicator(entry, column, options, number) for entry, column in entries]

    def _indicator(self, entry: Entry, column: int, options: dict[str, Word], number: int) -> Indicator:
        """Raises Wrong when the entry may not be listed or an option's value is none."""
        force = _choice("force", options.get("force"), ("yes", "no"), "yes" if self.force else "no") == "yes"
        confidence = _confidence(options.get("confidence"), self.confidence)
        added_s = parse_time("added", options.get("added"))
        expires_s = parse_time("expires", options.get("expires"))
        if expires_s and expires_s <= added_s:
            raise Wrong(options["expires"].column, "expires= is not after added=", "check the two dates")
        registered = rule = narrowed = ""
        if entry.kind == DOMAIN:
            scope, narrowed, registered, rule = self._scope_of_domain(entry, column, options, force)
        else:
            scope = _choice("scope", options.get("scope"), (EXACT,), EXACT)
            self._check_address(entry, column, force)
            if entry.host and not entry.addr:
                registered, _, rule = self.suffixes.split(entry.host)
        threat, ref, owner = (options[key].text if key in options else "" for key in ("threat", "ref", "owner"))
        return Indicator(
            entry.kind, entry.value, scope, narrowed, registered, rule, self.source, number, threat or self.threat,
            confidence, added_s, expires_s, ref, owner,
        )  # fmt: skip

    def _scope_of_domain(
        self, entry: Entry, column: int, options: dict[str, Word], force: bool
    ) -> tuple[str, str, str, str]:
        """(scope, why it is narrowed, registered domain, rule). Raises Wrong for what no list may hold."""
        name = entry.value
        registered, _, rule = self.suffixes.split(name)
        said = options.get("scope")
        scope = _choice("scope", said, SCOPES, self.scope)
        if not registered:
            if rule == UNLISTED and "." not in name:
                raise Wrong(column, f'"{name}" is a single label', "write the name in full, with its domain")
            if not force:
                what = f'"{name}" is a public suffix (rule {rule}); it would block every site under {name}'
                raise Wrong(column, what, "list the sites, or add force=yes for that one name")
            return EXACT, f"{name} is a public suffix (rule {rule})", "", rule
        if not entry.subtree:
            return *self._narrow(name, registered, scope, "list" if said is None else "line", force), registered, rule
        if said is not None and scope != HOST:
            raise Wrong(
                said.column, f"scope={scope} contradicts a subtree", "leave scope= out, or write the name alone"
            )
        guarded = self._whole_site(name, registered, force)
        return HOST, guarded or "the line names a subtree", registered, rule

    def _narrow(self, name: str, registered: str, scope: str, who: str, force: bool) -> tuple[str, str]:
        """(scope, why it is narrower than the registered domain) for a listed name under `registered`."""
        guarded = self._whole_site(name, registered, force)
        if guarded:
            return HOST if scope == REGISTERED else scope, guarded
        if scope != REGISTERED:
            return scope, f"the {who} says scope={scope}"
        why = self.guard.why(registered)
        return (HOST, why) if why else (REGISTERED, "")

    def _whole_site(self, name: str, registered: str, force: bool) -> str:
        """The guard's reason when a guarded site is listed whole, whatever the scope: policy leaves it to a person,
        unless the line says force=yes. "" for every other name."""
        why = self.guard.why(registered) if name == registered else ""
        return f"the line says force=yes; {why}" if why and force else why

    def _check_address(self, entry: Entry, column: int, force: bool) -> None:
        """Raises Wrong for an address or network that may not be listed."""
        if not entry.addr:
            return
        if entry.length < (WIDEST_IPV4 if len(entry.addr) == 4 else WIDEST_IPV6):
            what = f"{entry.value} is too wide: it would block whole registries' worth of hosts"
            raise Wrong(column, what, f"list networks of /{WIDEST_IPV4} (IPv4) or /{WIDEST_IPV6} (IPv6) and longer")
        if self.protected is not None and not force:
            why = self.protected.why_network(entry.addr, entry.length)
            if why:
                raise Wrong(column, f"{entry.value} may not be listed: {why}", "take it out, or add force=yes")


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


def _parse_hosts(first: Word, names: list[Word]) -> list[tuple[Entry, int]]:
    """The names of a hosts file's line and their columns; names of this host itself say nothing. Raises Wrong."""
    listed = [word for word in names if word.text.lower() not in _LOCAL_NAMES]
    if not listed and parse_address(first.text.partition("%")[0]):
        return []
    if parse_address(first.text) not in _SINKS:
        what = f'unexpected word "{show(names[0].text)}"'
        raise Wrong(
            names[0].column, what, "put one indicator on a line; options are written key=value, comments after #"
        )
    return [(Entry(DOMAIN, parse_name(word.text, word.column)), word.column) for word in listed]


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
