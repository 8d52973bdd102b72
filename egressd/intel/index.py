"""The index: which indicator covers a name, an address or a URL. Immutable; a new one is built and swapped whole.

What covers what, for a listed name N with registered domain R:

    scope        N itself   below N   any other name of R, R too
    registered   host       host      sibling
    host         host       host      -
    exact        host       -         -

Of several that cover: host before sibling, then the longer listed value, the higher confidence, the earlier source and
line. A name under a public suffix of the private section (a tenant) has a registered domain of its own, so tenants
never meet.

A URL indicator covers its host's requests whose target is its path, or goes on after it at a boundary: after a path
that ends in `/`, `?`, `&` or `=` anything may follow, after any other only `/`, `?`, `&`, `;` or `#`. Paths keep their
case; both are compared in the normal form of `intel.paths`, in which lists are read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from egressd.intel.networks import NAT64_WELL_KNOWN, NetworkTable, embedded_ipv4, parse_network
from egressd.intel.paths import normal_path
from egressd.model import Indicator, Match
from egressd.names import Suffixes

_OPEN_ENDS: Final = frozenset("/?&=")
_BOUNDARIES: Final = frozenset("/?&;#")

NEVER_S: Final = 1 << 61

Group = tuple[Indicator, ...]  # of one value, the preferred one first
Paths = tuple[tuple[int, ...], dict[str, Group]]  # of one host: lengths of its paths, longest first, and the paths
Skip = Callable[[Indicator], bool]  # whether an indicator is to be left out of an answer


class Index:
    """Every indicator of every list. A miss costs one suffix split and one look-up."""

    __slots__ = (
        *("_addresses", "_by_added", "_changes_s", "_hosts", "_networks", "_registered", "_suffixes", "_urls"),
        *("indicators", "nat64"),
    )

    def __init__(
        self,
        indicators: tuple[Indicator, ...],
        suffixes: Suffixes,
        hosts: dict[str, Group],
        registered: dict[str, Group],
        addresses: dict[bytes, Group],
        networks: NetworkTable[Group],
        urls: dict[str, Paths],
        by_added: list[Indicator],
        changes_s: list[int],
        nat64: tuple[tuple[bytes, int], ...],
    ) -> None:
        self.indicators = indicators
        self.nat64 = nat64  # prefixes whose addresses are matched as the IPv4 address in them too (RFC 6052)
        self._suffixes = suffixes
        self._hosts = hosts  # by listed name
        self._registered = (
            registered  # by registered domain; every one that has a listed name is in it, if only with ()
        )
        self._addresses = addresses
        self._networks = networks
        self._urls = urls  # by host
        self._by_added = by_added
        self._changes_s = changes_s  # when one comes into force or lapses

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        return Index, (
            self.indicators,
            self._suffixes,
            self._hosts,
            self._registered,
            self._addresses,
            self._networks,
            self._urls,
            self._by_added,
            self._changes_s,
            self.nat64,
        )

    @classmethod
    def build(
        cls,
        indicators: Iterable[Indicator],
        suffixes: Suffixes,
        nat64: tuple[tuple[bytes, int], ...] = (NAT64_WELL_KNOWN,),
    ) -> Index:
        """An index of `indicators` under the suffix list given, whatever list they were read under. `nat64` are
        prefixes whose addresses are matched as the IPv4 address in them too (RFC 6052).

        Raises ValueError for a kind that is none of model.Indicator's, or an address or network that is none.
        """
        ordered = tuple(indicators)
        hosts: dict[str, list[Indicator]] = {}
        registered: dict[str, list[Indicator]] = {}
        addresses: dict[bytes, list[Indicator]] = {}
        networks: dict[tuple[bytes, int], list[Indicator]] = {}
        urls: dict[str, dict[str, list[Indicator]]] = {}
        for one in ordered:
            if one.kind == "domain":
                hosts.setdefault(one.value, []).append(one)
                domain = suffixes.registered_domain(one.value)
                siblings = registered.setdefault(domain or one.value, [])
                if domain and one.scope == "registered":
                    siblings.append(one)
            elif one.kind == "url":
                host, slash, path = one.value.partition("/")
                urls.setdefault(host.strip("[]"), {}).setdefault(slash + path, []).append(one)
            else:
                network = parse_network(one.value)
                if network is None or one.kind not in ("address", "network"):
                    raise ValueError(f"no indicator: {one.kind} {one.value}")
                if network[1] == 8 * len(network[0]):
                    addresses.setdefault(network[0], []).append(one)
                else:
                    networks.setdefault(network, []).append(one)
        return cls(
            ordered,
            suffixes,
            {name: _group(found) for name, found in hosts.items()},
            {name: _group(found) for name, found in registered.items()},
            {addr: _group(found) for addr, found in addresses.items()},
            NetworkTable((addr, length, _group(found)) for (addr, length), found in networks.items()),
            {host: _by_path(paths) for host, paths in urls.items()},
            sorted((one for one in ordered if one.added_s), key=added_at),
            sorted({time for one in ordered for time in (one.added_s, one.expires_s) if time}),
            nat64,
        )

    def plus(self, more: list[Indicator]) -> Index:
        """An index of these and more indicators."""
        return Index.build((*self.indicators, *more), self._suffixes, self.nat64)

    @property
    def size(self) -> int:
        """How many indicators there are, in force or not."""
        return len(self.indicators)

    def match_name(self, name: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a normal name at a time (epoch seconds), those left out that `skip` is true of."""
        registered, _, rule = self._suffixes.split(name)
        return self.match_split(name, registered, rule, now_s, skip)

    def match_split(self, name: str, registered: str, rule: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """As `match_name`, of a name that is split already."""
        siblings = self._registered.get(registered or name)
        if siblings is None:
            return None
        listed = name
        while True:
            for one in self._hosts.get(listed, ()):
                if (one.scope != "exact" or listed == name) and _tells(one, now_s, skip):
                    return Match("host", one, registered, rule)
            if not registered or listed == registered:
                break
            listed = listed[listed.find(".") + 1 :]
        for one in siblings:
            if _tells(one, now_s, skip):
                return Match("sibling", one, registered, rule)
        return None

    def match_address(self, addr: bytes, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a packed address at a time; the most specific network first.

        An IPv6 address that carries an IPv4 address (NAT64, mapped, 6to4, Teredo) is matched as that too.
        """
        found = self.match_packed(addr, now_s, skip)
        if found is None and len(addr) == 16:
            for inner in embedded_ipv4(addr, self.nat64):
                found = found or self.match_packed(inner, now_s, skip)
        return found

    def match_packed(self, addr: bytes, now_s: int, skip: Skip | None = None) -> Match | None:
        """As `match_address`, of that address alone."""
        for one in self._addresses.get(addr, ()):
            if _tells(one, now_s, skip):
                return Match("address", one, "", "")
        for group in self._networks.covering(addr):
            for one in group:
                if _tells(one, now_s, skip):
                    return Match("address", one, "", "")
        return None

    def match_url(self, host: str, path: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a request at a time; the longest listed path wins. `host` is a normal name or an address as text,
        `path` in origin form with its query."""
        listed = self._urls.get(host)
        if listed is None:
            return None
        lengths, paths = listed
        path = normal_path(path if path.startswith("/") else "/" + path)
        for length in lengths:
            if covers_path(length, path):
                for one in paths.get(path[:length], ()):
                    if _tells(one, now_s, skip):
                        return Match("url", one, one.registered_domain, one.suffix_rule)
        return None

    def holds(self, one: Indicator) -> bool:
        """Whether this very indicator is listed, on whatever line."""
        wanted = one._replace(line=0)
        return any(other._replace(line=0) == wanted for other in self.alike(one))

    def alike(self, one: Indicator) -> Iterable[Indicator]:
        """The indicators of the same value."""
        if one.kind == "domain":
            return self._hosts.get(one.value, ())
        if one.kind == "url":
            host, slash, path = one.value.partition("/")
            listed = self._urls.get(host.strip("[]"))
            return listed[1].get(slash + path, ()) if listed is not None else ()
        network = parse_network(one.value)
        if network is None:
            return ()
        if network[1] == 8 * len(network[0]):
            return self._addresses.get(network[0], ())
        return [other for group in self._networks.covering(network[0]) for other in group]

    def listed(self) -> Iterator[Indicator]:
        """Every indicator."""
        return iter(self.indicators)

    def pending_after(self, now_s: int) -> list[Indicator]:
        """Indicators that come into force after a time, in order of `added_s`: for searching history then."""
        return self._by_added[bisect_right(self._by_added, now_s, key=added_at) :]

    def changes_around(self, now_s: int) -> tuple[int, int]:
        """The time since when, and the one until before which, the same indicators are in force; 0 and NEVER_S for
        always."""
        changes_s = self._changes_s
        following = bisect_right(changes_s, now_s)
        begin_s = changes_s[following - 1] if following else 0
        return begin_s, changes_s[following] if following < len(changes_s) else NEVER_S


def covers_path(length: int, path: str) -> bool:
    """Whether a listed path of so many characters, if `path` begins with it, covers `path`."""
    if length >= len(path):
        return length == len(path)
    return path[length] in _BOUNDARIES or path[length - 1] in _OPEN_ENDS


def added_at(indicator: Indicator) -> int:
    """When it comes into force."""
    return indicator.added_s


def _tells(indicator: Indicator, now_s: int, skip: Skip | None) -> bool:
    """In force from `added_s` on, until before `expires_s`; and not left out."""
    if indicator.added_s > now_s or (indicator.expires_s != 0 and now_s >= indicator.expires_s):
        return False
    return skip is None or not skip(indicator)


def preference(indicator: Indicator) -> tuple[int, int, str, int]:
    """Of several that cover the same, the least of this is told."""
    return -len(indicator.value), -indicator.confidence, indicator.source, indicator.line


def _by_path(paths: dict[str, list[Indicator]]) -> Paths:
    lengths = tuple(sorted({len(path) for path in paths}, reverse=True))
    return lengths, {path: _group(found) for path, found in paths.items()}


def _group(indicators: list[Indicator]) -> Group:
    if len(indicators) > 1:
        indicators.sort(key=preference)
    return tuple(indicators)
