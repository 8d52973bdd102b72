"""Observations of other sensors on their way to the core: whatever stands in a log, what is read of it arrives."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.sieving import Sieving
from egressd.errors import Malformed
from egressd.logs.formats import DNSTAP, FRAMED, PARSERS
from egressd.model import DNS_QUERY, HTTP_HOST, QUIC_SNI, TLS_SNI, DnsMessage, DnsQuestion, Observation
from egressd.runtime.bulk_rows import unpack_history
from egressd.runtime.messages import Frames, parse_batch, render_batch
from egressd.runtime.observed import MAX_QUESTIONS, pack_observation, unpack_observation
from tests.detect.live_scene import intel
from tests.logs.lines import NOW_US, ZEEK_DNS, ZEEK_HTTP, dns_wire, dnstap, eve

C2: Final = "c2.bad.example"
CNAME: Final = [{"rrname": C2, "rrtype": "CNAME", "ttl": 60, "rdata": "a.example"}]
ZEEK: Final = '"ts":1795600800.25,"id.orig_h":"10.0.0.5","id.orig_p":4,"id.resp_h":"198.51.100.7","id.resp_p":443'
ZEEK_JSON: Final = (
    f'{{{ZEEK},"query":"{C2}","trans_id":7,"proto":"udp","qtype":1,"rtt":0.5,"rcode":0,"answers":["198.51.100.7"]}}',
    f'{{{ZEEK},"trans_depth":1,"method":"GET","host":"{C2}:80","uri":"/x","user_agent":"curl/8"}}',
    f'{{{ZEEK},"_path":"ssl","server_name":"{C2}","established":true}}',
    f'{{{ZEEK},"_path":"quic","server_name":"{C2}"}}',
    f'{{{ZEEK},"conn_state":"SF","proto":"tcp","duration":32.1}}',
)
ZEEK_ROW: Final = "1795600800.25\tC1\t10.0.0.5\t50000\t192.0.2.53\t53\tudp\t7\t0.5"
SYSLOG: Final = "Nov 25 10:00:00 dnsmasq[812]: "
LINES: Final[dict[str, tuple[str, ...]]] = {
    "suricata": (
        eve("dns", version=2, type="query", id=7, rrname=C2, rrtype="A", proto="UDP"),
        eve("dns", version=3, type="request", id=7, queries=[{"rrname": C2, "rrtype": "A"}] * 3, proto="UDP"),
        eve("dns", version=2, type="answer", id=7, rrname=C2, rrtype="A", answers=CNAME, proto="UDP"),
        eve("dns", type="answer", rrname=C2, grouped={"A": ["198.51.100.7"]}, proto="UDP"),
        eve("http", hostname=C2, url="/a?b", http_method="GET", http_user_agent="curl/8"),
        eve("http", url=f"{C2}:443", http_method="CONNECT"),
        eve("tls", sni=C2), eve("quic", sni=C2, version="1"), eve("flow", start="2026-11-25T11:00:00.25+0100"),
    ),
    "zeek": (
        *ZEEK_DNS.splitlines(),
        f"{ZEEK_ROW}\t{C2}\t1\tC_INTERNET\t1\tA\t0\tNOERROR\tF\tF\tT\tT\t0\ta.example,198.51.100.7\t60.0,60.0\tF",
        *ZEEK_HTTP.splitlines(),
        f"1795600800.25\tC1\t10.0.0.5\t40000\t198.51.100.7\t443\t1\tGET\t{C2}\t/a\\x7cb\t-\t1.1\tcurl\\x2f8",
    ),
    "zeek-json": ZEEK_JSON,
    "squid": (
        f"1795600805.250   5000 10.0.0.5 TCP_TUNNEL/200 39 CONNECT {C2}:443 - HIER_DIRECT/198.51.100.7 -",
        f"1795600800.250      0 10.0.0.5 TCP_MISS/200 39 GET http://u@{C2}:8080/a?b - HIER_NONE/- text/html",
        f'10.0.0.5 - anna [25/Nov/2026:10:00:00 +0000] "CONNECT {C2}:443 HTTP/1.1" 200 512 "-" "curl/8" TCP_TUNNEL:X',
    ),
    "dnsmasq": (
        f"{SYSLOG}query[A] {C2} from 10.0.0.5",
        f"2026-11-25T11:00:00.5+01:00 gw dnsmasq[8]: 7 10.0.0.5/50000 query[HTTPS] {C2} from 10.0.0.5",
        f"{SYSLOG}7 10.0.0.5/50000 reply {C2} is 198.51.100.7",
    ),
    "unbound": (
        f"[1795600800] unbound[812:0] info: 10.0.0.5 {C2}. A IN",
        f"[1795600800] unbound[812:0] reply: 10.0.0.5 {C2}. A IN NOERROR 0.250000 0 52",
    ),
    "bind": (
        f"25-Nov-2026 10:00:00.250 queries: info: client @0x7f 10.0.0.5#50000 ({C2}): query: {C2} IN A +E(0)TK"
        " (192.0.2.53)",
        f"25-Nov-2026 10:00:00.250 client 2001:db8::5#50000 ({C2}): query: {C2} IN AAAA + (2001:db8::53)",
    ),
}  # fmt: skip
FRAMES: Final = (
    dnstap(5, dns_wire(C2)),
    dnstap(6, dns_wire(C2, response=True, alias="a.example"), protocol=2),
    dnstap(6, dns_wire("a.example", response=True, alias=C2, address="198.51.100.7")),
)
NUMBERS: Final = ("-1", "0", "65535", "65536", "99999", "4294967296", "9" * 12, "9" * 19, "9" * 400, "1e308", "1e999")
WORDS: Final = (
    "", "-", ".", "*", "a" * 300, "a." * 130, "a" * 5_000, "/" + "b" * 5_000, "\\x09", "\ud800", "\x1b[31m",
    "ä.example", "\u0663", "\u00b2", "[", "[::1]", "::ffff:10.0.0.5", "fe80::1%eth0", "10.0.0.5:65536",
    "x.example:99999", "http://x.example/" + "é" * 3_000,
    "CONNECT", "null", "true", "[]", "{}", "NaN", "Feb", "9999", "+9999", "T", "IN",
)  # fmt: skip
_DIGITS: Final = re.compile(rb"[0-9]+")
_WORD: Final = re.compile(rb"[^\s\"':,(){}\[\]#|]+")


@st.composite
def spoilt(draw: st.DrawFn, line: bytes) -> bytes:
    """A line of which numbers, words or bytes have become others."""
    for _ in range(draw(st.integers(0, 3))):
        pattern, others = draw(st.sampled_from([(_DIGITS, NUMBERS), (_WORD, WORDS), (None, ())]))
        places = [found.span() for found in pattern.finditer(line)] if pattern is not None else []
        if places:
            first, end = draw(st.sampled_from(places))
            instead = draw(st.sampled_from(others)).encode("utf-8", "surrogatepass")
        else:
            first = draw(st.integers(0, len(line)))
            end = first + draw(st.integers(0, 8))
            instead = draw(st.binary(max_size=8))
        line = line[:first] + instead + line[end:]
    return line


def as_matched(seen: Observation) -> Observation:
    """What matching needs of an observation, which is what travels."""
    detail = seen.detail if seen.kind in (HTTP_HOST, TLS_SNI, QUIC_SNI) else None
    if isinstance(seen.detail, DnsMessage) and seen.kind == DNS_QUERY and seen.detail.questions:
        asked = tuple(DnsQuestion(one.name, one.raw_name, one.rrtype) for one in seen.detail.questions[:MAX_QUESTIONS])
        detail = DnsMessage(0, False, 0, 0, False, asked, (), 0, False, "")
    return Observation(
        seen.kind, seen.ts_us, 0, seen.flow, seen.name, seen.raw_name, detail, seen.version, seen.note, seen.sensor
    )


def sent(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch as it comes out at the other end."""
    ((_, body),) = Frames(1 << 24).feed(render_batch(batch))
    return parse_batch(body)


@pytest.mark.parametrize("format_", PARSERS)
@given(data=st.data())
def test_whatever_a_log_says_what_is_read_of_it_arrives(format_: str, data: st.DataObject) -> None:
    """The core ends a process that tells of what cannot be; it would begin with the same line again."""
    parser = PARSERS[format_]("s")
    told = intel(f"{C2} threat=case", "")
    sieving = Sieving(told.index, told.allowances, told.suffixes)
    right = FRAMES if format_ in FRAMED else tuple(line.encode() for line in LINES[format_])
    at = data.draw(st.integers(0, len(right) - 1))  # before it they are as they should be: Zeek's say how to read it
    read: list[Observation] = []
    for line in (*right[:at], *[data.draw(spoilt(right[at])) for _ in range(2)], *right[at + 1 :]):
        try:
            seen = parser.parse(line, NOW_US)
        except Malformed:
            continue
        assert parser.written_us >= 0
        for one in seen:
            one.ts_us = min(max(0, one.ts_us), NOW_US)  # as whoever follows a log does (runtime/log_process.py)
            read += [one, *sieving.sift(one)]
    arrived = sent({"observed": [pack_observation(one) for one in read]})["observed"]
    assert [unpack_observation(one) for one in arrived] == [as_matched(one) for one in read]
    for history in sieving.history.values():
        for (client, name, address), row in history.take(1_000, NOW_US + 1):
            domain = sieving.resolutions.domain_of(name) if name else ""
            packed = [client.hex(), domain, name, address.hex(), row.first_us, row.last_us, row.count]
            expected = (client, domain, name, address, row.first_us, row.last_us, row.count)
            assert unpack_history(sent({"history": [packed]})["history"]) == [expected]


@pytest.mark.parametrize("format_", PARSERS)
def test_right_lines_tell_of_something(format_: str) -> None:
    """Else the property above would be true of nothing."""
    parser = PARSERS[format_]("s")
    right = FRAMES if format_ in (DNSTAP, *FRAMED) else tuple(line.encode() for line in LINES[format_])
    told = [parser.parse(line, NOW_US) for line in right]
    assert all(seen or line.startswith(b"#") for line, seen in zip(right, told, strict=True))
