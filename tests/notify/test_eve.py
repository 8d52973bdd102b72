"""EVE records: times, addresses, community ids, one record of each kind, and hostile text in all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    ICMP,
    QUIC_SNI,
    SOCKS_HOST,
    TCP,
    TLS_SNI,
    UDP,
    ClientHello,
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    FlowKey,
    HttpRequest,
    Observation,
    SocksRequest,
)
from egressd.notify.eve import (
    community_id,
    render_address,
    render_event,
    render_line,
    render_observation,
    render_summary,
    render_time,
)
from tests.detect.scene import A, B, Scene, X, at, flow, packed, record, when

C2 = "c2.bad.example"


def key(proto: int, client: str, client_port: int, server: str, server_port: int) -> FlowKey:
    return FlowKey(proto, packed(client), client_port, packed(server), server_port)


# -- times, addresses, ids


@pytest.mark.parametrize(
    ("ts_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000+0000"),
        (1_429_661_520_000_001, "2015-04-22T00:12:00.000001+0000"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999+0000"),
        (253_402_300_800_000_000, "9999-12-31T23:59:59.000000+0000"),  # a capture may claim any time
        (1 << 80, "9999-12-31T23:59:59.000000+0000"),
    ],
)
def test_times(ts_us: int, text: str) -> None:
    assert render_time(ts_us) == text


@pytest.mark.parametrize("text", ["10.0.0.5", "2001:db8::5", "::ffff:10.0.0.5"])
def test_addresses(text: str) -> None:
    assert packed(render_address(packed(text))) == packed(text)
    assert render_address(b"") == ""


# Published with the Community ID specification (corelight/community-id-spec, baseline, seed 0).
PUBLISHED = [
    (TCP, "128.232.110.120", 34855, "66.35.250.204", 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (UDP, "192.168.1.52", 54585, "8.8.8.8", 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
]


def test_community_ids_without_ports() -> None:
    """Of ICMP as published: type of request and answer stand for ports. Of others the ends and the protocol alone."""
    echo = FlowKey(ICMP, packed("192.168.0.89"), 77, packed("192.168.0.1"), 8)
    assert community_id(echo) == "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="
    assert community_id(key(50, A, 0, X, 0)) == community_id(key(50, X, 0, A, 0))
    assert community_id(key(50, A, 0, X, 0)) != community_id(key(47, A, 0, X, 0))


@pytest.mark.parametrize(
    ("proto", "name", "ports"),
    [(ICMP, "ICMP", 0), (58, "IPv6-ICMP", 0), (50, "ESP", 0), (47, "GRE", 0), (132, "SCTP", 2), (253, "253", 0)],
)
def test_a_contact_of_another_protocol_bears_its_name_and_the_ports_that_it_has(
    proto: int, name: str, ports: int
) -> None:
    record = render_observation(Observation(FLOW, at(0), 1, key(proto, A, 7, X, 8), "", "", None))
    assert record["proto"] == name
    assert len([field for field in record if field.endswith("_port")]) == ports


@pytest.mark.parametrize(("proto", "client", "client_port", "server", "server_port", "wanted"), PUBLISHED)
def test_community_ids_as_published(
    proto: int, client: str, client_port: int, server: str, server_port: int, wanted: str
) -> None:
    assert community_id(key(proto, client, client_port, server, server_port)) == wanted
    assert community_id(key(proto, server, server_port, client, client_port)) == wanted


ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
PORTS = st.integers(0, 65535)


@given(st.sampled_from([TCP, UDP]), st.binary(min_size=4, max_size=4), PORTS, st.binary(min_size=4, max_size=4), PORTS)
def test_community_ids_are_equal_both_ways(proto: int, one: bytes, one_port: int, two: bytes, two_port: int) -> None:
    there = community_id(FlowKey(proto, one, one_port, two, two_port))
    assert there == community_id(FlowKey(proto, two, two_port, one, one_port))
    assert len(there) == 30


def test_a_flow_id_is_a_whole_number_for_every_reader_of_json() -> None:
    seen = Observation(FLOW, at(0), 1, flow(A, X), "", "", None)
    first = render_observation(seen)["flow_id"]
    assert 0 <= first < 1 << 53
    assert render_observation(Observation(FLOW, at(0), 1, flow(B, X), "", "", None))["flow_id"] != first


# -- observations


def rendered(
    kind: str, detail: Any, name: str = C2, note: str = "", version: int = 0, file: str = ""
) -> dict[str, Any]:
    proto = UDP if kind in (QUIC_SNI, DNS_QUERY, DNS_ANSWER) else TCP
    seen = Observation(kind, at(0), 7, key(proto, A, 40000, X, 443), name, name or "Raw\\032", detail, version, note)
    return render_observation(seen, file)


def test_what_every_observation_has() -> None:
    assert rendered(FLOW, None) == {
        "timestamp": "2023-11-14T22:13:20.000000+0000",
        "event_type": "flow",
        "pcap_cnt": 7,
        "src_ip": A,
        "src_port": 40000,
        "dest_ip": X,
        "dest_port": 443,
        "proto": "TCP",
        "flow_id": rendered(FLOW, None)["flow_id"],
        "community_id": community_id(flow(A, X)),
    }
    assert rendered(FLOW, None, file="a.pcap")["pcap_filename"] == "a.pcap"
    live = render_observation(Observation(FLOW, at(0), 0, flow(A, X), "", "", None), "a.pcap")
    assert "pcap_cnt" not in live and "pcap_filename" not in live
    assert rendered(FLOW, None, note="ambiguous")["egressd"] == {"note": "ambiguous"}


def test_dns() -> None:
    questions = (DnsQuestion(C2, C2, 1), DnsQuestion("", "odd\\032name", 65500))
    records = (
        record(C2, X),
        record(C2, "other.example"),
        DnsRecord(C2, C2, 65, 9, b"", "", "", (packed(X),), True),
        DnsRecord("", "odd\\032name", 16, 9, b"", "", "", (), False),
        record(C2, "2001:db8::9"),
    )
    asked = rendered(DNS_QUERY, DnsMessage(5, False, 0, 0, False, questions, (), 0, False, ""))
    assert asked["event_type"] == "dns" and asked["proto"] == "UDP"
    assert asked["dns"] == {
        "type": "request",
        "id": 5,
        "queries": [{"rrname": C2, "rrtype": "A"}, {"rrname": "odd\\032name", "rrtype": "TYPE65500"}],
    }
    message = DnsMessage(5, True, 0, 3, True, questions[:1], records, 4, False, "record is cut")
    assert rendered(DNS_ANSWER, message)["dns"] == {
        "type": "response",
        "id": 5,
        "queries": [{"rrname": C2, "rrtype": "A"}],
        "rcode": 3,
        "answers": [
            {"rrname": C2, "rrtype": "A", "rdata": X, "ttl": 60},
            {"rrname": C2, "rrtype": "CNAME", "rdata": "other.example", "ttl": 60},
            {"rrname": C2, "rrtype": "HTTPS", "hints": [X], "ech": True, "ttl": 9},
            {"rrname": "odd\\032name", "rrtype": "TXT", "ttl": 9},
        ],
        "tc": True,
        "error": "record is cut",
    }


def test_http() -> None:
    request = HttpRequest("GET", "http://c2.bad.example/x", C2, C2, 8080, "agent", "other.example", "/x")
    assert rendered(HTTP_HOST, request)["http"] == {
        "hostname": C2,
        "http_port": 8080,
        "url": "http://c2.bad.example/x",
        "http_method": "GET",
        "http_user_agent": "agent",
        "header_host": "other.example",
    }
    plain = rendered(HTTP_HOST, HttpRequest("GET", "/x", "", "Raw\\032", 0, "", "", "/x"), "")["http"]
    assert (plain["hostname"], plain["http_port"], "header_host" in plain) == ("Raw\\032", 443, False)


@pytest.mark.parametrize(("version", "text"), [(0x0304, "TLS 1.3"), (0x0300, "SSLv3"), (0x7F1C, "0x7f1c")])
def test_tls(version: int, text: str) -> None:
    hello = ClientHello(C2, C2, version, ("h2", "http/1.1"), "outer", "why")
    wanted = {"sni": C2, "version": text, "alpn": ["h2", "http/1.1"], "ech": "outer", "ech_reason": "why"}
    assert rendered(TLS_SNI, hello)["tls"] == wanted
    assert rendered(TLS_SNI, ClientHello("", "", version, (), "", ""), "")["tls"] == {
        "sni": "Raw\\032",
        "version": text,
    }


@pytest.mark.parametrize(("version", "text"), [(1, "1"), (0x6B3343CF, "0x6b3343cf"), (0xFF00001D, "0xff00001d")])
def test_quic(version: int, text: str) -> None:
    said = rendered(QUIC_SNI, ClientHello(C2, C2, 0x0304, ("h3",), "", ""), version=version)
    assert (said["event_type"], said["quic"]) == ("quic", {"sni": C2, "version": text, "alpn": ["h3"]})


def test_socks() -> None:
    assert rendered(SOCKS_HOST, SocksRequest(5, 1, C2, C2, b"", 443))["socks"] == {
        "version": 5,
        "hostname": C2,
        "port": 443,
    }
    seen = Observation(SOCKS_HOST, at(0), 1, flow(A, X), "", "", SocksRequest(4, 1, "", "", packed("203.0.113.9"), 80))
    assert render_observation(seen)["socks"]["hostname"] == "203.0.113.9"


# -- events


def test_a_contact_from_sighting_to_totals() -> None:
    scene = Scene(enforced=True)
    scene.resolve(0, A, C2, X)
    scene.flow(1, A, X)
    scene.reply(1.1, A, X)
    scene.engine.finish()
    records = [render_event(event, "f.pcap", "office") for event in scene.events]
    kinds = ["sighting", "incident", "decision", "decision", "sighting", "attempt", "leak", "incident"]
    assert [one["event_type"] for one in records] == kinds
    assert all(one["egressd"]["segment"] == "office" and one["src_ip"] == A for one in records)
    sighting, incident, block, extend, _, attempt, leak, _ = records
    indicator = {"value": C2, "source": "l.txt", "line": 1, "threat": "case", "confidence": 100, "scope": "registered"}
    assert sighting["egressd"] == {
        "registered_domain": "bad.example",
        "name": C2,
        "match_level": "host",
        "suffix_rule": "example",
        "indicator": indicator,
        "via": "dns",
        "client": A,
        "retro": False,
        "count": 1,
        "first_seen": sighting["timestamp"],
        "last_seen": sighting["timestamp"],
        "incident": "I1",
        "campaign": "C1",
        "segment": "office",
    }
    assert (sighting["pcap_cnt"], sighting["pcap_filename"]) == (1, "f.pcap")
    assert (incident["egressd"]["state"], "count" in incident["egressd"]) == ("opened", False)
    assert (block["egressd"]["action"], block["egressd"]["scope"]) == ("block", "registered_domain")
    assert extend["egressd"]["targets"] == [{"kind": "address", "value": X}]
    assert (attempt["egressd"]["decision_id"], attempt["egressd"]["new_client"]) == ("D1", True)
    assert leak["egressd"]["count"] == attempt["egressd"]["count"] == 1
    totals = render_event(scene.incidents[0], "f.pcap", state="totals")
    assert "pcap_cnt" not in totals
    ours = totals["egressd"]
    assert (ours["count"], ours["attempts"], ours["answered"]) == (2, 1, 1)
    assert (ours["names"], ours["via"]) == ({C2: 2}, {"dns": 1, "flow": 1})


def test_a_decision_of_time_alone_names_no_client() -> None:
    scene = Scene(f"{C2} expires={when(10)}")
    scene.question(0, A, C2)
    scene.flow(20, B, X)
    record = render_event(scene.decisions[-1])
    assert record["egressd"]["rule"] == "expired"
    assert not {"src_ip", "pcap_cnt"} & record.keys()
    assert "client" not in record["egressd"]


def test_an_address_that_the_packet_did_not_go_to_is_named() -> None:
    scene = Scene("203.0.113.0/24")
    scene.socks(0, A, X, "", address="203.0.113.9")
    scene.flow(1, A, "203.0.113.10")
    first, second = (render_event(one) for one in scene.sightings)
    assert (first["dest_ip"], first["egressd"]["address"]) == (X, "203.0.113.9")
    assert (second["dest_ip"], "address" in second["egressd"]) == ("203.0.113.10", False)


def test_a_summary_stands_last_and_has_no_packet() -> None:
    record = render_summary(at(0), {"packets": 3})
    assert record == {
        "timestamp": "2023-11-14T22:13:20.000000+0000",
        "event_type": "summary",
        "egressd": {"packets": 3},
    }


# -- hostile text


@given(st.text(max_size=40), st.text(max_size=40))
def test_lines_are_one_line_of_ascii_whatever_is_in_them(one: str, other: str) -> None:
    request = HttpRequest(one, other, "", one, 0, other, one, other)
    record = rendered(HTTP_HOST, request, "", note=one)
    record["http"]["hostname"] = one
    line = render_line(record)
    assert not set(line.encode()) - set(range(0x20, 0x7F))
    assert json.loads(line) == record


def test_a_line_is_compact() -> None:
    assert render_line({"a": 1, "b": ["é"]}) == '{"a":1,"b":["\\u00e9"]}'
