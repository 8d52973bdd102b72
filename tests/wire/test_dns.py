"""DNS messages by hand, by hypothesis, and against dnspython."""

from __future__ import annotations

import ipaddress
import itertools
import random
import struct

import dns.exception
import dns.flags
import dns.message
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.model import DnsMessage, DnsQuestion, DnsRecord
from egressd.names import from_labels
from egressd.wire import dns_records
from egressd.wire.dns import (
    MAX_QUESTIONS,
    MAX_STREAM_BYTES,
    RRTYPE_NAMES,
    DnsStream,
    looks_like_dns,
    looks_like_dns_stream,
    parse_message,
)
from egressd.wire.dns_records import MAX_HINTS, MAX_HOPS, MAX_RECORDS, MAX_STEPS, NameReader

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME, OPT, SVCB, HTTPS = 1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 41, 64, 65
V4 = bytes((192, 0, 2, 1))
V6 = ipaddress.ip_address("2001:db8::1").packed


def wire_name(text: str) -> bytes:
    labels = [label for label in text.split(".") if label]
    return b"".join(bytes((len(label),)) + label.encode("latin-1") for label in labels) + b"\0"


def header(flags: int = 0x0100, qd: int = 0, an: int = 0, ns: int = 0, ar: int = 0, txid: int = 0x1234) -> bytes:
    return struct.pack(">HHHHHH", txid, flags, qd, an, ns, ar)


def question(name: str = "www.example.com", rrtype: int = A, rrclass: int = 1) -> bytes:
    return wire_name(name) + struct.pack(">HH", rrtype, rrclass)


def record(owner: bytes, rrtype: int, rdata: bytes, ttl_s: int = 60, rrclass: int = 1) -> bytes:
    return owner + struct.pack(">HHIH", rrtype, rrclass, ttl_s, len(rdata)) + rdata


def response(*records: bytes, flags: int = 0x8180, an: int = -1, ns: int = 0, ar: int = 0) -> bytes:
    """One question for www.example.com at offset 12 and the records; example.com stands at 16, com at 24."""
    return header(flags, 1, len(records) if an < 0 else an, ns, ar) + question() + b"".join(records)


def parse(wire: bytes) -> DnsMessage:
    """Parsed alone and inside other bytes, with names never met and met before: always the same."""
    dns_records._SEEN.clear()
    alone = parse_message(wire, 0, len(wire))
    assert parse_message(b"\x01a\xc0" + wire + b"\0\0", 3, 3 + len(wire)) == alone
    assert parse_message(wire, 0, len(wire)) == alone
    return alone


OWNER = b"\xc0\x0c"


def test_a_query() -> None:
    assert parse(header(qd=1) + question()) == DnsMessage(
        txid=0x1234,
        is_response=False,
        opcode=0,
        rcode=0,
        truncated=False,
        questions=(DnsQuestion("www.example.com", "www.example.com", A),),
        answers=(),
        answer_count=0,
        edns=False,
        error="",
    )


def test_flags() -> None:
    message = parse(header(0xAA05, 1) + question())
    assert (message.is_response, message.opcode, message.rcode, message.truncated) == (True, 5, 5, True)
    message = parse(header(0x55F0, 1) + question())
    assert (message.is_response, message.opcode, message.rcode, message.truncated) == (False, 10, 0, False)


@pytest.mark.parametrize(
    ("labels", "name", "raw_name"),
    [
        ([], "", "."),
        ([b"example"], "example", "example"),
        ([b"WwW", b"eXaMpLe", b"cOm"], "www.example.com", "WwW.eXaMpLe.cOm"),
        ([b"_dmarc", b"a-b", b"example"], "_dmarc.a-b.example", "_dmarc.a-b.example"),
        ([b"www.example", b"com"], "", "www\\046example.com"),
        ([b"a\0b", b"example"], "", "a\\000b.example"),
        ([b"\x1b[31m", b"example"], "", "\\027[31m.example"),
        ([b"caf\xc3\xa9", b"example"], "", "caf\\195\\169.example"),
        ([b"back\\slash", b"example"], "", "back\\092slash.example"),
        ([b"a b", b"example"], "", "a b.example"),
        ([b"x" * 63] * 3 + [b"y" * 61], ".".join(["x" * 63] * 3 + ["y" * 61]), ".".join(["x" * 63] * 3 + ["y" * 61])),
        ([b"a"] * 127, ".".join("a" * 127), ".".join("a" * 127)),
    ],
)
def test_names(labels: list[bytes], name: str, raw_name: str) -> None:
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    message = parse(header(qd=1) + wire + struct.pack(">HH", AAAA, 1))
    assert message.questions == (DnsQuestion(name, raw_name, AAAA),)
    pointing = parse(header(0x8180, 1, 1) + wire + struct.pack(">HH", AAAA, 1) + record(OWNER, AAAA, V6))
    assert pointing.answers == (DnsRecord(name, raw_name, AAAA, 60, V6, "", "", (), False),)


@pytest.mark.parametrize(
    "name",
    [
        wire_name("x" * 63 + "." + "x" * 63 + "." + "x" * 63 + "." + "y" * 62),  # 256 octets
        b"\x01a" * 127 + b"\x01a\0",
        b"\x40" + b"a" * 64 + b"\0",
        b"\x80a\0",
        b"\x03ww",
        b"\xc0",
        b"\xc0\x0c",  # to itself
        b"\x01a\xc0\x0c",  # to its own start
        b"\x01a\xc0\x0e",  # the pointer to itself
        b"\xc0\x10\x00\x00\x01\x00\x01",  # forwards
        b"\xff\xff",
    ],
)
def test_question_names_that_are_none(name: bytes) -> None:
    with pytest.raises(Malformed):
        parse(header(qd=1) + name + struct.pack(">HH", A, 1))


def test_pointers_put_names_together() -> None:
    message = parse(
        response(
            record(b"\xc0\x0c", CNAME, b"\x03CDN\xc0\x10"),
            record(b"\xc0\x2d", CNAME, b"\x03a.b\xc0\x2d"),  # cdn.example.com stands at 45
            record(b"\x01x\xc0\x18", A, V4),
            record(b"\x00", A, V4),
        )
    )
    assert message.error == ""
    assert [(r.name, r.raw_name, r.target, r.raw_target) for r in message.answers] == [
        ("www.example.com", "www.example.com", "cdn.example.com", "CDN.example.com"),
        ("cdn.example.com", "CDN.example.com", "", "a\\046b.CDN.example.com"),
        ("x.com", "x.com", "", ""),
        ("", ".", "", ""),
    ]


def test_a_name_put_together_is_at_most_255_octets() -> None:
    tail = b"\x3f" + b"x" * 63 + b"\xc0\x0c"  # 64 octets before the 17 of www.example.com
    records = [record(tail, TXT, b""), record(b"\x3f" + b"y" * 63 + b"\xc0\x21", TXT, b"")]
    longest = record(b"\x3f" + b"z" * 63 + b"\x2d" + b"z" * 45 + b"\xc0\x6d", A, V4)
    too_long = record(b"\x3f" + b"z" * 63 + b"\x2e" + b"z" * 46 + b"\xc0\x6d", A, V4)
    message = parse(response(*records, longest))
    assert message.error == ""
    assert len(message.answers[2].raw_name) == 253
    message = parse(response(*records, too_long))
    assert (len(message.answers), message.error) == (2, "DNS name is cut or over 255 octets")


def test_names_met_before_never_come_from_another_message() -> None:
    """A pointer to offset 0 ends in the octet that ends a name, and what it leads to is each message's own."""
    dns_records._SEEN.clear()
    for letter in "ab":
        wire = header(0, qd=1, txid=0x0100 | ord(letter)) + b"\x03www\xc0\x00\0\1\0\1"
        assert parse_message(wire, 0, len(wire)).questions[0].name == f"www.{letter}"


def service(priority: int, target: bytes, *params: tuple[int, bytes]) -> bytes:
    return struct.pack(">H", priority) + target + b"".join(struct.pack(">HH", k, len(v)) + v for k, v in params)


ROOT = b"\0"
ALPN = (1, b"\x02h2\x02h3")
HINT4 = (4, V4 + bytes((198, 51, 100, 7)))
HINT6 = (6, V6)
ECH = (5, b"\x00\x04\xfe\x0d\x00\x00")
HINTS = (V4, bytes((198, 51, 100, 7)), V6)
OWN = "www.example.com"


@pytest.mark.parametrize(
    ("rrtype", "rdata", "address", "target", "hints", "has_ech"),
    [
        (A, V4, V4, "", (), False),
        (AAAA, V6, V6, "", (), False),
        (CNAME, wire_name("cdn.example.net"), b"", "cdn.example.net", (), False),
        (CNAME, b"\x03cdn\xc0\x10", b"", "cdn.example.com", (), False),
        (NS, wire_name("ns1.example.net"), b"", "ns1.example.net", (), False),
        (PTR, wire_name("host.example.net"), b"", "host.example.net", (), False),
        (DNAME, wire_name("other.example"), b"", "other.example", (), False),
        (MX, b"\x00\x0a" + wire_name("mail.example.net"), b"", "mail.example.net", (), False),
        (SRV, b"\0\1\0\2\x14\x66" + wire_name("sip.example.net"), b"", "sip.example.net", (), False),
        (TXT, b"\x05hello", b"", "", (), False),
        (SOA, wire_name("a.example") + wire_name("b.example") + bytes(20), b"", "", (), False),
        (65280, b"anything", b"", "", (), False),
        (TXT, b"", b"", "", (), False),
        (SVCB, service(0, wire_name("svc.example.net")), b"", "svc.example.net", (), False),
        (HTTPS, service(0, wire_name("svc.example.net"), HINT4), b"", "svc.example.net", (), False),
        (HTTPS, service(0, ROOT), b"", "", (), False),
        (HTTPS, service(1, ROOT), b"", OWN, (), False),
        (HTTPS, service(1, ROOT, ALPN, HINT4, ECH, HINT6), b"", OWN, HINTS, True),
        (SVCB, service(2, wire_name("h.example"), (3, b"\x01\xbb"), HINT6), b"", "h.example", (V6,), False),
        (HTTPS, service(1, ROOT, (5, b"")), b"", OWN, (), True),
        (HTTPS, service(1, ROOT, (4, V4 * 70), (6, V6 * 70)), b"", OWN, (V4,) * MAX_HINTS + (V6,) * MAX_HINTS, False),
    ],
)
def test_record_types(
    rrtype: int, rdata: bytes, address: bytes, target: str, hints: tuple[bytes, ...], has_ech: bool
) -> None:
    message = parse(response(record(OWNER, rrtype, rdata), record(OWNER, A, V4)))
    assert message.error == ""
    first, second = message.answers
    root_target = rdata == service(0, ROOT) and rrtype == HTTPS
    assert first == DnsRecord(OWN, OWN, rrtype, 60, address, target, "." if root_target else target, hints, has_ech)
    assert second.address == V4
    assert message.answer_count == 2


@pytest.mark.parametrize(
    ("rrtype", "rdata"),
    [
        (A, b""),
        (A, V4[:3]),
        (A, V4 + b"\0"),
        (AAAA, V4),
        (CNAME, b""),
        (CNAME, wire_name("cdn.example.net") + b"\0"),
        (CNAME, b"\x03cdn"),  # runs on into the next record
        (CNAME, b"\xc0"),
        (MX, b"\0"),
        (MX, b"\0\x0a"),
        (SRV, b"\0\0\0\0\0"),
        (SVCB, b""),
        (SVCB, b"\0\1"),
        (HTTPS, service(1, ROOT) + b"\0"),
        (HTTPS, service(1, ROOT) + b"\0\4\0\4"),
        (HTTPS, service(1, ROOT, (4, b""))),
        (HTTPS, service(1, ROOT, (4, V4[:3]))),
        (HTTPS, service(1, ROOT, (6, V4))),
        (HTTPS, service(1, ROOT, HINT6, HINT4)),  # keys must rise
        (HTTPS, service(1, ROOT, HINT4, HINT4)),
    ],
)
def test_a_broken_record_is_left_out_and_hides_none_behind_it(rrtype: int, rdata: bytes) -> None:
    other = bytes((198, 51, 100, 7))
    broken = record(OWNER, rrtype, rdata)
    message = parse(response(record(OWNER, A, V4), broken, record(OWNER, A, other), record(OWNER, A, V4), an=3, ns=1))
    assert message.error
    assert [r.address for r in message.answers] == [V4, other, V4]
    assert message.answer_count == 2
    assert message.questions[0].name == OWN


def test_a_broken_owner_ends_the_reading() -> None:
    """Nothing tells where the next record begins."""
    message = parse(response(record(OWNER, A, V4), record(b"\x80", A, V4), record(OWNER, A, V4)))
    assert message.error == "DNS label of unknown type"
    assert [r.address for r in message.answers] == [V4]


def test_sections_and_answer_count() -> None:
    records = [record(OWNER, A, V4), record(b"\xc0\x10", NS, b"\x02ns\xc0\x10"), record(b"\x02ns\xc0\x10", A, V4)]
    message = parse(response(*records, record(ROOT, OPT, b"", rrclass=1232), an=1, ns=1, ar=2))
    assert [r.name for r in message.answers] == [OWN, "example.com", "ns.example.com"]
    assert (message.answer_count, message.edns, message.error) == (1, True, "")
    message = parse(response(*records, an=1, ns=1, ar=2))  # the last one is missing
    assert (len(message.answers), message.answer_count, message.error) == (3, 1, "DNS name is cut or over 255 octets")


def test_edns_extends_the_rcode() -> None:
    option = record(ROOT, OPT, b"\0\x0a\0\x02hi", ttl_s=0x01008000, rrclass=4096)
    message = parse(response(option, flags=0x8180 | 7, an=0, ar=1))
    assert (message.edns, message.rcode, message.answers, message.error) == (True, 0x17, (), "")


def test_ttl_above_31_bits_is_zero() -> None:
    message = parse(response(record(OWNER, A, V4, ttl_s=0x80000000), record(OWNER, A, V4, ttl_s=0x7FFFFFFF)))
    assert [r.ttl_s for r in message.answers] == [0, 0x7FFFFFFF]


def test_mdns_uses_the_top_bit_of_the_class() -> None:
    query = parse(header(0, 2) + question("host.local", rrclass=0x8001) + question("_ipp._tcp.local", PTR, 0x8001))
    assert [(q.name, q.rrtype) for q in query.questions] == [("host.local", A), ("_ipp._tcp.local", PTR)]
    answer = parse(header(0x8400, 0, 1) + record(wire_name("host.local"), A, V4, rrclass=0x8001))
    assert [(r.name, r.address) for r in answer.answers] == [("host.local", V4)]
    assert answer.questions == ()


@pytest.mark.parametrize("rrclass", [0, 3, 254, 255, 0x8003])
def test_rdata_of_other_classes_is_not_read(rrclass: int) -> None:
    message = parse(response(record(OWNER, A, V4, rrclass=rrclass), record(OWNER, A, b"", rrclass=rrclass)))
    assert [(r.rrtype, r.address) for r in message.answers] == [(A, b""), (A, b"")]
    assert message.error == ""


def test_header_bounds() -> None:
    with pytest.raises(Malformed):
        parse_message(b"", 0, 0)
    with pytest.raises(Malformed):
        parse_message(header(), 0, 11)
    assert parse(header()).questions == ()
    assert len(parse(header(qd=MAX_QUESTIONS) + question() * MAX_QUESTIONS).questions) == MAX_QUESTIONS
    with pytest.raises(Malformed):
        parse(header(qd=MAX_QUESTIONS + 1) + question() * (MAX_QUESTIONS + 1))


def test_records_are_bounded() -> None:
    message = parse(response(*[record(OWNER, A, V4)] * MAX_RECORDS))
    assert (len(message.answers), message.error) == (MAX_RECORDS, "")
    message = parse(response(*[record(OWNER, A, V4)] * (MAX_RECORDS + 1)))
    assert (len(message.answers), message.error) == (MAX_RECORDS, "too many DNS records")
    message = parse(response(*[record(ROOT, OPT, b"")] * (MAX_RECORDS + 1)))
    assert (len(message.answers), message.error) == (0, "too many DNS records")


# Pointers as a weapon


def test_hops_are_bounded() -> None:
    def chain(hops: int) -> bytes:
        """A record whose rdata is a name and `hops - 1` pointers, each to the one before; a record that points last."""
        base = 12 + len(question()) + 2 + 10
        links = [base] + [base + 3 + 2 * i for i in range(hops - 1)]
        rdata = b"\x01a\0" + b"".join(struct.pack(">H", 0xC000 | at) for at in links[:-1])
        return response(record(OWNER, TXT, rdata), record(struct.pack(">H", 0xC000 | links[-1]), A, V4))

    assert [r.name for r in parse(chain(MAX_HOPS)).answers] == [OWN, "a"]
    assert parse(chain(MAX_HOPS)).error == ""
    assert parse(chain(MAX_HOPS + 1)).error == "too many DNS pointers"


def test_hops_are_bounded_when_every_link_was_read_before() -> None:
    names = (
        header(qd=0)
        + b"\x01a\0"
        + b"".join(b"\x01a" + struct.pack(">H", 0xC00C + i) for i in [0, 3, *range(7, 200, 4)])
    )
    reader = NameReader(names, 0, len(names))
    for number, pos in enumerate([12, *range(15, 15 + 4 * MAX_HOPS, 4)]):
        assert reader.read(pos).hops == number
        assert reader.after == (15 if number == 0 else pos + 4)
    with pytest.raises(Malformed):
        reader.read(15 + 4 * MAX_HOPS)
    bare = names + struct.pack(">HH", 0xC00F + 4 * (MAX_HOPS - 2), 0xC00F + 4 * (MAX_HOPS - 1))
    reader = NameReader(bare, 0, len(bare))
    for pos in [12, *range(15, 15 + 4 * MAX_HOPS, 4), len(names)]:
        reader.read(pos)
    with pytest.raises(Malformed):  # no labels of its own, and one hop too many
        reader.read(len(names) + 2)


def bomb() -> bytes:
    """64 KB: rdata full of pointer chains under long names, then records that each point to another place in it."""
    base = 12 + len(question()) + 2 + 10
    rdata = bytearray(b"\x01a" * 60 + b"\0")
    while base + len(rdata) < 0x3FF0:
        rdata += b"\x01b" + struct.pack(">H", 0xC000 | max(base, base + len(rdata) - 4))
    places = range(0x3FF0 - 4, base + 130, -4)
    records = [record(OWNER, TXT, bytes(rdata))]
    records += [record(struct.pack(">H", 0xC000 | at), A, V4) for at in places]
    return response(*records)[:65_535]


def test_a_bomb_of_pointers_is_refused_within_the_budget() -> None:
    wire = bomb()
    assert len(wire) > 60_000
    message = parse(wire)
    assert message.questions[0].name == OWN
    assert message.error == "too many DNS pointers"
    assert len(message.answers) < 3


def test_steps_are_bounded_by_the_message_not_by_the_name() -> None:
    """Every pointer leads to its own place, none of them too deep: it is the sum that counts."""
    names = header() + b"".join(b"\x01a" * 126 + b"\0" for _ in range(60))
    places = range(12, 12 + 60 * 253, 253)
    wire = names + b"".join(struct.pack(">H", 0xC000 | at) for at in places)
    reader = NameReader(wire, 0, len(wire))
    count = 0
    with pytest.raises(Malformed, match="too many DNS labels"):
        for pos in range(len(names), len(wire), 2):
            reader.read(pos)
            count += 1
    assert count == MAX_STEPS // 128
    assert -128 < reader.steps_left <= 0
    again = NameReader(wire, 0, len(wire))
    for _ in range(10_000):  # a place once read costs nothing more
        again.read(len(names))
    assert again.steps_left == MAX_STEPS - 128


@pytest.mark.parametrize("label", [b"\x01a", b"\x01A", b"\x01."])
def test_labels_without_pointers_are_bounded_too(label: bytes) -> None:
    names = [b"\x02%02x" % number + label * 123 + ROOT for number in range(200)]
    message = parse(response(*[record(name, TXT, b"") for name in names]))
    assert message.error == "too many DNS labels"
    assert len(message.answers) == (MAX_STEPS - 4) // 125 + 1


def test_the_table_of_names_met_is_bounded() -> None:
    dns_records._SEEN.clear()
    for i in range(dns_records.MAX_SEEN_NAMES + 10):
        wire = header(qd=1) + question(f"h{i}.example")
        assert parse_message(wire, 0, len(wire)).questions[0].name == f"h{i}.example"
    assert len(dns_records._SEEN) == 10


def reference_name(wire: bytes, pos: int) -> tuple[str, str, int]:
    """RFC 1035 section 4.1.4 without any thought of cost."""
    labels: list[bytes] = []
    after = -1
    segment = at = pos
    hops = octets = 0
    while True:
        if at >= len(wire):
            raise Malformed("cut")
        size = wire[at]
        if size >= 0xC0:
            if at + 1 >= len(wire):
                raise Malformed("cut")
            target = (size & 0x3F) << 8 | wire[at + 1]
            after = at + 2 if after < 0 else after
            hops += 1
            if target >= segment or hops > MAX_HOPS:
                raise Malformed("pointer")
            segment = at = target
            continue
        octets += size + 1
        if size >= 0x40 or octets > 255 or at + 1 + size > len(wire):
            raise Malformed("label")
        if size == 0:
            name, raw_name = from_labels(labels)
            return name, raw_name, at + 1 if after < 0 else after
        labels.append(wire[at + 1 : at + 1 + size])
        at += 1 + size


PIECES = st.one_of(
    st.sampled_from([b"\0", b"\x01a", b"\x01A", b"\x02a.", b"\x03www", b"\x07example", b"\x3f" + b"x" * 63, b"\x40"]),
    st.sampled_from([b"\x03a\x01b", b"\x02a\0", b"\x03-_9", b"\x2c" + b"y" * 44, b"\x2d" + b"z" * 45]),
    st.integers(0, 200).map(lambda at: struct.pack(">H", 0xC000 | at)),
    st.binary(max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=60).map(b"".join))
@example(b"\0" * 12 + (b"\x3f" + b"x" * 63) * 3 + b"\x3d" + b"y" * 61 + b"\0" + b"\xc0\x0c\x01a\xc0\x0c")
def test_names_against_a_plain_reader(wire: bytes) -> None:
    """Names read one behind the other, as a message has them, from every start."""
    dns_records._SEEN.clear()
    for first in range(min(len(wire), 30)):
        reader = NameReader(wire, 0, len(wire))
        pos = first
        while pos < len(wire):
            try:
                expected = reference_name(wire, pos)
            except Malformed:
                with pytest.raises(Malformed):
                    reader.read(pos)
                break
            name = reader.read(pos)
            assert (name.name, name.raw_name, reader.after) == expected
            assert name.octets <= 255 and name.hops <= MAX_HOPS and name.labels <= 127
            pos = reader.after


# Anything at all

FULL = response(
    record(OWNER, CNAME, b"\x03cdn\xc0\x10"),
    record(b"\xc0\x2d", A, V4),
    record(b"\xc0\x2d", AAAA, V6, rrclass=0x8001),
    record(OWNER, MX, b"\0\x0a\x02mx\xc0\x10"),
    record(OWNER, SRV, b"\0\0\0\0\0\x35\x02mx\xc0\x10"),
    record(OWNER, HTTPS, service(1, ROOT, ALPN, HINT4, ECH, HINT6)),
    record(ROOT, OPT, b"", rrclass=1232),
    an=6,
    ar=1,
)


def test_cut_at_every_byte() -> None:
    whole = parse(FULL)
    assert whole.error == "" and len(whole.answers) == 6
    for end in range(len(FULL)):
        if end < 12 + len(question()):
            with pytest.raises(Malformed):
                parse_message(FULL, 0, end)
            continue
        message = parse_message(FULL, 0, end)
        assert message.questions == whole.questions
        assert message.error
        assert message.answers == whole.answers[: len(message.answers)]
        assert message.answer_count == len(message.answers)
        assert parse_message(FULL[:end], 0, end) == message  # nothing behind `end` is looked at


def parse_or_none(wire: bytes) -> DnsMessage | None:
    try:
        return parse_message(wire, 0, len(wire))
    except Malformed:
        return None


def check_total(wire: bytes) -> None:
    message = parse_or_none(wire)
    assert message == parse_or_none(wire)
    looks_like_dns(wire, 0, len(wire))
    looks_like_dns_stream(wire)
    if message is None:
        return
    assert message.answer_count <= len(message.answers) <= MAX_RECORDS
    for entry in (*message.questions, *message.answers):
        assert entry.raw_name and entry.raw_name.isascii() and entry.raw_name.isprintable()
        assert entry.name in ("", entry.raw_name.lower())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes(wire: bytes) -> None:
    check_total(wire)
    check_total(header(0x8180, 1, 3, 1, 1) + wire)
    check_total(header(0x8180, 1, 3, 1, 1) + question() + wire)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(FULL) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 9)
)
def test_mutated_messages(changes: list[tuple[int, int]], cut: int) -> None:
    wire = bytearray(FULL)
    for at, value in changes:
        wire[at] = value
    check_total(bytes(wire[: len(wire) - cut]))


# Against dnspython

LABELS = st.one_of(
    st.sampled_from(["www", "cdn", "a", "x" * 63, "_tcp", "WWW", "-"]),
    st.binary(min_size=1, max_size=12).map(lambda raw: "".join(f"\\{c:03d}" for c in raw)),
)
NAMES = st.one_of(
    st.lists(LABELS, min_size=0, max_size=3).map(lambda labels: ".".join([*labels, "example", "com."])),
    st.lists(LABELS, min_size=1, max_size=3).map(lambda labels: ".".join([*labels, ""])),
    st.just("."),
)
RDATA = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda raw: ("A", str(ipaddress.IPv4Address(raw)))),
    st.binary(min_size=16, max_size=16).map(lambda raw: ("AAAA", str(ipaddress.IPv6Address(raw)))),
    st.tuples(st.sampled_from(["CNAME", "NS", "PTR", "DNAME"]), NAMES),
    NAMES.map(lambda name: ("MX", f"10 {name}")),
    NAMES.map(lambda name: ("SRV", f"1 2 443 {name}")),
    st.just(("TXT", '"some text"')),
    NAMES.map(lambda name: ("SOA", f"{name} admin.example. 1 2 3 4 5")),
    NAMES.map(lambda name: ("HTTPS", f"1 {name} alpn=h2 ipv4hint=192.0.2.1,192.0.2.2 ech=AAAA ipv6hint=2001:db8::1")),
    NAMES.map(lambda name: ("SVCB", f"2 {name} port=443 ipv4hint=192.0.2.9")),
    NAMES.map(lambda name: ("SVCB", f"0 {name}")),
)
RRSETS = st.lists(st.tuples(NAMES, st.integers(0, 0x7FFFFFFF), RDATA), max_size=5)


def oracle_text(name: dns.name.Name) -> tuple[str, str]:
    return from_labels(list(name.labels[:-1]))


def oracle_record(owner: dns.name.Name, ttl_s: int, rdata: dns.rdata.Rdata) -> DnsRecord:
    name, raw_name = oracle_text(owner)
    address, target, raw_target = b"", "", ""
    hints: tuple[bytes, ...] = ()
    has_ech = False
    if rdata.rdclass != dns.rdataclass.IN:
        pass
    elif rdata.rdtype in (A, AAAA):
        address = ipaddress.ip_address(rdata.address).packed
    elif rdata.rdtype in (CNAME, NS, PTR, DNAME, SRV):
        target, raw_target = oracle_text(rdata.target)
    elif rdata.rdtype == MX:
        target, raw_target = oracle_text(rdata.exchange)
    elif rdata.rdtype in (SVCB, HTTPS):
        target, raw_target = oracle_text(rdata.target)
        if rdata.priority and raw_target == ".":
            target, raw_target = name, raw_name
        if rdata.priority:
            has_ech = 5 in rdata.params
            texts = [text for key in (4, 6) if key in rdata.params for text in rdata.params[key].addresses]
            hints = tuple(ipaddress.ip_address(text).packed for text in texts)
    return DnsRecord(name, raw_name, int(rdata.rdtype), ttl_s, address, target, raw_target, hints, has_ech)


def check_against_dnspython(wire: bytes) -> bool:
    """Whether dnspython takes the whole message; when it does, ours must say the same."""
    try:
        oracle = dns.message.from_wire(wire, one_rr_per_rrset=True, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, AttributeError, NotImplementedError):
        return False
    if any(rrset.rdclass == 0x8001 for section in oracle.sections[1:] for rrset in section):
        return False  # mDNS: no class that dnspython knows
    ours = parse_message(wire, 0, len(wire))
    assert ours.error == ""
    assert (ours.txid, ours.opcode, ours.rcode) == (oracle.id, int(oracle.opcode()), int(oracle.rcode()))
    assert ours.is_response == bool(oracle.flags & dns.flags.QR)
    assert ours.truncated == bool(oracle.flags & dns.flags.TC)
    assert ours.edns == (oracle.edns >= 0)
    assert [(q.name, q.raw_name, q.rrtype) for q in ours.questions] == [
        (*oracle_text(entry.name), int(entry.rdtype)) for entry in oracle.question
    ]
    sections = [
        [oracle_record(rrset.name, rrset.ttl, rdata) for rrset in section for rdata in rrset]
        for section in (oracle.answer, oracle.authority, oracle.additional)
    ]
    assert list(ours.answers) == sections[0] + sections[1] + sections[2]
    assert ours.answer_count == len(sections[0])
    return True


@settings(max_examples=150, deadline=None)
@given(NAMES, st.sampled_from(["A", "AAAA", "MX", "HTTPS", "ANY"]), RRSETS, RRSETS, RRSETS, st.integers(0, 4095))
def test_same_as_dnspython(name: str, rrtype: str, answer: list, authority: list, additional: list, rcode: int) -> None:
    try:
        message = dns.message.make_response(dns.message.make_query(name, rrtype, use_edns=0))
        message.set_rcode(rcode)
        for section, rows in (
            (message.answer, answer),
            (message.authority, authority),
            (message.additional, additional),
        ):
            for owner, ttl_s, (rdtype, text) in rows:
                section.append(dns.rrset.from_text(owner, ttl_s, "IN", rdtype, text))
        wire = message.to_wire(max_size=65_535)
    except dns.exception.DNSException:  # a name too long
        return
    assert check_against_dnspython(wire)


def test_mutated_messages_same_as_dnspython() -> None:
    chooser = random.Random(1)
    taken = 0
    for _ in range(1500):
        wire = bytearray(FULL.replace(b"\x80\x01", b"\x00\x01"))
        for _ in range(chooser.choice((1, 1, 2))):
            wire[chooser.randrange(12, len(wire))] = chooser.choice((0, 1, 2, 12, 16, 0xC0, chooser.randrange(256)))
        taken += check_against_dnspython(bytes(wire))
    assert taken > 300


# Streams


def prefixed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


QUERY = header(qd=1) + question()
STREAM = prefixed(QUERY, FULL, header(0x8180, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", FULL, QUERY)


def feed_cut(stream: bytes, cuts: list[int]) -> tuple[list[DnsMessage], int]:
    """The messages, and how many were bad, for `stream` cut at these places."""
    parser = DnsStream()
    messages: list[DnsMessage] = []
    bad = 0
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(stream)]):
        rest: bytes | None = stream[begin:end]
        while rest is not None:
            messages += parser.feed(rest)
            assert len(parser._held) < MAX_STREAM_BYTES
            rest = parser.rest
            if rest is not None:
                bad += parser.bad
                parser = DnsStream()
    return messages, bad + parser.bad


@pytest.mark.parametrize("head", [b"", b"\0\0", b"\0\1\0" + b"\0\x0b" + bytes(11), STREAM + b"\0\0\0\2\xff\xff"])
@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\x0b", prefixed(FULL)[:-1], b"\xff\xff" + bytes(50)])
def test_any_split_gives_the_same_messages(head: bytes, tail: bytes) -> None:
    """What is too short for a header is stepped over, at the beginning and behind messages."""
    stream = head + STREAM + tail
    whole = feed_cut(stream, [])
    assert len(whole[0]) == 4 + 4 * (head[:2] == STREAM[:2])
    assert feed_cut(stream, list(range(len(stream)))) == whole
    for cut in range(len(stream)):
        assert feed_cut(stream, [cut]) == whole


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.just(prefixed(QUERY)), st.just(prefixed(FULL)), st.binary(max_size=40)), max_size=6).map(
        b"".join
    ),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_any_split_of_any_stream(stream: bytes, cuts: list[int]) -> None:
    assert feed_cut(stream, [cut for cut in cuts if cut <= len(stream)]) == feed_cut(stream, [])


def test_what_stands_behind_short_messages_alone_may_be_anything() -> None:
    parser = DnsStream()
    assert parser.feed(b"\0\0\0\1") == []
    assert parser.rest == b"\0\1"
    parser = DnsStream()
    assert parser.feed(b"\0\1") + parser.feed(b"x\0\0" + prefixed(QUERY)) == []
    assert parser.rest == prefixed(QUERY)
    parser = DnsStream()
    assert len(parser.feed(prefixed(QUERY) + b"\0\0\x16\x03")) == 1
    assert (parser.rest, parser.bad) == (None, 1)


def test_a_message_of_the_greatest_length() -> None:
    message = response(record(OWNER, A, V4), record(OWNER, TXT, bytes(65_400)))
    message += bytes(65_535 - len(message))
    parser = DnsStream()
    stream = prefixed(message, QUERY)
    got = [parsed for at in range(0, len(stream), 1000) for parsed in parser.feed(stream[at : at + 1000])]
    assert [len(parsed.answers) for parsed in got] == [2, 0]


# Content checks

LIKELY = [
    QUERY,
    FULL,
    header(qd=1) + question("a.example", HTTPS),
    header(qd=1) + question("version.bind", TXT, 3),
    header(qd=1) + question("", NS),
    header(qd=1, ar=1) + question() + record(ROOT, OPT, b"\0\x0a\0\x08" + bytes(8), rrclass=1232),
    header(qd=1, ar=2)
    + question()
    + record(ROOT, OPT, b"")
    + record(wire_name("key.example"), 250, b"x" * 20, rrclass=255),
    header(0x8183, 1) + question(),
    header(0x8182, 1, 0, 0, 1) + question() + record(ROOT, OPT, b"", rrclass=512),
    header(0x8400, 0, 1) + record(wire_name("host.local"), A, V4, rrclass=0x8001),
    response(record(OWNER, A, V4)),
    header(qd=1) + question("0123456789.t.example", 16),
]
UNLIKELY = [
    b"",
    bytes(12),
    bytes(40),
    QUERY + b"\0",
    QUERY[:-1],
    header(0x0140, 1) + question(),  # Z
    header(0x1900, 1) + question(),  # opcode 3
    header(0x3100, 1) + question(),  # opcode 6
    header(0x0180, 1) + question(),  # RA in a query
    header(0x0103, 1) + question(),  # a response code in a query
    header(0x818C, 1) + question(),
    header(qd=0),
    header(qd=2) + question() * 2,
    header(qd=1, an=1) + question() + record(OWNER, A, V4),
    header(qd=1, ns=1) + question() + record(OWNER, A, V4),
    header(qd=1, ar=3) + question() + record(ROOT, OPT, b"") * 3,
    header(qd=1, ar=1) + question(),
    header(qd=1, ar=1) + question() + record(ROOT, OPT, b"") + b"\0",
    header(qd=1, ar=1) + question() + record(OWNER, OPT, b""),
    header(qd=1) + question(rrtype=54),
    header(qd=1) + question(rrtype=OPT),
    header(qd=1) + question(rrclass=2),
    header(qd=1) + question("", A),
    header(qd=1) + question("a\0b.example"),
    header(qd=1) + question("a b.example"),
    header(qd=1) + question("caf\xe9.example"),
    header(qd=1) + question("CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 33),  # NetBIOS node status
    header(qd=1) + question("EKEDFEEIEDCACACACACACACACACACAAA", 32),  # NetBIOS name query
    header(0x8400, 0, 1) + record(wire_name("CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), 33, bytes(20)),
    header(0x8580, 0, 1) + record(wire_name("EKEDFEEIEDCACACACACACACACACACAAA"), 32, bytes(6)),
    header(qd=1) + b"\xc0\x0c\0\1\0\1",
    header(qd=1) + b"\x01a" * 128 + b"\0" + b"\0\1\0\1",
    header(0x8180, 1, 1) + question(),
    header(0x8180, 1) + question() + b"\0",
    header(0x8180, 1, 101) + question() + record(OWNER, A, V4) * 101,
    header(0x8400, 0, 1) + record(wire_name("host.local"), A, V4)[:-1],
    header(0x8400, 0, 1) + record(wire_name("host.local"), 54, V4),
    header(0x8400, 0, 0, 1) + record(wire_name("host.local"), A, V4),
]


@pytest.mark.parametrize("wire", LIKELY)
def test_looks_like_dns(wire: bytes) -> None:
    assert looks_like_dns(wire, 0, len(wire))
    assert looks_like_dns(b"\xff" + wire + b"\xff", 1, 1 + len(wire))
    stream = prefixed(wire)
    answers = [looks_like_dns_stream(stream[:end]) for end in range(len(stream) + 1)]
    assert answers[-1] == 1 and 0 not in answers
    assert answers == sorted(answers)  # -1 until it can say, and then for good
    assert looks_like_dns_stream(stream + b"\0") == 1
    parse(wire)


@pytest.mark.parametrize("wire", UNLIKELY)
def test_does_not_look_like_dns(wire: bytes) -> None:
    assert not looks_like_dns(wire, 0, len(wire))
    assert looks_like_dns_stream(prefixed(wire)) == 0


@pytest.mark.parametrize(
    "head", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n     "]
)
def test_other_protocols_are_no_dns_stream(head: bytes) -> None:
    assert looks_like_dns_stream(head) == 0


@settings(max_examples=500, deadline=None)
@given(st.binary(min_size=12, max_size=1300))
def test_random_payload_is_not_dns(payload: bytes) -> None:
    assert not looks_like_dns(payload, 0, len(payload))
    assert looks_like_dns_stream(payload) != 1


def test_random_payload_behind_usual_headers_is_not_dns() -> None:
    """RTP (RFC 3550), QUIC (RFC 9000), STUN (RFC 8489), and a game's small counters with many zeros."""
    chooser = random.Random(2)
    for number in range(5000):
        body = chooser.randbytes(chooser.randrange(8, 60))
        counters = bytes(chooser.choice((0, 0, 0, 1, 2, 5, 16)) for _ in range(chooser.randrange(12, 60)))
        for payload in (
            b"\x80\x60" + struct.pack(">HI", number & 0xFFFF, number * 160) + body,
            b"\xc3\x00\x00\x00\x01\x08" + body,
            b"\x00\x01\x00\x08\x21\x12\xa4\x42" + body,
            counters,
        ):
            assert not looks_like_dns(payload, 0, len(payload))


def test_type_names() -> None:
    for number, name in ((1, "A"), (28, "AAAA"), (41, "OPT"), (53, "SMIMEA"), (65, "HTTPS"), (255, "ANY")):
        assert RRTYPE_NAMES[number] == name
    for number, name in RRTYPE_NAMES.items():
        known = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(number))
        assert known in (name, f"TYPE{number}")
