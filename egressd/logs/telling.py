"""From the fields of a log to observations: names in their normal form, addresses packed, texts within bounds."""

from __future__ import annotations

from typing import Final

from egressd.errors import Malformed
from egressd.intel.networks import parse_address
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    HTTP_HOST,
    ICMP,
    ICMP6,
    QUIC_SNI,
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
)
from egressd.names import escape, normalise
from egressd.wire.dns import RRTYPE_NAMES
from egressd.wire.http_head import MAX_TARGET, MAX_USER_AGENT, parse_authority
from egressd.wire.portless import PORTED, REQUESTS

MAX_ANSWERS: Final = 64  # of one message; more would lead nowhere else
MAX_METHOD: Final = 20
PROXIED: Final = "proxied"
_RRTYPES: Final = {name: number for number, name in RRTYPE_NAMES.items()}
_PROTOCOLS: Final = {
    "tcp": TCP, "udp": UDP, "6": TCP, "17": UDP, "icmp": ICMP, "ipv6-icmp": ICMP6, "gre": 47, "esp": 50, "sctp": 132,
}  # fmt: skip
_CNAME: Final = 5
_MAX_FIELD: Final = 65_535


def named(text: str) -> tuple[str, str]:
    """(normal form or "", text as sent, escaped) of a name in a log."""
    raw = text.encode("utf-8", "replace")  # what JSON makes of half a surrogate pair is no name either
    return normalise(raw), escape(raw[:-1] if raw.endswith(b".") and len(raw) > 1 else raw)


def client_of(text: str) -> bytes:
    """The packed address of who asked. Raises Malformed when it is none, as where a log gives names for addresses."""
    client = parse_address(text)
    if not client:
        raise Malformed("a client's address was expected")
    return client


def flow_of(
    proto: str, client: str, client_port: int, server: str, server_port: int, icmp_type: int = 0
) -> FlowKey | None:
    """A conversation that a log knows all of; None when it is of a protocol that nothing is known of, or of ICMP and no
    request (`icmp_type`). Raises Malformed."""
    number = _PROTOCOLS.get(proto[:12].lower())
    if number is None:
        return None
    one, other = parse_address(client), parse_address(server)
    if not one or not other or len(one) != len(other):
        raise Malformed("two addresses of one family were expected")
    if not (0 <= client_port <= 65_535 and 0 <= server_port <= 65_535):
        raise Malformed("ports were expected")
    if number not in PORTED:
        if number == ICMP and len(one) == 16:
            number = ICMP6  # Zeek calls both by one name
        if number in REQUESTS:
            return FlowKey(number, one, 0, other, icmp_type) if icmp_type in REQUESTS[number] else None
        return FlowKey(number, one, 0, other, 0)
    return FlowKey(number, one, client_port, other, server_port)


def portless(client: bytes, server: bytes = b"") -> FlowKey:
    """A conversation of which a log tells no ports."""
    return FlowKey(0, client, 0, server if len(server) == len(client) else b"", 0)


def rrtype_of(text: str) -> int:
    """A record type's number by its name, 0 when it is not known."""
    return _RRTYPES.get(text, 0)


def _check_fields(rrtype: int, txid: int) -> None:
    """Raises Malformed for what no message of DNS has room for (RFC 1035 sections 4.1.1 and 4.1.2)."""
    if not (0 <= rrtype <= _MAX_FIELD and 0 <= txid <= _MAX_FIELD):
        raise Malformed("a record type and a message's id were expected")


def question(ts_us: int, flow: FlowKey, name: str, rrtype: int, txid: int = 0, sensor: str = "") -> Observation:
    """A client asked for a name. Raises Malformed."""
    _check_fields(rrtype, txid)
    normal, raw = named(name)
    message = DnsMessage(txid, False, 0, 0, False, (DnsQuestion(normal, raw, rrtype),), (), 0, False, "")
    return Observation(DNS_QUERY, ts_us, 0, flow, normal, raw, message, 0, "", sensor)


def asked(ts_us: int, flow: FlowKey, message: DnsMessage, sensor: str = "") -> Observation:
    """A message of DNS that was seen whole: a question or an answer."""
    normal = raw = ""
    if message.questions:
        normal, raw = message.questions[0].name, message.questions[0].raw_name
    kind = DNS_ANSWER if message.is_response else DNS_QUERY
    return Observation(kind, ts_us, 0, flow, normal, raw, message, 0, "", sensor)


def answer(
    ts_us: int, flow: FlowKey, name: str, rrtype: int, records: list[DnsRecord], txid: int = 0, sensor: str = ""
) -> Observation:
    """A client was answered. Raises Malformed."""
    _check_fields(rrtype, txid)
    normal, raw = named(name)
    kept = tuple(records[:MAX_ANSWERS])
    questions = (DnsQuestion(normal, raw, rrtype),)
    message = DnsMessage(txid, True, 0, 0, False, questions, kept, len(kept), False, "")
    return Observation(DNS_ANSWER, ts_us, 0, flow, normal, raw, message, 0, "", sensor)


def record(owner: str, rdata: str, rrtype: int = 0, ttl_s: int = 0) -> DnsRecord | None:
    """An address or alias record; None for data of any other sort."""
    name, raw = named(owner)
    address = parse_address(rdata)
    if address:
        return DnsRecord(name, raw, 1 if len(address) == 4 else 28, ttl_s, address, "", "", (), False)
    target, raw_target = named(rdata)
    if not target or rrtype not in (0, _CNAME):
        return None
    return DnsRecord(name, raw, _CNAME, ttl_s, b"", target, raw_target, (), False)


def hello(
    ts_us: int, flow: FlowKey, sni: str, *, quic: bool = False, version: int = 0, sensor: str = ""
) -> Observation | None:
    """A ClientHello named a server; None when it named none."""
    if not sni:
        return None
    normal, raw = named(sni)
    detail = ClientHello(normal, raw, 0, (), "", "")
    return Observation(QUIC_SNI if quic else TLS_SNI, ts_us, 0, flow, normal, raw, detail, version, "", sensor)


def request(
    ts_us: int,
    flow: FlowKey,
    method: str,
    target: str,
    authority: str = "",
    user_agent: str = "",
    sensor: str = "",
    note: str = "",
) -> Observation | None:
    """A request of HTTP. Its host stands in an absolute target or a CONNECT's (RFC 9112 section 3.2), else in
    `authority`; None when it stands nowhere."""
    path = target if target.startswith("/") else ""
    scheme, separator, rest = target.partition("://")
    asked_for = authority
    if method == "CONNECT":
        asked_for = target
    elif separator and scheme.isalnum() and len(scheme) <= 8:
        end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
        asked_for = rest[:end].rpartition("@")[2]
        path = rest[end:] if rest[end : end + 1] == "/" else "/" + rest[end:]
    if not asked_for or asked_for == "-":
        return None
    host, raw_host, port = parse_authority(asked_for.encode("utf-8", "replace"))
    if not host and not raw_host:
        return None
    detail = HttpRequest(
        method[:MAX_METHOD], target[:MAX_TARGET], host, raw_host, port, user_agent[:MAX_USER_AGENT], "",
        path[:MAX_TARGET],
    )  # fmt: skip
    if not note and not target.startswith("/") and target != "*" and (separator or method == "CONNECT"):
        note = PROXIED
    return Observation(HTTP_HOST, ts_us, 0, flow, host, raw_host, detail, 0, note, sensor)
