"""Squid's access.log: its native format, and `common` and `combined` where the request has its host
(squid-cache.org, logformat):

    squid     %ts.%03tu %6tr %>a %Ss/%03>Hs %<st %rm %ru %[un %Sh/%<a %mt
    common    %>a %[ui %[un [%tl] "%rm %ru HTTP/%rv" %>Hs %<st %Ss:%Sh
    combined  the same with "%{Referer}>h" "%{User-Agent}>h" before the last

A line is written when the request is over; the native format says how long it took, so that a CONNECT of hours counts
when it began. Squid escapes blanks and control bytes of a URL.
"""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import Malformed
from egressd.intel.networks import parse_address
from egressd.logs.parser import LogParser
from egressd.logs.telling import PROXIED, client_of, portless, request
from egressd.logs.times import parse_clf, parse_epoch
from egressd.model import Observation

_NATIVE: Final = re.compile(
    r"([0-9]{1,12}\.[0-9]{1,6}) +(-?[0-9]{1,12}) (\S+) [A-Z_]{1,60}/[0-9]{3} -?[0-9]+"
    r" (\S{1,40}) (\S+) \S+ [A-Z_]+/(\S+)"
)
_COMMON: Final = re.compile(r'(\S+) \S+ \S+ \[([^\]]{1,40})\] "(\S{1,40}) (\S+)(?: HTTP/[0-9.]{1,5})?" (.*)')
_AGENT: Final = re.compile(r'[0-9-]+ [0-9-]+ "[^"]*" "([^"]*)"')


class SquidParser(LogParser):
    """Lines of one access.log. `written_us` is when the last line was written, by Squid's clock."""

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line tells of; nothing where it has no host. Raises Malformed."""
        text = line.decode("utf-8", "replace")
        found = _NATIVE.match(text)
        if found is not None:
            ended, took_ms, client, method, url, peer = found.groups()
            self.written_us = parse_epoch(ended)
            begun_us = max(0, self.written_us - max(0, int(took_ms)) * 1_000)
            return self._told(begun_us, client, method, url, peer, "")
        found = _COMMON.fullmatch(text)
        if found is None:
            raise Malformed("no line of an access log")
        client, when, method, url, rest = found.groups()
        self.written_us = parse_clf(when)
        agent = _AGENT.match(rest)
        return self._told(self.written_us, client, method, url, "", agent[1] if agent is not None else "")

    def _told(self, ts_us: int, client: str, method: str, url: str, peer: str, agent: str) -> list[Observation]:
        flow = portless(client_of(client), parse_address(peer))
        if method != "CONNECT" and "://" not in url:
            return []  # error:invalid-request and its like
        told = request(ts_us, flow, method, url, "", agent, self.sensor, PROXIED)
        return [told] if told is not None else []
