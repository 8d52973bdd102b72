"""Query logs of resolvers: dnsmasq, Unbound and BIND, from their own files and from syslog's.

    dnsmasq   Nov 25 10:00:00 dnsmasq[812]: query[A] name from 10.0.0.5            (log-queries; dnsmasq(8))
              Nov 25 10:00:00 dnsmasq[812]: 7 10.0.0.5/50000 query[A] name from 10.0.0.5   (log-queries=extra)
              Nov 25 10:00:00 dnsmasq[812]: 7 10.0.0.5/50000 reply name is 198.51.100.7
    Unbound   [1700000000] unbound[812:0] info: 10.0.0.5 name. A IN                (log-queries; unbound.conf(5))
              [1700000000] unbound[812:0] reply: 10.0.0.5 name. A IN NOERROR 0.021000 0 52   (log-replies, with tags)
    BIND      25-Nov-2026 10:00:00.123 queries: info: client @0x7f 10.0.0.5#50000 (name): query: name IN A +E(0)K (S)
              (S is the address that was asked; category queries)

A name is a client's choice. BIND writes what is not plain in it as escapes and Unbound as question marks; dnsmasq lets
blanks stand, so that only the last `from` of a line is its own.
"""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import Malformed
from egressd.intel.networks import parse_address
from egressd.logs.parser import LogParser
from egressd.logs.telling import client_of, named, portless, question, rrtype_of
from egressd.logs.times import parse_epoch, parse_iso, parse_named, parse_syslog
from egressd.model import DNS_ANSWER, TCP, UDP, FlowKey, Observation
from egressd.units import SECOND_US

DNS_PORT: Final = 53
MAX_SKEW_US: Final = 30_000_000  # how long a resolver tries at most, by its own account of it
_ISO: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_SYSLOG: Final = r"[A-Z][a-z]{2} {1,2}[0-9]{1,2} [0-9:]{8}(?:\.[0-9]{1,6})?"
_EPOCH: Final = r"\[[0-9]{1,12}(?:\.[0-9]{1,9})?\]"
_NAMED: Final = r"[0-9]{2}-[A-Z][a-z]{2}-[0-9]{4} [0-9:.]+"
_STAMP: Final = re.compile(rf"({_SYSLOG}|{_ISO}|{_EPOCH}|{_NAMED}) ")
_DNSMASQ: Final = re.compile(r"(?:\S{1,255} )?dnsmasq(?:\[[0-9]+\])?: (?:[0-9]+ (\S+)/([0-9]{1,5}) )?(.*)")
_DNSMASQ_ASKED: Final = re.compile(r"query\[([^\]]{1,20})\] (.*) from (\S+)")
_DNSMASQ_TOLD: Final = re.compile(r"(?:reply|cached) (.*) is (?:\S+)")
_UNBOUND: Final = re.compile(
    r"(?:\S{1,255} )?unbound(?:\[[0-9]+(?::[0-9a-f]+)?\])?:? (?:\[[0-9]+:[0-9a-f]+\] )?(info|query|reply): "
    r"([0-9A-Fa-f.:]+)(?:[@#][0-9]{1,5})? (\S+) (\S{1,20}) (IN|CH|HS|ANY|CLASS[0-9]{1,5})"
    r"(?: ([A-Z][A-Z0-9]{1,20}) ([0-9]{1,6}\.[0-9]{1,9}) .*)?"
)
_BIND: Final = re.compile(
    r"(?:.{0,300}? )?client (?:@0x[0-9a-f]+ )?([0-9A-Fa-f.:]+)(?:%[^#]{1,20})?#([0-9]{1,5})(?: \(\S*\))?:"
    r"(?: view [^:]{1,80}:)?(?: query:){1,2} (\S+) (\S{1,20}) (\S{1,20}) ([+-]\S*)"
    r"(?: \(([0-9A-Fa-f.:]+)(?:%[^)]{1,20})?\))?.*"
)


class _ResolverParser(LogParser):
    def _begin(self, line: bytes, now_us: int) -> str:
        """Read the time of a line; the rest of it."""
        text = line.decode("utf-8", "replace")
        found = _STAMP.match(text)
        if found is None:
            raise Malformed("a line without a time")
        stamp = found[1]
        if stamp.startswith("["):
            self.written_us = parse_epoch(stamp[1:-1])
        elif stamp[:1].isalpha():
            self.written_us = parse_syslog(stamp, now_us)
        elif stamp[2] == "-":
            self.written_us = parse_named(stamp)
        else:
            self.written_us = parse_iso(stamp)
        return text[found.end() :]


class DnsmasqParser(_ResolverParser):
    """Lines of dnsmasq. `written_us` is when the last line was written, by its clock."""

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line tells of; nothing where it is of another sort. Raises Malformed."""
        found = _DNSMASQ.fullmatch(self._begin(line, now_us))
        if found is None:
            raise Malformed("no line of dnsmasq")
        client, _, what = found.groups()
        asked = _DNSMASQ_ASKED.fullmatch(what)
        if asked is not None:
            rrtype, name, source = asked.groups()
            flow = portless(client_of(source))
            return [question(self.written_us, flow, name, rrtype_of(rrtype), 0, self.sensor)]
        told = _DNSMASQ_TOLD.fullmatch(what) if client else None
        if told is None:
            return []  # without log-queries=extra nothing says whom a reply was for
        name, raw = named(told[1])
        return [
            Observation(
                DNS_ANSWER, self.written_us, 0, portless(client_of(client)), name, raw, None, 0, "", self.sensor
            )
        ]


class UnboundParser(_ResolverParser):
    """Lines of Unbound. `written_us` is when the last line was written, by its clock."""

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line tells of; nothing where it is of another sort. Raises Malformed."""
        found = _UNBOUND.fullmatch(self._begin(line, now_us))
        if found is None:
            if b"unbound" not in line:
                raise Malformed("no line of Unbound")
            return []
        _, client, name, rrtype, _, _, took_s = found.groups()
        took_us = min(MAX_SKEW_US, round(float(took_s) * SECOND_US)) if took_s else 0
        asked_us = max(0, self.written_us - took_us)
        return [question(asked_us, portless(client_of(client)), name, rrtype_of(rrtype), 0, self.sensor)]


class BindParser(_ResolverParser):
    """Lines of BIND's query log. `written_us` is when the last line was written, by its clock."""

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line tells of; nothing where it is of another sort. Raises Malformed."""
        found = _BIND.fullmatch(self._begin(line, now_us))
        if found is None:
            return []  # other categories stand in the same file
        source, port, name, _, rrtype, flags, server_text = found.groups()
        client = client_of(source)
        server = parse_address(server_text) if server_text else b""
        flow = portless(client)
        if len(server) == len(client) and int(port) <= 65_535:
            flow = FlowKey(TCP if "T" in flags else UDP, client, int(port), server, DNS_PORT)
        return [question(self.written_us, flow, name, rrtype_of(rrtype), 0, self.sensor)]
