"""Blind spots: conversations whose names we cannot read, counted per client.

An answer "not observed" is worth only as much as what could be observed, so every report shows these.
"""

from __future__ import annotations

from typing import Final

from egressd.intel.resolvers import Resolvers
from egressd.model import FLOW, HTTP_HOST, QUIC_SNI, TCP, TLS_SNI, ClientHello, Observation

DOT_PORT: Final = 853  # RFC 7858
DOQ_PORTS: Final = (853, 784, 8853)  # RFC 9250 section 4.1.1, and the two of its drafts
MAX_CLIENTS: Final = 65_536

DOT: Final = "dot"
DOH: Final = "doh"
DOQ: Final = "doq"
ECH: Final = "ech"
NO_NAME: Final = "tls_no_name"


class BlindSpots:
    """Counts conversations without readable names per client and sort."""

    def __init__(self, resolvers: Resolvers) -> None:
        self.resolvers = resolvers
        self.by_client: dict[bytes, dict[str, int]] = {}
        self.uncounted = 0  # conversations of clients beyond the bound: they are in the totals
        self._totals: dict[str, int] = {}

    def observe(self, seen: Observation) -> str:
        """Count what `seen` hides; return its sort, or "" when nothing is hidden."""
        sort = self._sort(seen)
        if sort:
            self._totals[sort] = self._totals.get(sort, 0) + 1
            counts = self.by_client.get(seen.flow.client)
            if counts is None:
                if len(self.by_client) >= MAX_CLIENTS:
                    self.uncounted += 1
                    return sort
                counts = self.by_client[seen.flow.client] = {}
            counts[sort] = counts.get(sort, 0) + 1
        return sort

    def totals(self) -> dict[str, int]:
        """All clients' counts by sort, in alphabetic order."""
        return dict(sorted(self._totals.items()))

    def _sort(self, seen: Observation) -> str:
        kind = seen.kind
        if kind == HTTP_HOST:
            return ""
        flow = seen.flow
        port = flow.server_port
        if kind == FLOW:
            if port == 443:
                return DOH if flow.server in self.resolvers.addresses else ""
            if flow.proto == TCP:
                return DOT if port == DOT_PORT else ""
            return DOQ if port in DOQ_PORTS else ""
        if kind not in (TLS_SNI, QUIC_SNI) or not isinstance(seen.detail, ClientHello):
            return ""
        if seen.detail.ech == "outer":
            return ECH
        if port == 443:
            if flow.server in self.resolvers.addresses:
                return ""  # its first packet was counted
        elif port == DOT_PORT if flow.proto == TCP else port in DOQ_PORTS:
            return ""  # so was that
        if seen.name and self.resolvers.operator(seen.name):
            return DOH
        return NO_NAME if not seen.raw_name else ""
