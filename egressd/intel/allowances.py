"""The four allowances, named apart because each lets another thing be, one a line, each with owner and reason:

    ignore-indicator bad.example   owner=alice reason="sinkholed since May"
    allow-destination good.example owner=bob reason="lab" client=192.0.2.7
    ignore-client 192.0.2.0/28     owner=bob reason="malware lab" expires=2030-01-31
    never-block 198.51.100.9       owner=noc reason="partner's VPN"

An ignored indicator is exactly the value named, in any list. A destination that is a name covers the names below it;
without client= it is allowed for all. What is never blocked still alerts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressd.errors import Problem
from egressd.intel.entries import ADDRESS, DOMAIN, NETWORK, Entry, parse_entry
from egressd.intel.lines import Word, Wrong, parse_options, parse_time, problem_at, show, split_comment, split_lines
from egressd.intel.networks import NAT64_WELL_KNOWN, NetworkTable, embedded_ipv4, parse_network
from egressd.model import Indicator
from egressd.names import Suffixes

IGNORE_INDICATOR: Final = "ignore-indicator"
ALLOW_DESTINATION: Final = "allow-destination"
IGNORE_CLIENT: Final = "ignore-client"
NEVER_BLOCK: Final = "never-block"
KINDS: Final = (IGNORE_INDICATOR, ALLOW_DESTINATION, IGNORE_CLIENT, NEVER_BLOCK)
WIDEST_IPV4: Final = 8  # prefix length; two of /1 are all there is
WIDEST_IPV6: Final = 7  # of the unique local addresses (RFC 4193)

_OPTIONS: Final = ("owner", "reason", "expires")


class Allowance(NamedTuple):
    """One line. `value` is a normal name, an address or network as text, or (ignore-indicator) a URL's `host/path`;
    `client` is an address or network as text, "" for every client. `expires_s` is epoch seconds, 0 = none."""

    kind: str
    value: str
    client: str
    owner: str
    reason: str
    expires_s: int
    source: str
    line: int


def parse_allowances(text: str, source: str, suffixes: Suffixes) -> tuple[list[Allowance], list[Problem]]:
    """The allowances of a text and everything that is wrong with it, in order of lines."""
    allowances: list[Allowance] = []
    problems: list[Problem] = []
    for number, line in enumerate(split_lines(text), 1):
        try:
            words, _ = split_comment(line)
            if words:
                allowances.append(_parse_allowance(words, source, number, suffixes))
        except Wrong as wrong:
            problems.append(problem_at(source, number, wrong))
    return allowances, problems


def _parse_allowance(words: list[Word], source: str, number: int, suffixes: Suffixes) -> Allowance:
    kind = words[0].text
    if kind not in KINDS:
        raise Wrong(words[0].column, f'unknown allowance "{show(kind)}"', "write one of " + ", ".join(KINDS))
    if len(words) == 1:
        raise Wrong(words[0].column, f"{kind} names nothing", f"write {kind} and what it is for")
    entry = parse_entry(words[1])
    _check_entry(kind, entry, words[1], suffixes)
    options = parse_options(words[2:], ("client", *_OPTIONS) if kind == ALLOW_DESTINATION else _OPTIONS)
    for key in ("owner", "reason"):
        if key not in options:
            raise Wrong(words[0].column, f"{kind} {entry.value} has no {key}=", f"add {key}= so that others know")
    expires_s = parse_time("expires", options.get("expires"))
    client = ""
    if "client" in options:
        inner = parse_entry(options["client"])
        if inner.kind not in (ADDRESS, NETWORK):
            raise Wrong(
                options["client"].column, f'not a client\'s address: "{show(inner.value)}"', "write client=192.0.2.7"
            )
        client = inner.value
    return Allowance(
        kind, entry.value, client, options["owner"].text, options["reason"].text, expires_s, source, number
    )


def _check_entry(kind: str, entry: Entry, word: Word, suffixes: Suffixes) -> None:
    """Raises Wrong when the kind takes no such entry, or it would switch egressd off."""
    shown = show(word.text)
    if kind == IGNORE_INDICATOR:
        return
    if entry.kind == NETWORK and entry.length < (WIDEST_IPV4 if len(entry.addr) == 4 else WIDEST_IPV6):
        what = f"{kind} {shown} would switch {'everything' if not entry.length else 'most of it'} off"
        raise Wrong(word.column, what, f"name networks of /{WIDEST_IPV4} (IPv4) or /{WIDEST_IPV6} (IPv6) and longer")
    if kind == IGNORE_CLIENT:
        if entry.kind not in (ADDRESS, NETWORK):
            raise Wrong(word.column, f'not a client\'s address: "{shown}"', "write an address or a network")
        return
    if entry.kind not in (DOMAIN, ADDRESS, NETWORK):
        raise Wrong(word.column, f'{kind} takes no URL: "{shown}"', "write its host")
    if entry.kind == DOMAIN:
        registered, _, rule = suffixes.split(entry.value)
        if not registered and not rule.endswith("(private)"):
            what = f"{kind} {shown} would cover every site under {entry.value} (rule {rule})"
            raise Wrong(word.column, what, "name the sites")


class _Destinations:
    """Allowances by name (it and below) and by network."""

    __slots__ = ("_names", "_nat64", "_networks")

    def __init__(self, allowances: list[Allowance], nat64: tuple[tuple[bytes, int], ...]) -> None:
        self._nat64 = nat64
        self._names: dict[str, list[Allowance]] = {}
        networks: dict[tuple[bytes, int], list[Allowance]] = {}
        for one in allowances:
            network = parse_network(one.value)
            if network is None:
                self._names.setdefault(one.value, []).append(one)
            else:
                networks.setdefault(network, []).append(one)
        self._networks: NetworkTable[list[Allowance]] = NetworkTable(
            (addr, length, found) for (addr, length), found in networks.items()
        )

    def covering(self, name: str, addr: bytes) -> list[Allowance]:
        """Those for a name ("" when unknown), the longest first, then those for an address (b"" when unknown)."""
        found: list[Allowance] = []
        while name and self._names:
            found += self._names.get(name, ())
            name = name.partition(".")[2]
        for one in (addr, *embedded_ipv4(addr, self._nat64)) if addr else ():
            for group in self._networks.covering(one):
                found += group
        return found


class Allowances:
    """Every allowance, immutable. Each question answers with the allowance that applies at a time, or None."""

    __slots__ = ("_allowed", "_clients", "_clients_of", "_indicators", "_unblocked", "allowances", "nat64")

    def __init__(self, allowances: list[Allowance], nat64: tuple[tuple[bytes, int], ...] = (NAT64_WELL_KNOWN,)) -> None:
        """`nat64` are prefixes whose addresses are judged by the IPv4 address in them (RFC 6052)."""
        self.allowances = tuple(allowances)
        self.nat64 = nat64
        self._indicators: dict[str, list[Allowance]] = {}
        for one in allowances:
            if one.kind == IGNORE_INDICATOR:
                self._indicators.setdefault(one.value, []).append(one)
        self._allowed = _Destinations([one for one in allowances if one.kind == ALLOW_DESTINATION], nat64)
        self._unblocked = _Destinations([one for one in allowances if one.kind == NEVER_BLOCK], nat64)
        self._clients = _Destinations([one for one in allowances if one.kind == IGNORE_CLIENT], nat64)
        self._clients_of = {one: NetworkTable([(*_network(one.client), True)]) for one in allowances if one.client}

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        return Allowances, (list(self.allowances), self.nat64)

    def ignores_indicator(self, indicator: Indicator, now_s: int) -> Allowance | None:
        """By exactly the value that is listed, in any list."""
        return _first(self._indicators.get(indicator.value, []), now_s)

    def allows(self, name: str, server_addr: bytes, client_addr: bytes, now_s: int) -> Allowance | None:
        """By the destination's name or one above it, or its address, for this client."""
        for one in self._allowed.covering(name, server_addr):
            if not one.expires_s or now_s < one.expires_s:
                if not one.client or (client_addr and self._clients_of[one].longest(client_addr)):
                    return one
        return None

    def ignores_client(self, addr: bytes, now_s: int) -> Allowance | None:
        """By the client's address."""
        return _first(self._clients.covering("", addr), now_s)

    def never_blocks(self, name: str, addr: bytes, now_s: int) -> Allowance | None:
        """By the target's name or one above it, or its address."""
        return _first(self._unblocked.covering(name, addr), now_s)


def _first(allowances: list[Allowance], now_s: int) -> Allowance | None:
    for one in allowances:
        if not one.expires_s or now_s < one.expires_s:
            return one
    return None


def _network(text: str) -> tuple[bytes, int]:
    network = parse_network(text)
    if network is None:
        raise ValueError(f"no address or network: {text}")
    return network
