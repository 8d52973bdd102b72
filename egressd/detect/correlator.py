"""Observation and index meet: which indicators does what was seen match, and how closely."""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import ip_address
from typing import Final, NamedTuple

from egressd.detect.resolutions import Resolutions
from egressd.intel.allowances import Allowances
from egressd.intel.index import Index
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    DnsMessage,
    HttpRequest,
    Indicator,
    Match,
    Observation,
    SocksRequest,
)

# Names whose verdict is remembered. A flood of random names only makes the table turn over: 8 MB at most.
CACHED_VERDICTS: Final = 65_536
MICROSECONDS: Final = 1_000_000
_ABSENT: Final = object()


class Hit(NamedTuple):
    """A name or address of an observation that matched; `url` where a URL did. `address` is the one that matched, which
    need not be where the packet went: it may be asked of a proxy, or be no more than what a client says."""

    name: str
    match: Match
    url: str = ""
    address: bytes = b""


class Correlator:
    """Matches observations with an index, minus what the allowances take out. Replaced whole when lists change."""

    def __init__(self, index: Index, allowances: Allowances, resolutions: Resolutions) -> None:
        self._index = index
        self._allowances = allowances
        self._resolutions = resolutions
        self._verdicts: dict[str, Match | None] = {}
        times = {time for i in index.indicators for time in (i.added_s, i.expires_s) if time}
        self._changes_s = sorted(times)  # when an indicator comes into force or lapses
        self._verdicts_end_s = 0
        self.clients_ignored = 0

    @property
    def indicators(self) -> tuple[Indicator, ...]:
        """What is matched with."""
        return tuple(self._index.indicators)

    def match_name(self, name: str, ts_us: int) -> Match | None:
        """The best match of a normalised name at packet time `ts_us`, or None."""
        now_s = ts_us // MICROSECONDS
        if now_s >= self._verdicts_end_s or len(self._verdicts) >= CACHED_VERDICTS:
            self._forget_verdicts(now_s)
        verdict = self._verdicts.get(name, _ABSENT)
        if verdict is _ABSENT:
            verdict = self._index.match_name(name, now_s)
            if verdict is not None and self._allowances.ignores_indicator(verdict.indicator, now_s) is not None:
                verdict = None
            self._verdicts[name] = verdict
        return verdict  # type: ignore[return-value]

    def match_address(self, address: bytes, ts_us: int) -> Match | None:
        """The best match of a packed address at packet time `ts_us`, or None."""
        now_s = ts_us // MICROSECONDS
        match = self._index.match_address(address, now_s)
        if match is not None and self._allowances.ignores_indicator(match.indicator, now_s) is not None:
            return None
        return match

    def match(self, seen: Observation) -> list[Hit]:
        """Everything in `seen` that matches, best first; empty when nothing does or an allowance covers it."""
        hits = self._hits(seen)
        if not hits:
            return hits
        client = seen.flow.client
        server = b"" if seen.kind in (DNS_QUERY, DNS_ANSWER) else seen.flow.server
        return [hit for hit in hits if not self.is_allowed(hit.name, server, client, seen.ts_us)]

    def is_allowed(self, name: str, server: bytes, client: bytes, ts_us: int) -> bool:
        """Whether an allowance takes this contact out: the client is ignored, or may go there."""
        now_s = ts_us // MICROSECONDS
        if self._allowances.ignores_client(client, now_s) is not None:
            self.clients_ignored += 1
            return True
        return self._allowances.allows(name, server, client, now_s) is not None

    def _hits(self, seen: Observation) -> list[Hit]:
        kind = seen.kind
        ts_us = seen.ts_us
        if kind == FLOW:
            return self._flow_hits(seen)
        if kind == DNS_ANSWER:
            return self._answer_hits(seen)
        hits: list[Hit] = []
        if seen.name:
            match = self.match_name(seen.name, ts_us)
            if match is not None:
                hits.append(Hit(seen.name, match))
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
            address = _literal(request.raw_host)
            if address:
                host = request.raw_host
                match = self.match_address(address, seen.ts_us)
                if match is not None:
                    hits.append(Hit("", match, "", address))
        if host and request.path:
            match = self._index.match_url(host, request.path, seen.ts_us // MICROSECONDS)
            if match is not None:
                hits.append(Hit(seen.name, match, host + request.path))

    def _flow_hits(self, seen: Observation) -> list[Hit]:
        """A connection matches by its address, or by the one name that its client resolved to get there."""
        flow = seen.flow
        match = self.match_address(flow.server, seen.ts_us)
        if match is not None:
            return [Hit("", match, "", flow.server)]
        name = self._resolutions.name_for(flow.client, flow.server, seen.ts_us)
        if not name:
            return []
        match = self.match_name(name, seen.ts_us)
        if match is None:
            return []
        # On a shared address the connection may be for another tenant: its own SNI or Host will tell.
        others = self._resolutions.co_tenants(flow.server, frozenset((match.registered_domain,)), seen.ts_us)
        return [] if others else [Hit(name, match)]

    def _answer_hits(self, seen: Observation) -> list[Hit]:
        """An innocent question may be answered with a listed name (a CNAME chain, RFC 9460 AliasMode)."""
        detail = seen.detail
        hits: list[Hit] = []
        if isinstance(detail, DnsMessage) and (not seen.name or self.match_name(seen.name, seen.ts_us) is None):
            for record in detail.answers[: detail.answer_count]:
                if record.target and record.rrtype in (5, 39, 64, 65) and record.target != seen.name:
                    self._add(hits, record.target, seen.ts_us)
        return hits

    def _forget_verdicts(self, now_s: int) -> None:
        self._verdicts.clear()
        following = bisect_right(self._changes_s, now_s)
        self._verdicts_end_s = self._changes_s[following] if following < len(self._changes_s) else 1 << 62


def _literal(text: str) -> bytes:
    """The packed address that `text` spells, or b""."""
    try:
        return ip_address(text.strip("[]")).packed
    except ValueError:
        return b""
