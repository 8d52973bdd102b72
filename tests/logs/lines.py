"""Lines as the programs write them, by their documentation; and dnstap messages as protocol buffers."""

from __future__ import annotations

import json
from typing import Any

from egressd.logs.formats import PARSERS
from egressd.model import Observation
from tests.detect.scene import packed

NOW_US = 1_795_601_000_000_000  # 25 November 2026, 10:03:20 UTC
TEN_US = 1_795_600_800_000_000  # 10:00:00


def read(format_: str, *lines: str | bytes) -> list[Observation]:
    parser = PARSERS[format_]("s")
    found: list[Observation] = []
    for line in lines:
        found += parser.parse(line.encode() if isinstance(line, str) else line, NOW_US)
    return found


def eve(sort: str, **inner: Any) -> str:
    event: dict[str, Any] = {
        "timestamp": "2026-11-25T11:00:00.250000+0100", "flow_id": 586497171462735, "in_iface": "eth1",
        "event_type": sort, "src_ip": "10.0.0.5", "src_port": 40000, "dest_ip": "198.51.100.7", "dest_port": 443,
        "proto": "TCP",
    }  # fmt: skip
    outer = {key: inner.pop(key) for key in list(inner) if key in event}
    return json.dumps({**event, **outer, sort: inner})


ZEEK_DNS = """\
#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tdns
#open\t2026-11-25-10-00-00
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\ttrans_id\trtt\tquery\tqclass\tqclass_name\tqtype\tqtype_name\trcode\trcode_name\tAA\tTC\tRD\tRA\tZ\tanswers\tTTLs\trejected
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tcount\tinterval\tstring\tcount\tstring\tcount\tstring\tcount\tstring\tbool\tbool\tbool\tbool\tcount\tvector[string]\tvector[interval]\tbool"""
ZEEK_HTTP = """\
#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\thttp
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\ttrans_depth\tmethod\thost\turi\treferrer\tversion\tuser_agent"""


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*made, number))


def field(number: int, value: int | bytes, *, fixed: bool = False) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if fixed:
        return varint(number << 3 | 5) + value.to_bytes(4, "little")
    return varint(number << 3) + varint(value)


def dns_wire(name: str, txid: int = 7, *, response: bool = False, alias: str = "", address: str = "") -> bytes:
    """A message of DNS with one question, and an answer of a CNAME or an address."""
    answers = b""
    if alias:
        answers += (
            b"\xc0\x0c" + bytes((0, 5, 0, 1, 0, 0, 0, 60)) + len(labels(alias)).to_bytes(2, "big") + labels(alias)
        )
    if address:
        answers += b"\xc0\x0c" + bytes((0, 1, 0, 1, 0, 0, 0, 60, 0, 4)) + packed(address)
    flags = 0x8180 if response else 0x0100
    count = bool(alias) + bool(address)
    head = txid.to_bytes(2, "big") + flags.to_bytes(2, "big") + bytes((0, 1, 0, count, 0, 0, 0, 0))
    return head + labels(name) + bytes((0, 1, 0, 1)) + answers


def labels(name: str) -> bytes:
    return b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\0"


def dnstap(sort: int, message: bytes, *, client: str = "10.0.0.5", nsec: int = 250_000_000, protocol: int = 1) -> bytes:
    """A dnstap payload: sort 5 is CLIENT_QUERY, 6 CLIENT_RESPONSE, 3 RESOLVER_QUERY."""
    inner = field(1, sort) + field(2, 1) + field(3, protocol) + field(4, packed(client))
    inner += field(5, packed("192.0.2.53")) + field(6, 50_000) + field(7, 53)
    inner += field(8, TEN_US // 1_000_000) + field(9, nsec, fixed=True)
    if sort % 2:
        inner += field(10, message)
    else:
        inner += field(12, TEN_US // 1_000_000) + field(13, nsec + 20_000_000, fixed=True) + field(14, message)
    return field(1, b"gw") + field(2, b"unbound 1.24.1") + field(15, 1) + field(14, inner)
