"""The guard in front of every new version of a feed: what in it is poison, and whether the version is taken at all.

Two measures, because two things go wrong with feeds. One is a version that is no list any more: empty, a web page,
cut off, half of it gone, ten times as long, full of lines that cannot be read. Such a version is *refused whole*, and
the last good one stays in force. The other is a list with some lines that must never act: a public suffix, a
protected or special-purpose address, a name that you allow, a popular or shared site listed whole. Such a line is
*quarantined*: it is refused for good, whatever it says of itself (`force=yes` is a word for operators, a feed has no
say in it), it is shown with its line and reason, and it raises the alarm; the rest of the feed goes on protecting. A
single such line does not throw away a feed of a million good ones, for then one entry of google.com, which honest
feeds have had, would freeze them all. Many such lines say that the version was not made with care, or was made
against us; it is refused whole then:

    more than `quarantine_most` lines (20) and more than one in a thousand, or more than one line in ten

With `quarantine_most: 0` a single one is enough. So a hit on an allowed or popular name is refused in any case:
as a line always, as a feed from the threshold on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from egressd.errors import Problem
from egressd.intel.allowances import ALLOW_DESTINATION, NEVER_BLOCK, Allowance, Allowances
from egressd.intel.formats.jsontext import BROKEN
from egressd.intel.guard import Guard
from egressd.intel.networks import NetworkTable, carried_ipv4, first_address, parse_address, parse_network
from egressd.intel.protected import Protected
from egressd.model import Indicator
from egressd.names import Suffixes
from egressd.plural import count

# Why a version is refused whole.
EMPTY: Final = "empty"
PAGE: Final = "page"
TRUNCATED: Final = "truncated"
SHRUNK: Final = "shrunk"
GROWN: Final = "grown"
UNREADABLE: Final = "unreadable"
POISONED: Final = "poisoned"
REFUSALS: Final = (EMPTY, PAGE, TRUNCATED, SHRUNK, GROWN, UNREADABLE, POISONED)

# Why a line is quarantined.
SUFFIX: Final = "suffix"
PROTECTED: Final = "protected"
ALLOWED: Final = "allowed"
SHARED: Final = "shared"
IGNORED: Final = "ignored"  # a person has said so: it is left out without a word
BAD_LINE: Final = "bad-line"  # cannot be read: kept out as well, but by itself no sign of poison

BAD_SHARE: Final = 100  # more than one line in so many cannot be read: it is no list of that format
POISON_SHARE: Final = 1_000  # one poisoned line in so many is borne, where `quarantine_most` is fewer
POISON_DENSE: Final = 10  # more than one in so many never is
# Addresses that the networks of one version may hold: a sixteenth of IPv4. Lists of hijacked networks, the widest that
# are honest, hold a tenth of that; with 65,536 lines of /16 every server there is would be listed. Wider networks than
# /16 do not count: by themselves they are never blocked (detect/sharing.py).
MOST_COVERED: Final = 1 << 28
WIDEST: Final = 16
SMALL_CHANGE: Final = 20  # indicators; a short list may lose or gain so many, whatever share of it that is
MAX_SHOWN: Final = 16_384  # quarantined lines that are kept to be shown: every public suffix there is, with room
_HEAD: Final = 4_096  # characters of a text that are looked at to tell a web page

_JSON: Final = re.compile(r"\{|\[\s*(?:[\[{\"\]]|-?\d)")
_ORIGIN: Final = ("www.",)  # the same site in another name


class Bounds(NamedTuple):
    """What a feed may do from one version to the next. `shrink_percent` lost, or `grow_times` as many, is out of
    bounds; so is more than `quarantine_most` poisoned lines (see above)."""

    allow_empty: bool = False
    shrink_percent: int = 50
    grow_times: int = 10
    quarantine_most: int = 20


class Counts(NamedTuple):
    """What is remembered of the version in force: how many indicators it has, and whether its text ended in a line
    end."""

    indicators: int
    is_ended: bool


class Quarantined(NamedTuple):
    """A line of a feed that is kept out: where, what, and why in a word (`kind`) and in full. Hostile text in it is
    escaped already."""

    line: int
    value: str
    kind: str
    reason: str


class Verdict(NamedTuple):
    """What became of a version. `refused` is "" when it is taken, else a word of REFUSALS; `reason` says it in full.
    `quarantined` has the first MAX_SHOWN lines that are kept out; `poisoned` and `bad_lines` count them all."""

    refused: str
    reason: str
    indicators: tuple[Indicator, ...]
    quarantined: tuple[Quarantined, ...]
    poisoned: int
    bad_lines: int
    ignored: int
    counts: Counts


class Poison:
    """What no line of a feed may name, as of one moment: immutable, asked once for each indicator."""

    __slots__ = ("_allowances", "_guard", "_networks", "_now_s", "_parents", "_protected", "_suffixes")

    def __init__(
        self, suffixes: Suffixes, guard: Guard, protected: Protected, allowances: Allowances, now_s: int
    ) -> None:
        self._suffixes = suffixes
        self._guard = guard
        self._protected = protected
        self._allowances = allowances
        self._now_s = now_s
        self._parents: dict[str, Allowance] = {}  # names that have an allowed one below them
        networks: list[tuple[bytes, int, Allowance]] = []
        for one in allowances.allowances:
            if one.kind not in (ALLOW_DESTINATION, NEVER_BLOCK) or one.client:
                continue  # what one client may reach says nothing of all others
            if one.expires_s and one.expires_s <= now_s:
                continue
            network = parse_network(one.value)
            if network is not None:
                networks.append((first_address(*network), network[1], one))
                continue
            name = one.value.partition(".")[2]
            while name:
                self._parents.setdefault(name, one)
                name = name.partition(".")[2]
        self._networks: NetworkTable[Allowance] = NetworkTable(networks)

    def why(self, indicator: Indicator) -> tuple[str, str]:
        """(kind, reason) why a line may not act; ("", "") when it may. IGNORED when a person has decided on it: then it
        is no sign of poison; feeds are judged anew when that allowance ends."""
        if self._allowances.ignores_indicator(indicator, self._now_s) is not None:
            return IGNORED, "you ignore it"
        if indicator.kind == "domain":
            return self._why_name(indicator)
        if indicator.kind == "url":
            return self._why_url(indicator)
        network = parse_network(indicator.value)
        if network is None:
            return "", ""
        return self._why_network(*network)

    def _why_name(self, one: Indicator) -> tuple[str, str]:
        name, registered = one.value, one.registered_domain
        if not registered:
            return SUFFIX, f"it is a public suffix (rule {one.suffix_rule}): it would cover every site under it"
        if one.scope != "exact" and self._suffixes.has_suffixes_below(name):
            return SUFFIX, "public suffixes stand below it: it would cover other people's domains"
        if name == registered or any(name == prefix + registered for prefix in _ORIGIN):
            why = self._guard.why(registered)
            if why:
                return SHARED, f"a shared or popular site listed whole: {why}"
        allowed = self._allowed(name)
        if allowed is None and one.scope != "exact":
            allowed = self._parents.get(name)
        return (ALLOWED, tell(allowed)) if allowed is not None else ("", "")

    def _why_url(self, one: Indicator) -> tuple[str, str]:
        host, _, path = one.value.partition("/")
        addr = parse_address(host.strip("[]"))
        if addr:
            return self._why_network(addr, 8 * len(addr))
        if not path and one.registered_domain and host.removeprefix("www.") == one.registered_domain:
            why = self._guard.why(one.registered_domain)
            if why:
                return SHARED, f"a shared or popular site listed whole: {why}"
        allowed = self._allowed(host)
        return (ALLOWED, tell(allowed)) if allowed is not None else ("", "")

    def _why_network(self, addr: bytes, length: int) -> tuple[str, str]:
        why = self._protected.why_network(addr, length)
        if why:
            return PROTECTED, why
        allowed = self._networks.overlapping(addr, length)
        for inner in carried_ipv4(addr, length, self._allowances.nat64):
            allowed = allowed or self._networks.overlapping(inner.first, inner.length)
        if allowed is None and length == 8 * len(addr):
            allowed = self._allowances.allows("", addr, b"", self._now_s)
            allowed = allowed or self._allowances.never_blocks("", addr, self._now_s)
        return (ALLOWED, tell(allowed)) if allowed is not None else ("", "")

    def covers(self, value: str) -> int:
        """How many IPv4 addresses a listed network has blocked."""
        network = parse_network(value)
        if network is None:
            return 0
        carried = carried_ipv4(*network, self._allowances.nat64)
        lengths = [network[1]] if len(network[0]) == 4 else [one.length for one in carried]
        return sum(1 << (32 - length) for length in lengths if length >= WIDEST)

    def _allowed(self, name: str) -> Allowance | None:
        found = self._allowances.allows(name, b"", b"", self._now_s)
        return found or self._allowances.never_blocks(name, b"", self._now_s)


def tell(allowance: Allowance) -> str:
    """An allowance as the reason for keeping a line out."""
    return (
        f"you allow it: {allowance.kind} {allowance.value} ({allowance.source}:{allowance.line},"
        f" owner {allowance.owner}: {allowance.reason})"
    )


def sniff(text: str, *, json_expected: bool = False) -> str:
    """Why a text cannot be a list by its look, "" when it may be one. Login pages, and errors in JSON, come with status
    200 too."""
    head = text[:_HEAD].lstrip("\ufeff \t\r\n")
    if head.startswith("<"):
        return "it is a web page or XML, no list"
    if _JSON.match(head) is not None:
        return "" if json_expected else "it is JSON, no list of lines (an error message?)"
    return "it is no JSON" if json_expected and head else ""


def judge(
    text: str,
    found: Iterable[object],
    poison: Poison,
    before: Counts | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008  (immutable)
    *,
    json_expected: bool = False,
    keep: Callable[[Indicator], object] | None = None,
) -> Verdict:
    """Whether a version may take the place of the one before. `found` is what the reader makes of the text: Indicator
    and Problem; whatever else it yields says nothing and is counted. It is read once, and not to its end when the
    version is refused for sure before. With `keep`, what is good is handed to it one by one, of a version that may be
    refused yet, and not held here."""
    page = sniff(text, json_expected=json_expected)
    is_ended = text.endswith("\n") or not text or json_expected
    if page:
        return Verdict(PAGE, page, (), (), 0, 0, 0, Counts(0, is_ended))
    reading = _Reading(poison, (text.count("\n") + 1) // BAD_SHARE, keep)
    reading.take(found)
    counts = Counts(reading.good, is_ended)
    refused, reason = _refusal(reading, counts, before, bounds, last_line=text.count("\n") + 1)
    return reading.verdict(refused, reason, counts)


def sift(
    text: str, found: Iterable[object], poison: Poison, keep: Callable[[Indicator], object] | None = None
) -> Verdict:
    """The last good version under what is allowed and protected now: it was taken before, so it is not refused, but
    lines that have become poison since are kept out. `keep` as in `judge`."""
    reading = _Reading(poison, text.count("\n") + 1, keep)
    reading.take(found)
    counts = Counts(reading.good, text.endswith("\n"))
    return reading.verdict("", "", counts)


class _Reading:
    """Sorts what the reader yields."""

    def __init__(self, poison: Poison, most_bad: int, keep: Callable[[Indicator], object] | None) -> None:
        self.indicators: list[Indicator] = []
        self.good = 0
        self._keep = keep or self.indicators.append
        self.quarantined: list[Quarantined] = []
        self.poisoned = 0
        self.bad = 0
        self.ignored = 0
        self.covered = 0  # IPv4 addresses of networks that are good
        self.last_bad = 0  # line of the last one that cannot be read
        self.is_hopeless = False  # more bad lines than the whole text may have
        self.is_broken = False  # the reader came no further, for what it reads is no JSON from there on
        self._poison = poison
        self._most_bad = most_bad

    def take(self, found: Iterable[object]) -> None:
        """All of it, or as much as it takes to know that it is refused."""
        why = self._poison.why
        keep = self._keep
        one: object = None
        for one in found:
            if isinstance(one, Indicator):
                kind, reason = why(one)
                if not kind:
                    keep(one)
                    self.good += 1
                    if one.kind == "network":
                        self.covered += self._poison.covers(one.value)
                    continue
                if kind == IGNORED:
                    self.ignored += 1
                    continue
                self.poisoned += 1
                self._show(one.line, one.value, kind, reason)
            elif isinstance(one, Problem):
                self.bad += 1
                self.last_bad = one.line
                self._show(one.line, "", BAD_LINE, one.what)
                if self.bad > self._most_bad + 1:  # and one for a last line that was cut off
                    self.is_hopeless = True
                    return
            else:
                self.ignored += 1
        self.is_broken = isinstance(one, Problem) and one.what.startswith(BROKEN)

    def verdict(self, refused: str, reason: str, counts: Counts) -> Verdict:
        """What was found, and what becomes of it."""
        return Verdict(
            refused, reason, () if refused else tuple(self.indicators), tuple(self.quarantined), self.poisoned,
            self.bad, self.ignored, counts,
        )  # fmt: skip

    def _show(self, line: int, value: str, kind: str, reason: str) -> None:
        if len(self.quarantined) < MAX_SHOWN:
            self.quarantined.append(Quarantined(line, value, kind, reason))


def _refusal(
    reading: _Reading, counts: Counts, before: Counts | None, bounds: Bounds, last_line: int
) -> tuple[str, str]:
    """(word, reason) when the version is refused, ("", "") when it is taken. The surest sign first."""
    good, poisoned, bad = counts.indicators, reading.poisoned, reading.bad
    lines = good + poisoned + bad
    if not lines and not bounds.allow_empty:
        return EMPTY, "it is empty; if that is right, set allow_empty: true"
    if reading.is_hopeless:
        return UNREADABLE, f"more than one line in {BAD_SHARE} cannot be read: is the format right?"
    if not counts.is_ended:
        if bad and reading.last_bad == last_line:
            return TRUNCATED, "its last line is cut off"
        if before is not None and before.is_ended:
            return TRUNCATED, "it ends within a line, which the version before did not: the rest is missing"
    if reading.is_broken:
        return TRUNCATED, f"its JSON is broken or cut off in line {reading.last_bad}: nothing behind that is read"
    if bad * BAD_SHARE > lines:
        share = f"{bad} of {count(lines, 'line')}"
        return UNREADABLE, f"{share} cannot be read, more than one in {BAD_SHARE}: is the format right?"
    most = max(bounds.quarantine_most, lines // POISON_SHARE) if bounds.quarantine_most else 0
    if poisoned > most or poisoned * POISON_DENSE > lines:
        share = f"{poisoned} of {count(lines, 'line')}"
        return POISONED, f"what must never be blocked is named by {share}, more than is borne"
    if reading.covered > MOST_COVERED:
        return POISONED, f"its networks hold {reading.covered:,} addresses, more than a sixteenth of all there are"
    return _size_refusal(good, before, bounds)


def _size_refusal(now: int, before: Counts | None, bounds: Bounds) -> tuple[str, str]:
    if before is None:
        return "", ""
    then = before.indicators
    if then - now >= SMALL_CHANGE and (then - now) * 100 >= then * bounds.shrink_percent:
        return SHRUNK, f"it shrank from {then} to {count(now, 'indicator')}, by {bounds.shrink_percent} % or more"
    if then and now - then >= SMALL_CHANGE and now >= then * bounds.grow_times:
        return GROWN, f"it grew from {then} to {now} indicators, to {bounds.grow_times} times or more"
    return "", ""
