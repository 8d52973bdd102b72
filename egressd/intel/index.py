"""The index: which indicator covers a name, an address or a URL. Immutable; a new one is built and swapped whole.

What covers what, for a listed name N with registered domain R (DESIGN section 5):

    scope        N itself   below N   any other name of R, R too
    registered   host       host      sibling
    host         host       host      -
    exact        host       -         -

Of several that cover: host before sibling, then the longer listed value, the higher confidence, the earlier source and
line. A name under a public suffix of the private section (a tenant) has a registered domain of its own, so tenants
never meet.

A URL indicator covers its host's requests whose target is its path, or goes on after it at a boundary: after a path
that ends in `/`, `?`, `&` or `=` anything may follow, after any other only `/`, `?`, `&`, `;` or `#`. Paths keep their
case.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from egressd.intel.networks import NetworkTable, embedded_ipv4, parse_network
from egressd.model import Indicator, Match
from egressd.names import Suffixes

_OPEN_ENDS: Final = frozenset("/?&=")
_BOUNDARIES: Final = frozenset("/?&;#")

Group = tuple[Indicator, ...]  # of one value, the preferred one first


class Index:
    """Every indicator of every list. A miss costs one suffix split and one look-up."""

    __slots__ = ("_addresses", "_by_added", "_hosts", "_networks", "_registered", "_suffixes", "_urls", "indicators")

    def __init__(
        self,
        indicators: tuple[Indicator, ...],
        suffixes: Suffixes,
        hosts: dict[str, Group],
        registered: dict[str, Group],
        addresses: dict[bytes, Group],
        networks: NetworkTable[Group],
        urls: dict[str, tuple[tuple[int, ...], dict[str, Group]]],
    ) -> None:
        self.indicators = indicators
        self._suffixes = suffixes
        self._hosts = hosts  # by listed name
        self._registered = (
            registered  # by registered domain; every one that has a listed name is in it, if only with ()
        )
        self._addresses = addresses
        self._networks = networks
        self._urls = urls  # by host: lengths of its paths, longest first, and the paths
        self._by_added = sorted((one for one in indicators if one.added_s), key=_added)

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
        )

    @classmethod
    def build(cls, indicators: Iterable[Indicator], suffixes: Suffixes) -> Index:
        """An index of `indicators` under the suffix list given, whatever list they were read under.

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
            {
                host: (
                    tuple(sorted({len(path) for path in paths}, reverse=True)),
                    {path: _group(found) for path, found in paths.items()},
                )
                for host, paths in urls.items()
            },
        )

    @property
    def size(self) -> int:
        """How many indicators there are, in force or not."""
        return len(self.indicators)

    def is_only(self, one: Indicator) -> bool:
        """Whether no other source has the same value, or covers the same registered domain."""
        groups: list[Group] = []
        if one.kind == "domain":
            groups = [self._hosts.get(one.value, ()), self._registered.get(one.registered_domain or one.value, ())]
        elif one.kind == "url":
            host, slash, path = one.value.partition("/")
            listed = self._urls.get(host.strip("[]"))
            groups = [listed[1].get(slash + path, ())] if listed is not None else []
        else:
            network = parse_network(one.value)
            if network is not None:
                groups = [self._addresses.get(network[0], ()), *self._networks.covering(network[0])]
        return all(other.source == one.source for group in groups for other in group)

    def match_name(self, name: str, now_s: int) -> Match | None:
        """What covers a normal name at a time (epoch seconds)."""
        registered, _, rule = self._suffixes.split(name)
        siblings = self._registered.get(registered or name)
        if siblings is None:
            return None
        listed = name
        while True:
            for one in self._hosts.get(listed, ()):
                if (one.scope != "exact" or listed == name) and _in_force(one, now_s):
                    return Match("host", one, registered, rule)
            if not registered or listed == registered:
                break
            listed = listed[listed.find(".") + 1 :]
        for one in siblings:
            if _in_force(one, now_s):
                return Match("sibling", one, registered, rule)
        return None

    def match_address(self, addr: bytes, now_s: int) -> Match | None:
        """What covers a packed address at a time; the most specific network first.

        An IPv6 address that carries an IPv4 address (NAT64, mapped, 6to4, Teredo) is matched as that too.
        """
        found = self._match_packed(addr, now_s)
        if found is None and len(addr) == 16:
            for inner in embedded_ipv4(addr):
                found = found or self._match_packed(inner, now_s)
        return found

    def _match_packed(self, addr: bytes, now_s: int) -> Match | None:
        for one in self._addresses.get(addr, ()):
            if _in_force(one, now_s):
                return Match("address", one, "", "")
        for group in self._networks.covering(addr):
            for one in group:
                if _in_force(one, now_s):
                    return Match("address", one, "", "")
        return None

    def match_url(self, host: str, path: str, now_s: int) -> Match | None:
        """What covers a request at a time; the longest listed path wins. `host` is a normal name or an address as text,
        `path` in origin form with its query."""
        listed = self._urls.get(host)
        if listed is None:
            return None
        lengths, paths = listed
        path = path if path.startswith("/") else "/" + path
        for length in lengths:
            if length > len(path):
                continue
            if length < len(path) and path[length] not in _BOUNDARIES and path[length - 1] not in _OPEN_ENDS:
                continue
            for one in paths.get(path[:length], ()):
                if _in_force(one, now_s):
                    return Match("url", one, one.registered_domain, one.suffix_rule)
        return None

    def pending_after(self, now_s: int) -> list[Indicator]:
        """Indicators that come into force after a time, in order of `added_s`: for searching history then."""
        return self._by_added[bisect_right(self._by_added, now_s, key=_added) :]


def _added(indicator: Indicator) -> int:
    return indicator.added_s


def _in_force(indicator: Indicator, now_s: int) -> bool:
    """From `added_s` on, until before `expires_s`."""
    return indicator.added_s <= now_s and (indicator.expires_s == 0 or now_s < indicator.expires_s)


def _preference(indicator: Indicator) -> tuple[int, int, str, int]:
    return -len(indicator.value), -indicator.confidence, indicator.source, indicator.line


def _group(indicators: list[Indicator]) -> Group:
    if len(indicators) > 1:
        indicators.sort(key=_preference)
    return tuple(indicators)
