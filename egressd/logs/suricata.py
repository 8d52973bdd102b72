"""Suricata's eve.json: dns in its three versions, http, tls, quic and flow (docs.suricata.io, "Eve JSON Format").

Version 1 of dns has a record a line, version 2 an `answers` list or a `grouped` object, version 3 (Suricata 8) a list
of `queries` and the types request and response. An event's source is the client, but for answers: some versions write
them as the packet went.
"""

from __future__ import annotations

from typing import Final

from egressd.errors import Malformed
from egressd.logs.json_line import Fields, parse_object
from egressd.logs.parser import LogParser
from egressd.logs.telling import MAX_ANSWERS, answer, flow_of, hello, question, record, request, rrtype_of
from egressd.logs.times import parse_iso
from egressd.model import FLOW, DnsRecord, FlowKey, Observation

MAX_QUESTIONS: Final = 16
DNS_PORT: Final = 53
_RST: Final = "04"  # alone, as to a segment with ACK that belongs to nothing (RFC 9293, 3.10.7.1)
_OURS: Final = frozenset(("dns", "http", "tls", "quic", "flow"))
_QUESTIONS: Final = frozenset(("query", "request"))
_ANSWERS: Final = frozenset(("answer", "response"))


class SuricataParser(LogParser):
    """Lines of one eve.json. `written_us` is when the last line was written, by Suricata's clock."""

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line tells of; nothing where it is of another sort. Raises Malformed."""
        event = parse_object(line)
        sort = event.text("event_type")
        if not sort:
            raise Malformed("an event without a type")
        ts_us = self.written_us = parse_iso(event.text("timestamp"))
        if sort not in _OURS:
            return []
        flow = flow_of(
            event.text("proto"), event.text("src_ip"), event.number("src_port"), event.text("dest_ip"),
            event.number("dest_port"), event.number("icmp_type"),
        )  # fmt: skip
        if flow is None:
            return []
        if sort == "dns":
            return self._dns(event.inner("dns"), ts_us, flow)
        found: Observation | None
        if sort == "http":
            http = event.inner("http")
            found = request(
                ts_us, flow, http.text("http_method"), http.text("url"), _authority(http),
                http.text("http_user_agent"), self.sensor,
            )  # fmt: skip
        elif sort == "flow":
            if _came_only(event):
                return []
            start = event.inner("flow").text("start")
            begun_us = parse_iso(start) if start else ts_us
            found = Observation(FLOW, begun_us, 0, flow, "", "", None, 0, "", self.sensor)
        else:
            tls = event.inner(sort)
            version = tls.text("version") if sort == "quic" else ""
            found = hello(
                ts_us, flow, tls.text("sni"), quic=sort == "quic", sensor=self.sensor,
                version=int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0,
            )  # fmt: skip
        return [found] if found is not None else []

    def _dns(self, dns: Fields, ts_us: int, flow: FlowKey) -> list[Observation]:
        sort = dns.text("type")
        asked = dns.objects("queries", MAX_QUESTIONS)
        if not asked and dns.text("rrname"):
            asked = [dns]
        if sort in _QUESTIONS:
            return [
                question(ts_us, flow, one.text("rrname"), rrtype_of(one.text("rrtype")), dns.number("id"), self.sensor)
                for one in asked
            ]
        if sort not in _ANSWERS or not asked:
            return []
        if flow.client_port == DNS_PORT != flow.server_port:
            flow = FlowKey(flow.proto, flow.server, flow.server_port, flow.client, flow.client_port)
        name = asked[0].text("rrname")
        rrtype = rrtype_of(asked[0].text("rrtype"))
        return [answer(ts_us, flow, name, rrtype, _records(dns, name), dns.number("id"), self.sensor)]


def _came_only(event: Fields) -> bool:
    """Whether nothing of a flow was sent to its server, but for a RST: with `midstream`, or of a port known as a
    server's, the receiver of what looks like an answer stands as its client, and anybody can send a host such a thing,
    under any address."""
    return event.inner("flow").members.get("pkts_toserver") == 0 or event.inner("tcp").text("tcp_flags_ts") == _RST


def _authority(http: Fields) -> str:
    hostname = http.text("hostname")
    return f"[{hostname}]" if ":" in hostname and not hostname.startswith("[") else hostname


def _records(dns: Fields, name: str) -> list[DnsRecord]:
    found = [
        record(one.text("rrname") or name, one.text("rdata"), rrtype_of(one.text("rrtype")), one.number("ttl"))
        for one in dns.objects("answers", MAX_ANSWERS)
    ]
    grouped = dns.inner("grouped")
    for sort in ("CNAME", "A", "AAAA"):
        found += [record(name, rdata) for rdata in grouped.texts(sort, MAX_ANSWERS)]
    if dns.text("rdata"):  # version 1
        found.append(record(name, dns.text("rdata"), rrtype_of(dns.text("rrtype")), dns.number("ttl")))
    return [one for one in found if one is not None]
