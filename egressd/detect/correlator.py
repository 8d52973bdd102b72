"""Observation and index meet: which indicators does what was seen match, and how closely."""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import ip_address
from typing import Final, NamedTuple

from egressd.detect.calendar import NEVER_US
from egressd.detect.resolutions import Resolutions, place_of
from egressd.intel.allowances import ALLOW_DESTINATION, NEVER_BLOCK, Allowance, Allowances
from egressd.intel.index import NEVER_S, Skip
from egressd.intel.layered import AnyIndex
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    QUIC_SNI,
    TLS_SNI,
    DnsMessage,
    HttpRequest,
    Indicator,
    Match,
    Observation,
    SocksRequest,
)
from egressd.names import Suffixes
from egressd.units import SECOND_US
from egressd.wire.http_head import parse_ipv4

# Names whose verdict is remembered. A flood of random names only makes the table turn over: 4 MB at most.
CACHED_VERDICTS: Final = 32_768
CACHED_ADDRESSES: Final = 8_192
MAX_ALIASES: Final = 16  # listed names that one answer is found to lead to: 64 KB hold 2,000, each a sighting
_ABSENT: Final = object()
# CNAME, SRV, DNAME, SVCB, HTTPS: the target stands for the name asked about. Of SRV the address often comes along, and
# is not asked for (RFC 2782).
_ALIASES: Final = (5, 33, 39, 64, 65)


class Hit(NamedTuple):
    """A name or address of an observation that matched; `url` where a URL did. `address` is the one that matched, which
    need not be where the packet went: it may be asked of a proxy, or be no more than what a client says."""

    name: str
    match: Match
    url: str = ""
    address: bytes = b""


class Correlator:
    """Matches observations with an index, minus what the allowances take out. Replaced whole when lists change."""

    def __init__(self, index: AnyIndex, allowances: Allowances, resolutions: Resolutions, suffixes: Suffixes) -> None:
        self.index = index
        self.allowances = allowances
        self._resolutions = resolutions
        self._suffixes = suffixes
        self._verdicts: dict[str, Match | None] = {}
        self._leaving: dict[str, Match | None] = {}
        self._last_name: str | None = None  # asked about last, and its verdict
        self._last_verdict: Match | None = None
        self._of_addresses: dict[bytes, Match | None] = {}
        self._lapses_s = sorted({one.expires_s for one in allowances.allowances if one.expires_s})
        self._verdicts_begin_us = 0
        self._verdicts_end_us = 0
        self._exempt: dict[str, list[Allowance]] = {}
        for one in allowances.allowances:
            if one.kind in (ALLOW_DESTINATION, NEVER_BLOCK):
                self._exempt.setdefault(one.value, []).append(one)
        self.clients_ignored = 0

    def match_name(self, name: str, ts_us: int) -> Match | None:
        """The best match of a normalised name at packet time `ts_us`, or None."""
        if not self._verdicts_begin_us <= ts_us < self._verdicts_end_us:
            self._keep_verdicts(ts_us // SECOND_US)
        elif name is self._last_name:  # one observation asks several times
            return self._last_verdict
        verdict = self._verdicts.get(name, _ABSENT)
        if verdict is _ABSENT:
            now_s = ts_us // SECOND_US
            verdict = self.index.match_name(name, now_s)
            if verdict is not None and self._is_ignored(verdict, now_s):
                verdict = self.index.match_name(name, now_s, self._ignored(now_s))
            if len(self._verdicts) >= CACHED_VERDICTS:
                self._leaving, self._verdicts = self._verdicts, {}
            elif self._leaving:
                self._leaving.popitem()
            self._verdicts[name] = verdict
        self._last_name = name
        self._last_verdict = verdict  # type: ignore[assignment]
        return self._last_verdict

    def match_address(self, address: bytes, ts_us: int) -> Match | None:
        """The best match of a packed address at packet time `ts_us`, or None."""
        if not self._verdicts_begin_us <= ts_us < self._verdicts_end_us:
            self._keep_verdicts(ts_us // SECOND_US)
        verdict = self._of_addresses.get(address, _ABSENT)
        if verdict is _ABSENT:
            now_s = ts_us // SECOND_US
            verdict = self.index.match_address(address, now_s)
            if verdict is not None and self._is_ignored(verdict, now_s):
                verdict = self.index.match_address(address, now_s, self._ignored(now_s))
            if len(self._of_addresses) >= CACHED_ADDRESSES:
                self._of_addresses.clear()
            self._of_addresses[address] = verdict
        return verdict  # type: ignore[return-value]

    def match_url(self, host: str, path: str, ts_us: int) -> Match | None:
        """The best match of a request at packet time `ts_us`, or None."""
        now_s = ts_us // SECOND_US
        match = self.index.match_url(host, path, now_s)
        if match is not None and self._is_ignored(match, now_s):
            return self.index.match_url(host, path, now_s, self._ignored(now_s))
        return match

    def match(self, seen: Observation, direct: bool = True, attributed: str = "") -> list[Hit]:
        """Everything in `seen` that matches, best first; empty when nothing does or an allowance covers it. `direct`
        is False when the packet went to a proxy: an allowance for the proxy's address allows nothing behind it.
        `attributed` is the name of a connection without one."""
        kind = seen.kind
        if kind == FLOW:
            hits = self._flow_hits(seen, attributed)
        elif kind == TLS_SNI:
            match = self.match_name(seen.name, seen.ts_us) if seen.name else None
            hits = [] if match is None else [Hit(seen.name, match)]
        else:
            hits = self._hits(seen)
        if not hits:
            return hits
        client = seen.flow.client
        server = b"" if kind in (DNS_QUERY, DNS_ANSWER) or not direct else seen.flow.server
        if self.is_allowed("", server, client, seen.ts_us):
            return []
        now_s = seen.ts_us // SECOND_US
        return [hit for hit in hits if self.allowances.allows(hit.name, hit.address, client, now_s) is None]

    def is_allowed(self, name: str, server: bytes, client: bytes, ts_us: int) -> bool:
        """Whether an allowance takes this contact out: the client is ignored, or may go there."""
        now_s = ts_us // SECOND_US
        if self.allowances.ignores_client(client, now_s) is not None:
            self.clients_ignored += 1
            return True
        return self.allowances.allows(name, server, client, now_s) is not None

    def is_innocent(self, name: str, ts_us: int) -> bool:
        """Whether a block of the address under `name` would harm: no indicator covers it, or an operator allows it to
        somebody, or wants it never blocked."""
        return self.match_name(name, ts_us) is None or self.is_exempt(name, ts_us)

    def is_exempt(self, name: str, ts_us: int) -> bool:
        """Whether allow-destination (for any client) or never-block names `name` or a name above it."""
        if not self._exempt:
            return False
        now_s = ts_us // SECOND_US
        while name:
            for one in self._exempt.get(name, ()):
                if not one.expires_s or now_s < one.expires_s:
                    return True
            name = name.partition(".")[2]
        return False

    def co_tenants(self, address: bytes, domain: str, ts_us: int) -> list[str]:
        """Other registered domains on `address` that no indicator covers: whom a block would harm."""
        others = self._resolutions.co_tenants(address, frozenset((domain,)), ts_us)
        return [name for name in others if self.is_innocent(name, ts_us)]

    def _hits(self, seen: Observation) -> list[Hit]:
        kind = seen.kind
        ts_us = seen.ts_us
        if kind == DNS_ANSWER:
            return self._answer_hits(seen)
        hits: list[Hit] = []
        if seen.name:
            match = self.match_name(seen.name, ts_us)
            if match is not None:
                hits.append(Hit(seen.name, match))
        if kind == QUIC_SNI:
            return hits
        detail = seen.detail
        if kind == DNS_QUERY:
            if isinstance(detail, DnsMessage) and len(detail.questions) > 1:
                for question in detail.questions[1:]:
                    self._add(hits, question.name, ts_us)
        elif isinstance(detail, HttpRequest):
            self._add_http(hits, seen, detail)
        elif isinstance(detail, SocksRequest) and detail.address:
            match = self.match_address(detail.address, ts_us)
            if match is not None:
                hits.append(Hit("", match, "", detail.address))
        return hits

    def _add(self, hits: list[Hit], name: str, ts_us: int) -> None:
        if name and all(hit.name != name for hit in hits):
            match = self.match_name(name, ts_us)
            if match is not None:
                hits.append(Hit(name, match))

    def _add_http(self, hits: list[Hit], seen: Observation, request: HttpRequest) -> None:
        """Host and request target may disagree (domain fronting, proxies): both are matched, and the URL."""
        self._add(hits, request.header_host, seen.ts_us)
        host = seen.name
        if not host and request.raw_host:
            address = _literal(request.raw_host, self._resolutions.nat64)
            if address:
                host = request.raw_host.strip("[]")
                match = self.match_address(address, seen.ts_us)
                if match is not None:
                    hits.append(Hit("", match, "", address))
        if host and request.path:
            match = self.match_url(host, request.path, seen.ts_us)
            if match is not None:
                hits.append(Hit(seen.name, match, host + request.path))

    def _flow_hits(self, seen: Observation, name: str) -> list[Hit]:
        """A connection matches by its address, or by the one name that its client resolved to get there."""
        flow = seen.flow
        match = self.match_address(flow.server, seen.ts_us)
        if match is not None:
            return [Hit("", match, "", flow.server)]
        match = self.match_name(name, seen.ts_us) if name else None
        return [Hit(name, match)] if match is not None else []

    def attributed(self, seen: Observation) -> str:
        """The name that a connection without one is for, as far as that is sure: what its client resolved last to reach
        this address, unless another site lives there too. Then the connection's own SNI or Host will tell."""
        flow = seen.flow
        name = self._resolutions.name_for(flow.client, flow.server, seen.ts_us)
        if not name:
            return ""
        domain = self._resolutions.domain_of(name)
        return "" if self._resolutions.is_shared(flow.server, domain, seen.ts_us) else name

    def _answer_hits(self, seen: Observation) -> list[Hit]:
        """An innocent question may be answered with a listed name (a CNAME chain, RFC 9460 AliasMode)."""
        detail = seen.detail
        hits: list[Hit] = []
        if isinstance(detail, DnsMessage) and (not seen.name or self.match_name(seen.name, seen.ts_us) is None):
            for record in detail.answers[: detail.answer_count]:
                if record.target and record.rrtype in _ALIASES and record.target != seen.name:
                    self._add(hits, record.target, seen.ts_us)
                    if len(hits) >= MAX_ALIASES:
                        break
        return hits

    # -- what an allowance ignores hides nothing else

    def _is_ignored(self, match: Match, now_s: int) -> bool:
        return self.allowances.ignores_indicator(match.indicator, now_s) is not None

    def _ignored(self, now_s: int) -> Skip:
        """What an allowance takes out of the lists now."""

        def is_ignored(one: Indicator) -> bool:
            return self.allowances.ignores_indicator(one, now_s) is not None

        return is_ignored

    def _keep_verdicts(self, now_s: int) -> None:
        """Forget what was remembered when it may not hold any more at `now_s`."""
        if self._verdicts_begin_us <= now_s * SECOND_US < self._verdicts_end_us:
            return
        begin_s, end_s = self.index.changes_around(now_s)
        following = bisect_right(self._lapses_s, now_s)
        if following:
            begin_s = max(begin_s, self._lapses_s[following - 1])
        if following < len(self._lapses_s):
            end_s = min(end_s, self._lapses_s[following])
        self._verdicts_begin_us = begin_s * SECOND_US
        self._verdicts_end_us = end_s * SECOND_US if end_s != NEVER_S else NEVER_US
        self._last_name = None
        self._verdicts.clear()
        self._of_addresses.clear()


def _literal(text: str, nat64: tuple[tuple[bytes, int], ...]) -> bytes:
    """The packed address that `text` spells, or b""; one that leads to an IPv4 address as that."""
    address = parse_ipv4(text)
    if address:
        return address
    try:
        return place_of(ip_address(text.strip("[]")).packed, nat64)
    except ValueError:
        return b""
