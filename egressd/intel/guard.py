"""The guard: registered domains that many innocent people share, where a listed name must not condemn its siblings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from egressd.errors import Problem
from egressd.intel.entries import parse_name
from egressd.intel.lines import Wrong, parse_options, problem_at, show, split_comment, split_lines
from egressd.names import Suffixes

POPULAR_LIMIT: Final = 10_000  # ranks of a popularity list that count; further down, malware has bought its way in

CATEGORIES: Final = {
    "platform": "a platform of many services",
    "hosting": "shared hosting",
    "cdn": "a content delivery network",
    "ddns": "dynamic DNS",
    "shortener": "a link shortener",
    "update": "a software update service",
    "certificate": "a certificate service",
    "time": "a time service",
    "resolver": "a public resolver",
    "infrastructure": "infrastructure of the internet",
}
_OF_SERVERS: Final = frozenset({"platform", "cdn"})  # a label under such a suffix names a server, which tenants share


class Guard:
    """Guarded registered domains with the reason of each, immutable."""

    __slots__ = ("_limit", "_named", "_popular", "_popular_source", "_shared_suffixes", "size")

    def __init__(
        self,
        named: dict[str, str],
        popular: dict[str, tuple[int, int]],
        popular_source: str = "",
        limit: int = 0,
        shared_suffixes: frozenset[str] = frozenset(),
    ) -> None:
        """`named` holds the reason in words, `popular` (line, rank); `shared_suffixes` are names of `named` that guard
        the registered domains under them too."""
        self._named = named
        self._popular = popular
        self._popular_source = popular_source
        self._limit = limit
        self._shared_suffixes = shared_suffixes
        self.size = len(named.keys() | popular.keys())

    @classmethod
    def parse(
        cls,
        text: str,
        suffixes: Suffixes,
        source: str = "guard.txt",
        *,
        popular: str = "",
        popular_source: str = "popular.csv",
        popular_limit: int = POPULAR_LIMIT,
        own: Iterable[str] = (),
    ) -> tuple[Guard, list[Problem]]:
        """Read lines of `name category=WORD # reason`; a popularity list of `rank,name` lines in order of rank; and the
        operator's own domains. Names below a registered domain guard the registered domain."""
        problems: list[Problem] = []
        named: dict[str, str] = {}
        shared: set[str] = set()
        for number, name in enumerate(own, 1):
            try:
                domain = _registered(parse_name(name, 1), suffixes)
                named.setdefault(domain, f"{domain} is one of your own domains")
            except Wrong as wrong:
                problems.append(problem_at("own domains", number, wrong))
        for number, line in enumerate(split_lines(text), 1):
            try:
                entry = _parse_guarded(line)
            except Wrong as wrong:
                problems.append(problem_at(source, number, wrong))
                continue
            if entry is not None:
                name, category, reason = entry
                domain = _registered(name, suffixes)
                named.setdefault(domain, f"{domain} is {CATEGORIES[category]} ({source}:{number}: {reason})")
                if category in _OF_SERVERS and suffixes.is_suffix(domain):
                    shared.add(domain)
        ranks, more = _parse_popular(popular, popular_source, popular_limit, suffixes)
        return cls(named, ranks, popular_source, popular_limit, frozenset(shared)), problems + more

    def why(self, registered_domain: str) -> str:
        """Why a registered domain is guarded, in words with the place of the rule; "" when it is not."""
        reason = self._named.get(registered_domain)
        if reason is not None:
            return reason
        suffix = registered_domain.partition(".")[2]
        if suffix in self._shared_suffixes:
            return self._named[suffix]
        entry = self._popular.get(registered_domain)
        if entry is None:
            return ""
        place = f"{self._popular_source}:{entry[0]}: rank {entry[1]}"
        return f"{registered_domain} is among the {self._limit} most popular names ({place})"


NO_GUARD: Final = Guard({}, {})


def _registered(name: str, suffixes: Suffixes) -> str:
    return suffixes.registered_domain(name) or name


def _parse_guarded(line: str) -> tuple[str, str, str] | None:
    """(name, category, reason) of a line, None when it is blank or comment. Raises Wrong."""
    words, reason = split_comment(line)
    if not words:
        return None
    name = parse_name(words[0].text, words[0].column)
    category = parse_options(words[1:], ("category",)).get("category")
    if category is None:
        raise Wrong(words[0].column, f"{name} has no category", "add category= and one of " + ", ".join(CATEGORIES))
    if category.text not in CATEGORIES:
        what = f'unknown category "{show(category.text)}"'
        raise Wrong(category.column, what, "categories are " + ", ".join(CATEGORIES))
    if not reason:
        raise Wrong(words[0].column, f"{name} has no reason", "add # and why it is guarded")
    return name, category.text, reason


def _parse_popular(
    text: str, source: str, limit: int, suffixes: Suffixes
) -> tuple[dict[str, tuple[int, int]], list[Problem]]:
    """(line, rank) by registered domain. Reading ends at the first rank beyond the limit."""
    ranks: dict[str, tuple[int, int]] = {}
    problems: list[Problem] = []
    for number, raw in enumerate(split_lines(text) if text else [], 1):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        rank, comma, name = line.partition(",")
        try:
            if not comma or len(rank) > 9 or not (rank.isascii() and rank.isdigit()):
                raise Wrong(1, f'not "rank,name": "{show(line)}"', "use a list such as Tranco's in its CSV form")
            if int(rank) > limit:
                break
            name = parse_name(name, len(rank) + 2)
        except Wrong as wrong:
            problems.append(problem_at(source, number, wrong))
            continue
        domain = suffixes.registered_domain(name)
        if domain:  # a popular suffix says nothing of its tenants
            ranks.setdefault(domain, (number, int(rank)))
    return ranks, problems
