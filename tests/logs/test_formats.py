"""Every format by lines as the programs write them; no line, whatever it holds, lets anything out but Malformed."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.logs.formats import MAX_LINE_BYTES, PARSERS
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    ICMP,
    QUIC_SNI,
    TCP,
    TLS_SNI,
    UDP,
    DnsMessage,
    FlowKey,
    HttpRequest,
    Observation,
)
from tests.detect.scene import flow, packed
from tests.logs.lines import NOW_US, TEN_US, ZEEK_DNS, ZEEK_HTTP, dns_wire, dnstap, eve, read

C2 = "c2.bad.example"
QUESTION = flow("10.0.0.5", "192.0.2.53", 50_000, 53, UDP)
WEB = flow("10.0.0.5", "198.51.100.7", 40_000, 443)
PING = FlowKey(ICMP, packed("10.0.0.5"), 0, packed("198.51.100.7"), 8)
DNS = {"src_port": 50_000, "dest_ip": "192.0.2.53", "dest_port": 53, "proto": "UDP"}
BACK = {"src_ip": "192.0.2.53", "src_port": 53, "dest_ip": "10.0.0.5", "dest_port": 50_000, "proto": "UDP"}
ALONE = FlowKey(0, packed("10.0.0.5"), 0, b"", 0)
ALIAS = [{"rrname": "www.good.example", "rrtype": "CNAME", "ttl": 60, "rdata": C2}]


def told(seen: Observation) -> tuple[str, int, FlowKey, str]:
    """What, when (microseconds after ten o'clock), who with whom, which name."""
    assert seen.sensor == "s"
    return seen.kind, seen.ts_us - TEN_US, seen.flow, seen.name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (eve("tls", sni="C2.bad.example", version="TLS 1.3"), (TLS_SNI, 250_000, WEB, C2)),
        (eve("quic", proto="UDP", version="1", sni=C2), (QUIC_SNI, 250_000, WEB._replace(proto=UDP), C2)),
        (eve("flow", start="2026-11-25T09:59:59.000000+0000", state="closed"), (FLOW, -1_000_000, WEB, "")),
        (eve("http", hostname=C2, url="/a", http_method="GET"), (HTTP_HOST, 250_000, WEB, C2)),
        (eve("dns", **DNS, type="query", id=7, rrname=C2, rrtype="A"), (DNS_QUERY, 250_000, QUESTION, C2)),
        (
            eve("dns", **DNS, version=2, type="query", id=7, rrname=C2, rrtype="A", tx_id=0),
            (DNS_QUERY, 250_000, QUESTION, C2),
        ),
        (
            eve("dns", **DNS, version=3, type="request", id=7, queries=[{"rrname": C2, "rrtype": "AAAA"}]),
            (DNS_QUERY, 250_000, QUESTION, C2),
        ),
        (
            eve("dns", **DNS, version=2, type="answer", id=7, rrname="www.good.example", rrtype="A", answers=ALIAS),
            (DNS_ANSWER, 250_000, QUESTION, "www.good.example"),
        ),
        (
            eve(
                "dns", **BACK, version=3, type="response", id=7, answers=ALIAS,
                queries=[{"rrname": "www.good.example", "rrtype": "A"}],
            ),
            (DNS_ANSWER, 250_000, QUESTION, "www.good.example"),
        ),
        (
            eve("dns", **DNS, version=2, type="answer", rrname="www.good.example", grouped={"CNAME": [C2]}),
            (DNS_ANSWER, 250_000, QUESTION, "www.good.example"),
        ),
        (
            eve("dns", **DNS, type="answer", rrname="www.good.example", rrtype="CNAME", rdata=C2, ttl=8),
            (DNS_ANSWER, 250_000, QUESTION, "www.good.example"),
        ),
        (eve("alert", signature="x"), None),
        (eve("tls", version="TLS 1.3"), None),
        (eve("dns", **DNS, type="answer", rcode="NXDOMAIN"), None),
        (eve("flow", proto="ICMP"), None),
        (eve("flow", proto="ICMP")[:-1] + ',"icmp_type":3,"icmp_code":1}', None),
        (eve("flow", proto="ICMP")[:-1] + ',"icmp_type":8,"icmp_code":0}', (FLOW, 250_000, PING, "")),
        (eve("flow", proto="ESP"), (FLOW, 250_000, PING._replace(proto=50, server_port=0), "")),
    ],
)  # fmt: skip
def test_suricata(line: str, expected: tuple[str, int, FlowKey, str] | None) -> None:
    found = read("suricata", line)
    assert [told(seen) for seen in found] == ([expected] if expected else [])
    for seen in found:
        if seen.kind == DNS_ANSWER:
            assert isinstance(seen.detail, DnsMessage)
            assert [record.target for record in seen.detail.answers] == [C2]


ZEEK_FLOW = {"id.orig_h": "10.0.0.5", "id.orig_p": 40_000, "id.resp_h": "198.51.100.7", "id.resp_p": 443}
ZEEK_TIME = {"ts": 1795600800.25, "uid": "CHhAvVGS1DHFjwGM9"}


@pytest.mark.parametrize(
    ("history", "is_told"),
    [
        ("S", True), ("ShADadFf", True), ("D", True), ("^dADa", True), ("^hA", True), ("", True), ("-", True),
        ("^h", False), ("^hR", False), ("^d", False), ("^dR", False),
    ],
)  # fmt: skip
def test_what_only_came_to_its_originator_is_no_connection_of_zeeks(history: str, is_told: bool) -> None:
    """A forged SYN-ACK or datagram from port 443 of a listed address made its receiver an infected host."""
    line = json.dumps(ZEEK_TIME | ZEEK_FLOW | {"conn_state": "OTH", "proto": "tcp", "history": history})
    assert [told(seen) for seen in read("zeek-json", line)] == ([(FLOW, 250_000, WEB, "")] if is_told else [])


@pytest.mark.parametrize(
    ("packets", "flags", "is_told"),
    [(1, "02", True), (3, "1b", True), (2, "14", True), (0, "00", False), (1, "04", False)],
)
def test_what_only_came_to_its_client_is_no_flow_of_suricatas(packets: int, flags: str, is_told: bool) -> None:
    event = json.loads(eve("flow", pkts_toserver=packets, pkts_toclient=1, state="new"))
    line = json.dumps({**event, "tcp": {"tcp_flags_ts": flags}})
    assert [told(seen) for seen in read("suricata", line)] == ([(FLOW, 250_000, WEB, "")] if is_told else [])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"server_name": C2, "established": True, "version": "TLSv13", "cipher": "x"},
            [(TLS_SNI, 250_000, WEB, C2)],
        ),
        ({"_path": "quic", "server_name": C2}, [(QUIC_SNI, 250_000, WEB._replace(proto=UDP), C2)]),
        ({"conn_state": "SF", "proto": "tcp", "duration": 32.1}, [(FLOW, 250_000, WEB, "")]),
        ({"conn_state": "OTH", "proto": "icmp"}, []),
        ({"conn_state": "OTH", "proto": "icmp", "id.orig_p": 8, "id.resp_p": 0}, [(FLOW, 250_000, PING, "")]),
        ({"conn_state": "OTH", "proto": "icmp", "id.orig_p": 0, "id.resp_p": 8}, []),
        ({"trans_depth": 1, "method": "GET", "host": C2, "uri": "/x"}, [(HTTP_HOST, 250_000, WEB, C2)]),
        ({"query": C2, "trans_id": 7, "proto": "udp", "qtype": 1}, [(DNS_QUERY, 250_000, WEB._replace(proto=UDP), C2)]),
        ({"query": C2, "trans_id": 7, "proto": "udp", "rcode": 3, "rcode_name": "NXDOMAIN"}, []),
        ({"_path": "weird", "name": "x"}, []),
    ],
)
def test_zeek_as_json(fields: dict[str, object], expected: list[tuple[str, int, FlowKey, str]]) -> None:
    for ts in (1795600800.25, "2026-11-25T10:00:00.250000Z", 1795600800250):
        line = json.dumps(ZEEK_TIME | {"ts": ts} | ZEEK_FLOW | fields)
        assert [told(seen) for seen in read("zeek-json", line)] == expected


def test_zeek_as_text_says_itself_how_it_is_written() -> None:
    row = "1795600800.250000\tCTo78A11g7CYbbOHvj\t10.0.0.5\t50000\t192.0.2.53\t53\tudp\t4660\t0.010000"
    told_of = f"{row}\twww.good.example\t1\tC_INTERNET\t1\tA\t0\tNOERROR\tF\tF\tT\tT\t0"
    answered = f"{told_of}\t{C2},198.51.100.7\t60.0,60.0\tF"
    found = read("zeek", *ZEEK_DNS.splitlines(), answered, "#close\t2026-11-25-11-00-00")
    assert [told(seen) for seen in found] == [
        (DNS_QUERY, 250_000, QUESTION, "www.good.example"),
        (DNS_ANSWER, 260_000, QUESTION, "www.good.example"),
    ]
    assert isinstance(found[1].detail, DnsMessage)
    assert [(one.target, one.address) for one in found[1].detail.answers] == [(C2, b""), ("", packed("198.51.100.7"))]
    bar = [line.replace("\t", "|").replace("\\x09", "\\x7c") for line in ZEEK_HTTP.splitlines()]
    row = f"1795600800.25|C1|10.0.0.5|40000|198.51.100.7|443|1|GET|{C2}|/a\\x7cb|-|1.1|curl\\x2f8"
    (seen,) = read("zeek", *bar, row)
    assert told(seen) == (HTTP_HOST, 250_000, WEB, C2)
    assert isinstance(seen.detail, HttpRequest)
    assert (seen.detail.target, seen.detail.user_agent) == ("/a|b", "curl/8")


@pytest.mark.parametrize("line", ["1795600800.25\tC1", "1795600800.25"])
def test_zeek_lines_that_fit_no_header_are_none(line: str) -> None:
    with pytest.raises(Malformed):
        read("zeek", line)
    with pytest.raises(Malformed):
        read("zeek", *ZEEK_DNS.splitlines(), line)


NATIVE = "1795600805.250   5000 10.0.0.5 TCP_TUNNEL/200 39 CONNECT {url} - HIER_DIRECT/{peer} -"


@pytest.mark.parametrize(
    ("line", "after_us", "name", "path"),
    [
        (NATIVE.format(url=f"{C2}:443", peer="198.51.100.7"), 250_000, C2, ""),
        (NATIVE.format(url="[2001:db8::7]:443", peer="2001:db8::7"), 250_000, "", ""),
        (f"1795600800.250      0 10.0.0.5 TCP_DENIED/403 3900 GET http://u@{C2}:8080/a?b - HIER_NONE/- text/html",
         250_000, C2, "/a?b"),
        (f'10.0.0.5 - - [25/Nov/2026:11:00:00 +0100] "GET http://{C2}/a HTTP/1.1" 200 512 TCP_MISS:HIER_DIRECT',
         0, C2, "/a"),
        (f'10.0.0.5 - anna [25/Nov/2026:10:00:00 +0000] "CONNECT {C2}:443 HTTP/1.1" 200 512 "-" "curl/8"'
         " TCP_TUNNEL:HIER_DIRECT", 0, C2, ""),
    ],
)  # fmt: skip
def test_squid(line: str, after_us: int, name: str, path: str) -> None:
    (seen,) = read("squid", line)
    assert (*told(seen)[:2], seen.name) == (HTTP_HOST, after_us, name)
    assert isinstance(seen.detail, HttpRequest)
    assert (seen.note, seen.detail.path) == ("proxied", path)
    assert (seen.flow.proto, seen.flow.client, seen.flow.client_port) == (0, packed("10.0.0.5"), 0)


def test_squid_tells_nothing_where_there_is_no_host() -> None:
    line = "1795600800.250      0 10.0.0.5 NONE_NONE/400 3500 - error:invalid-request - HIER_NONE/- text/html"
    assert read("squid", line) == []
    with pytest.raises(Malformed):
        read("squid", line.replace("10.0.0.5", "pc5.ours.example"))


@pytest.mark.parametrize(
    ("format_", "line", "expected"),
    [
        ("dnsmasq", f"Nov 25 10:00:00 dnsmasq[812]: query[A] {C2} from 10.0.0.5", (DNS_QUERY, 0, ALONE, C2)),
        ("dnsmasq", f"Nov 25 10:00:00 gw dnsmasq[812]: query[HTTPS] {C2} from 10.0.0.5", (DNS_QUERY, 0, ALONE, C2)),
        ("dnsmasq", f"2026-11-25T11:00:00.5+01:00 gw dnsmasq[8]: query[A] {C2} from 10.0.0.5",
         (DNS_QUERY, 500_000, ALONE, C2)),
        ("dnsmasq", f"Nov 25 10:00:00 dnsmasq[812]: 7 10.0.0.5/50000 query[A] {C2} from 10.0.0.5",
         (DNS_QUERY, 0, ALONE, C2)),
        ("dnsmasq", f"Nov 25 10:00:00 dnsmasq[812]: 7 10.0.0.5/50000 reply {C2} is 198.51.100.7",
         (DNS_ANSWER, 0, ALONE, C2)),
        ("dnsmasq", f"Nov 25 10:00:00 dnsmasq[812]: 7 10.0.0.5/50000 cached {C2} is <CNAME>",
         (DNS_ANSWER, 0, ALONE, C2)),
        ("dnsmasq", f"Nov 25 10:00:00 dnsmasq[812]: reply {C2} is 198.51.100.7", None),
        ("dnsmasq", f"Nov 25 10:00:00 dnsmasq[812]: forwarded {C2} to 192.0.2.53", None),
        ("dnsmasq", f"Nov 25 10:00:00 dnsmasq[812]: query[A] {C2} from 10.0.0.9 from 10.0.0.5",
         (DNS_QUERY, 0, ALONE, "")),
        ("unbound", f"[1795600800] unbound[812:0] info: 10.0.0.5 {C2}. A IN", (DNS_QUERY, 0, ALONE, C2)),
        ("unbound", f"[1795600800] unbound[812:0] query: 10.0.0.5 {C2}. A IN", (DNS_QUERY, 0, ALONE, C2)),
        ("unbound", f"[1795600800] unbound[812:0] reply: 10.0.0.5 {C2}. A IN NOERROR 0.250000 0 52",
         (DNS_QUERY, -250_000, ALONE, C2)),
        ("unbound", f"Nov 25 10:00:00 gw unbound: [812:0] info: 10.0.0.5 {C2}. A IN NXDOMAIN 0.000000 1 35",
         (DNS_QUERY, 0, ALONE, C2)),
        ("unbound", f"2026-11-25T10:00:00.250+00:00 unbound[812:1] info: 10.0.0.5@50000 {C2}. AAAA IN",
         (DNS_QUERY, 250_000, ALONE, C2)),
        ("unbound", "[1795600800] unbound[812:0] info: start of service (unbound 1.24.1).", None),
        ("bind", f"25-Nov-2026 10:00:00.250 queries: info: client @0x7fa0d607f200 10.0.0.5#50000 ({C2}): query: {C2}"
         " IN A +E(0)K (192.0.2.53)", (DNS_QUERY, 250_000, QUESTION, C2)),
        ("bind", f"25-Nov-2026 10:00:00.250 client @0x7f 10.0.0.5#50000 ({C2}): view internal: query: {C2} IN A"
         " +E(0)TK (192.0.2.53)", (DNS_QUERY, 250_000, QUESTION._replace(proto=TCP), C2)),
        ("bind", f"Nov 25 10:00:00 gw named[812]: client 10.0.0.5#50000: query: {C2} IN A + (192.0.2.53)",
         (DNS_QUERY, 0, QUESTION, C2)),
        ("bind", f"2026-11-25T10:00:00.250Z queries: info: client @0x7f 10.0.0.5#50000 ({C2}): query: {C2} IN A -",
         (DNS_QUERY, 250_000, ALONE, C2)),
        ("bind", r"25-Nov-2026 10:00:00.250 client @0x7f 10.0.0.5#50000 (a\032\(b\)): query: a\032\(b\) IN A +",
         (DNS_QUERY, 250_000, ALONE, "")),
        ("bind", "25-Nov-2026 10:00:00.250 general: info: running", None),
    ],
)  # fmt: skip
def test_resolvers(format_: str, line: str, expected: tuple[str, int, FlowKey, str] | None) -> None:
    assert [told(seen) for seen in read(format_, line)] == ([expected] if expected else [])


def test_dnstap() -> None:
    asked = dnstap(5, dns_wire("www.good.example"))
    assert [told(seen) for seen in read("dnstap", asked)] == [(DNS_QUERY, 250_000, QUESTION, "www.good.example")]
    answered = dnstap(6, dns_wire("www.good.example", response=True, alias=C2), protocol=2)
    question, answer = read("dnstap", answered)
    by_tcp = QUESTION._replace(proto=TCP)
    assert told(question) == (DNS_QUERY, 250_000, by_tcp, "www.good.example")
    assert told(answer) == (DNS_ANSWER, 270_000, by_tcp, "www.good.example")
    assert isinstance(answer.detail, DnsMessage)
    assert answer.detail.answers[0].target == C2
    assert read("dnstap", dnstap(3, dns_wire(C2))) == [], "what the resolver asks is no client's doing"
    for broken in (dnstap(5, dns_wire(C2, response=True)), dnstap(5, b""), asked[:-1], b"\x80" * 12, b"\x0b"):
        with pytest.raises(Malformed):
            read("dnstap", broken)


# -- hostile lines

LINES = {
    "suricata": eve("tls", sni=C2),
    "zeek": json.dumps(ZEEK_TIME | ZEEK_FLOW | {"query": C2, "trans_id": 7, "proto": "udp"}),
    "squid": NATIVE.format(url=f"{C2}:443", peer="198.51.100.7"),
    "dnsmasq": f"Nov 25 10:00:00 dnsmasq[812]: query[A] {C2} from 10.0.0.5",
    "unbound": f"[1795600800] unbound[812:0] info: 10.0.0.5 {C2}. A IN",
    "bind": f"25-Nov-2026 10:00:00.250 client @0x7f 10.0.0.5#50000 ({C2}): query: {C2} IN A + (192.0.2.53)",
}


def survives(format_: str, line: bytes) -> list[Observation]:
    try:
        return read(format_, line)
    except Malformed:
        return []


@pytest.mark.parametrize("format_", PARSERS)
@given(st.binary(max_size=400))
def test_any_bytes(format_: str, line: bytes) -> None:
    survives(format_, line)


@pytest.mark.parametrize("format_", LINES)
@given(data=st.data())
def test_any_change_of_a_right_line(format_: str, data: st.DataObject) -> None:
    line = bytearray(LINES[format_].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(line)))
        line[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    for seen in survives(format_, bytes(line)):
        assert len(seen.flow.client) in (4, 16)
        assert seen.raw_name.isascii() and seen.raw_name.isprintable()
        assert 0 <= seen.ts_us < 1 << 58


@given(data=st.data())
def test_any_change_of_a_dnstap_message(data: st.DataObject) -> None:
    line = bytearray(dnstap(6, dns_wire("www.good.example", response=True, alias=C2)))
    at = data.draw(st.integers(0, len(line)))
    line[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    survives("dnstap", bytes(line))


ODD = (
    None, True, -1, 1 << 70, 1e308, float("nan"), "", "-", "x" * 300, "\ud800", "\0", "http://", "[", [], [None], [[1]],
    {},
    {"rrname": 1}, [{"rrname": "\ud800", "rdata": []}], {"CNAME": ["a", 1]}, {"CNAME": {}}, "query", "answer", "2026",
)  # fmt: skip
values = st.sampled_from(ODD)


@given(
    st.sampled_from(["dns", "http", "tls", "quic", "flow"]),
    st.dictionaries(st.sampled_from(["type", "queries", "rrname", "answers", "grouped", "sni", "url", "hostname", "id",
                                     "start", "version", "http_method", "rdata"]), values),
)  # fmt: skip
def test_any_values_in_json(sort: str, inner: dict[str, object]) -> None:
    survives("suricata", eve(sort, **inner).encode())
    for path in ("dns", "http", "ssl", "quic", "conn"):
        members = ZEEK_TIME | ZEEK_FLOW | {"_path": path, "query": inner.get("sni"), "rtt": inner.get("id")}
        survives("zeek", json.dumps(members | {"host": inner.get("url"), "answers": inner.get("answers")}).encode())


@pytest.mark.parametrize("format_", LINES)
@pytest.mark.parametrize(
    "part",
    [b"\0" * 9, b"\x1b[31m", b"\xff\xfe", "ä.example".encode(), b"a" * MAX_LINE_BYTES, b" \t" * 30_000,
     b"{" * 60_000],
    ids=["nul", "escape", "no-utf8", "u-label", "long", "blanks", "braces"],
)  # fmt: skip
def test_hostile_names_are_escaped_or_none_and_cost_little(format_: str, part: bytes) -> None:
    line = LINES[format_].encode().replace(b"c2", part)
    began_s = time.process_time()
    for seen in survives(format_, line):
        assert seen.name == ""
        assert seen.raw_name.isascii() and seen.raw_name.isprintable() and len(seen.raw_name) < 1_100
    assert time.process_time() - began_s < 0.5


@given(
    st.sampled_from([ZEEK_DNS, ZEEK_HTTP]),
    st.dictionaries(
        st.integers(0, 30), st.text(max_size=12) | st.sampled_from(["7", "\N{SUPERSCRIPT TWO}", "(empty)"])
    ),
)
def test_any_values_in_columns(header: str, values: dict[int, str]) -> None:
    parser = PARSERS["zeek"]("s")
    *directives, columns = [line for line in header.splitlines() if not line.startswith("#types")]
    for line in (*directives, columns):
        assert parser.parse(line.encode(), NOW_US) == []
    usual = {"ts": "1795600800.25", "id.orig_h": "10.0.0.5", "id.resp_h": "198.51.100.7", "proto": "udp", "query": C2}
    row = [usual.get(name, "-") for name in columns.split("\t")[1:]]
    for at, value in values.items():
        row[at % len(row)] = value
    with suppress(Malformed):
        parser.parse("\t".join(row).encode("utf-8", "surrogatepass"), NOW_US)


@pytest.mark.parametrize("line", [b"[" * 65_000, b'{"a":' * 12_000, b'{"ts":1e999}', b'{"ts":' + b"9" * 5_000 + b"}"])
def test_json_without_end(line: bytes) -> None:
    for format_ in ("suricata", "zeek"):
        with pytest.raises(Malformed):
            read(format_, line)


def test_the_year_that_syslog_leaves_out_is_the_nearest() -> None:
    parser = PARSERS["dnsmasq"]("s")
    new_year_us = 1_798_761_600_000_000  # 2027
    (seen,) = parser.parse(b"Dec 31 23:59:59 dnsmasq[1]: query[A] a.example from 10.0.0.5", new_year_us + 10_000_000)
    assert seen.ts_us == new_year_us - 1_000_000
    (seen,) = parser.parse(b"Jan  1 00:00:01 dnsmasq[1]: query[A] a.example from 10.0.0.5", new_year_us - 10_000_000)
    assert seen.ts_us == new_year_us + 1_000_000
    with pytest.raises(Malformed):
        parser.parse(b"Feb 30 00:00:01 dnsmasq[1]: query[A] a.example from 10.0.0.5", NOW_US)
