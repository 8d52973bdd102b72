"""Renders observations and events as EVE-shaped JSON objects, one a line (Suricata's field names; docs/events.md).

The output is ASCII: every byte from the wire outside it is escaped by JSON, so a hostile name cannot reach a terminal.
The same input gives the same bytes: keys stand in a fixed order and no clock is read.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b, sha1
from typing import Any, Final

from egressd.intel import networks
from egressd.model import (
    BEHAVIOUR,
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    ICMP,
    ICMP6,
    QUIC_SNI,
    REPLY,
    SOCKS_HOST,
    TAP,
    TCP,
    TLS_SNI,
    UDP,
    Attempt,
    ClientHello,
    Decision,
    DnsMessage,
    DnsRecord,
    Event,
    FlowKey,
    HttpRequest,
    Incident,
    Match,
    Observation,
    Sighting,
    SocksRequest,
)
from egressd.wire.dns import RRTYPE_NAMES
from egressd.wire.portless import PORTED, REQUESTS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TLS_VERSIONS: Final = {0x0300: "SSLv3", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}
_EVENT_TYPES: Final = {
    DNS_QUERY: "dns",
    DNS_ANSWER: "dns",
    HTTP_HOST: "http",
    TLS_SNI: "tls",
    QUIC_SNI: "quic",
    SOCKS_HOST: "socks",
    FLOW: "flow",
}
# As Suricata calls them; others by their number.
_PROTOCOLS: Final = {
    ICMP: "ICMP", 4: "IP-IP", TCP: "TCP", UDP: "UDP", 33: "DCCP", 41: "IPv6", 47: "GRE", 50: "ESP", ICMP6: "IPv6-ICMP",
    97: "ETHERIP", 132: "SCTP", 136: "UDPLITE", 137: "MPLS-IN-IP",
}  # fmt: skip
# How an observation's kind is called where people read it.
VIA: Final = {
    DNS_QUERY: "dns",
    DNS_ANSWER: "dns-answer",
    HTTP_HOST: "http",
    TLS_SNI: "tls",
    QUIC_SNI: "quic",
    SOCKS_HOST: "socks",
    FLOW: "flow",
    REPLY: "reply",
    BEHAVIOUR: "behaviour",
}

Record = dict[str, Any]


def render_line(record: Record) -> str:
    """One record as one line of ASCII JSON, without the line's end."""
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"))


def render_time(ts_us: int) -> str:
    """Microseconds of epoch as ISO 8601 in UTC with microseconds, as Suricata writes it."""
    try:
        moment = _EPOCH + timedelta(microseconds=ts_us)
    except OverflowError:  # a capture may claim any time
        moment = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000").rjust(31, "0")


def spoken_time(ts_us: int) -> str:
    """A time in a sentence: `2026-11-25 17:14 UTC`."""
    return f"{render_time(ts_us)[:16].replace('T', ' ')} UTC"


@lru_cache(maxsize=65_536)
def render_address(address: bytes) -> str:
    """A packed address as text; "" for none."""
    return networks.render_address(address) if address else ""


def community_id(flow: FlowKey) -> str:
    """Community ID v1, seed 0 (https://github.com/corelight/community-id-spec): equal for both directions."""
    proto = flow.proto
    one = (flow.client, flow.client_port)
    two = (flow.server, flow.server_port)
    if proto in REQUESTS:  # in the place of ports the type, and that of the answer to it
        one = (flow.client, flow.server_port)
        two = (flow.server, REQUESTS[proto].get(flow.server_port, 0))
    if one > two:
        one, two = two, one
    digest = sha1(usedforsecurity=False)
    digest.update(b"\0\0" + one[0] + two[0] + bytes((proto, 0)))
    if proto in PORTED or proto in REQUESTS:
        digest.update(one[1].to_bytes(2, "big") + two[1].to_bytes(2, "big"))
    return "1:" + b64encode(digest.digest()).decode()


@lru_cache(maxsize=65_536)
def _flow_fields(flow: FlowKey) -> tuple[tuple[str, Any], ...]:
    if not flow.proto:  # of history, where protocol and ports are not kept
        ends = (("src_ip", render_address(flow.client)), ("dest_ip", render_address(flow.server)))
        return tuple((key, value) for key, value in ends if value)
    raw = flow.client + flow.server + bytes((flow.proto,))
    raw += flow.client_port.to_bytes(2, "big") + flow.server_port.to_bytes(2, "big")
    source: tuple[tuple[str, Any], ...] = (("src_ip", render_address(flow.client)), ("src_port", flow.client_port))
    target: tuple[tuple[str, Any], ...] = (("dest_ip", render_address(flow.server)), ("dest_port", flow.server_port))
    if flow.proto not in PORTED:
        source, target = source[:1], target[:1]
    return (
        *source,
        *target,
        ("proto", _PROTOCOLS.get(flow.proto, str(flow.proto))),
        ("flow_id", int.from_bytes(blake2b(raw, digest_size=8).digest(), "big") >> 11),  # fits a double
        ("community_id", community_id(flow)),
    )


def _head(event_type: str, ts_us: int, number: int, file: str) -> Record:
    record: Record = {"timestamp": render_time(ts_us), "event_type": event_type}
    if number:
        record["pcap_cnt"] = number
        if file:
            record["pcap_filename"] = file
    return record


def render_observation(seen: Observation, file: str = "") -> Record:
    """An observation; `file` is the capture it comes from when there are several."""
    record = _head(_EVENT_TYPES.get(seen.kind, seen.kind), seen.ts_us, seen.number, file)
    record.update(_flow_fields(seen.flow))
    detail = seen.detail
    if isinstance(detail, DnsMessage):
        record["dns"] = _render_dns(detail)
    elif isinstance(detail, HttpRequest):
        record["http"] = {
            "hostname": seen.name or seen.raw_name,
            "http_port": detail.port or seen.flow.server_port,
            "url": detail.target,
            "http_method": detail.method,
            "http_user_agent": detail.user_agent,
        }
        if detail.header_host:
            record["http"]["header_host"] = detail.header_host
    elif isinstance(detail, ClientHello):
        hello: Record = {"sni": seen.name or seen.raw_name}
        if seen.kind == QUIC_SNI:
            hello["version"] = f"{seen.version:#x}" if seen.version > 0xFF else str(seen.version)
        else:
            hello["version"] = _TLS_VERSIONS.get(detail.version, f"{detail.version:#06x}")
        if detail.alpn:
            hello["alpn"] = list(detail.alpn)
        if detail.ech:
            hello["ech"] = detail.ech
            hello["ech_reason"] = detail.ech_reason
        record["quic" if seen.kind == QUIC_SNI else "tls"] = hello
    elif isinstance(detail, SocksRequest):
        record["socks"] = {
            "version": detail.version,
            "hostname": seen.name or seen.raw_name or render_address(detail.address),
            "port": detail.port,
        }
    if seen.note:
        record["egressd"] = {"note": seen.note}
    return record


def _render_dns(message: DnsMessage) -> Record:
    dns: Record = {"type": "response" if message.is_response else "request", "id": message.txid}
    dns["queries"] = [{"rrname": q.name or q.raw_name, "rrtype": _rrtype(q.rrtype)} for q in message.questions]
    if message.is_response:
        dns["rcode"] = message.rcode
        dns["answers"] = [_render_record(record) for record in message.answers[: message.answer_count]]
    if message.truncated:
        dns["tc"] = True
    if message.error:
        dns["error"] = message.error
    return dns


def _render_record(record: DnsRecord) -> Record:
    rendered: Record = {"rrname": record.name or record.raw_name, "rrtype": _rrtype(record.rrtype)}
    rdata = render_address(record.address) or record.target or record.raw_target
    if rdata:
        rendered["rdata"] = rdata
    if record.hints:
        rendered["hints"] = [render_address(hint) for hint in record.hints]
    if record.has_ech:
        rendered["ech"] = True
    rendered["ttl"] = record.ttl_s
    return rendered


def _rrtype(number: int) -> str:
    return RRTYPE_NAMES.get(number, f"TYPE{number}")  # RFC 3597 section 5


def render_event(
    event: Event,
    file: str = "",
    segment: str = "",
    state: str = "opened",
    device_name: str = "",
    stages: Sequence[str] = (),
    candidate_of: Sequence[tuple[str, str]] = (),
    at_us: int = 0,
) -> Record:
    """A sighting, decision, attempt, leak or incident. `segment` is the client's; `state`, the device's name, the
    campaign's `stages`, what it may be part of (campaign, reason) and when it came into that state (0: with a contact)
    are an incident's."""
    if isinstance(event, Sighting):
        record = _render_sighting(event, file)
    elif isinstance(event, Decision):
        record = _render_decision(event, file)
    elif isinstance(event, Attempt):
        record = _render_attempt(event, file)
    else:
        record = _render_incident(event, file, "folded" if event.folded_into else state, at_us)
        if device_name:
            record["egressd"]["device_name"] = device_name
        if stages:
            record["egressd"]["stages"] = list(stages)
        if candidate_of:
            record["egressd"]["candidate_of"] = [{"campaign": one, "reason": why} for one, why in candidate_of]
    if segment:
        record["egressd"]["segment"] = segment
    return record


def _match_fields(match: Match, name: str) -> Record:
    indicator = match.indicator
    return {
        "registered_domain": match.registered_domain,
        "name": name,
        "match_level": match.level,
        "suffix_rule": match.suffix_rule,
        "indicator": {
            "value": indicator.value,
            "source": indicator.source,
            "line": indicator.line,
            "threat": indicator.threat,
            "confidence": indicator.confidence,
            "scope": indicator.scope,
        },
    }


def _render_sighting(event: Sighting, file: str) -> Record:
    record = _head("sighting", event.ts_us, event.number, file)
    record.update(_flow_fields(event.flow))
    ours = _match_fields(event.match, event.name)
    ours["via"] = VIA.get(event.via, event.via)
    ours["client"] = render_address(event.flow.client)
    if event.url:
        ours["url"] = event.url
    if event.address and event.address != event.flow.server:
        ours["address"] = render_address(event.address)  # asked of a proxy, or no more than a client's word
    if event.note:
        ours["note"] = event.note
    if event.parts:
        ours["score"] = event.match.indicator.confidence
        ours["parts"] = [part._asdict() for part in event.parts]
    ours["retro"] = event.retro
    ours["count"] = event.count
    ours["first_seen"] = render_time(event.first_us)
    ours["last_seen"] = render_time(event.last_us)
    ours["incident"] = event.incident
    ours["campaign"] = event.campaign
    if event.told_by:
        ours["source"] = event.source
        ours["new"] = event.new
        ours["sources"] = list(event.told_by)
    record["egressd"] = ours
    return record


def _render_decision(event: Decision, file: str) -> Record:
    record = _head("decision", event.ts_us, event.number, file)
    if event.client:  # nobody's traffic when time alone decided
        record["src_ip"] = render_address(event.client)
    ours: Record = {"decision_id": event.id, "action": event.action, "mode": event.mode}
    ours["scope"] = event.targets[0].kind
    ours["targets"] = [{"kind": target.kind, "value": target.value} for target in event.targets]
    ours["reason"] = event.reason
    ours["rule"] = event.rule.partition(":")[0]  # `share` for one that one client's share led to (detect/rules.py)
    ours["evidence"] = event.evidence
    ours.update(_match_fields(event.match, event.name))
    if event.client:
        ours["client"] = render_address(event.client)
    if event.campaign:  # what a person cuts off or blocks has none
        ours["campaign"] = event.campaign
    record["egressd"] = ours
    return record


def _render_attempt(event: Attempt, file: str) -> Record:
    record = _head("leak" if event.leak else "attempt", event.ts_us, event.number, file)
    record.update(_flow_fields(event.flow))
    ours: Record = {"decision_id": event.decision_id, "new_client": event.first, "count": event.count}
    ours["targets"] = [{"kind": event.target.kind, "value": event.target.value}]
    ours.update(_match_fields(event.match, event.name))
    ours["via"] = VIA.get(event.via, event.via)
    ours["client"] = render_address(event.flow.client)
    ours["incident"] = event.incident
    ours["campaign"] = event.campaign
    record["egressd"] = ours
    return record


def _render_incident(event: Incident, file: str, state: str, at_us: int) -> Record:
    totals = state != "opened"
    seen_us = event.last_us if totals else event.opened_us
    record = _head("incident", at_us or seen_us, 0 if totals else event.number, file)
    record["src_ip"] = render_address(event.client)
    ours: Record = {"incident": event.id, "state": state, "campaign": event.campaign}
    ours["client"] = render_address(event.client)
    if event.folded_into:
        ours["folded_into"] = event.folded_into
    if event.device:
        ours["device"] = event.device
    ours["addresses"] = [render_address(one) for one in event.addresses or [event.client]]
    ours.update(_match_fields(event.match, ""))
    del ours["name"]
    ours["retro"] = event.retro
    ours["first_seen"] = render_time(event.first_us)
    ours["last_seen"] = render_time(event.last_us)
    if totals:
        ours["count"] = event.contacts
        ours["attempts"] = event.attempts
        ours["answered"] = event.answered
        ours["names"] = dict(sorted(event.names.items()))
        ours["via"] = {VIA.get(via, via): count for via, count in sorted(event.via.items())}
        if event.sources.keys() - {TAP}:
            ours["sources"] = dict(sorted(event.sources.items()))
        if event.volume:
            ours["volume"] = event.volume
    record["egressd"] = ours
    return record


def render_feed(ts_us: int, fields: Mapping[str, Any]) -> Record:
    """A feed's new version is in force, or something is wrong with it, or no longer."""
    record = _head("feed", ts_us, 0, "")
    record["egressd"] = dict(fields)
    return record


def render_sensor(ts_us: int, fields: Mapping[str, Any]) -> Record:
    """Another sensor's log has gone silent, cannot be read, or lines come again."""
    record = _head("log_state", ts_us, 0, "")
    record["egressd"] = dict(fields)
    return record


def render_summary(ts_us: int, fields: Mapping[str, Any]) -> Record:
    """The last record: what was read, what was left out, what was found. `ts_us` is 0 when nothing was read that has a
    time; then the record has none."""
    record: Record = _head("summary", ts_us, 0, "") if ts_us else {"event_type": "summary"}
    record["egressd"] = dict(fields)
    return record
