"""The nouns that travel between layers. Values only: they hold no behaviour.

Addresses are packed bytes (4 or 16), the form they have on the wire: they hash and compare at C speed and become text
only at an edge. Times are integer microseconds of UTC epoch (`_us`) as captures carry them. A name is normalised
(`names.normalise`) or empty; what could not be normalised is kept, escaped, in `raw_name` and matches nothing.
Instances are treated as immutable once handed on; they are not `frozen` because that triples the cost of making one.
What packets make by the thousand has its `__init__` written out: compiled, the one that `dataclass` makes costs seven
times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from egressd.native import mypyc_attr

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMP6: Final = 58


class FlowKey(NamedTuple):
    """A conversation seen from its client: the side that opened it, or would have (wire/direction.py)."""

    proto: int
    client: bytes
    client_port: int
    server: bytes
    server_port: int


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class DnsQuestion:
    """One entry of a DNS question section (RFC 1035 section 4.1.2)."""

    name: str
    raw_name: str
    rrtype: int

    def __init__(self, name: str, raw_name: str, rrtype: int) -> None:
        self.name = name
        self.raw_name = raw_name
        self.rrtype = rrtype


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class DnsRecord:
    """One resource record. `address` is packed for A and AAAA (else empty); `target` is the name of CNAME, PTR, SVCB,
    HTTPS, NS, MX, SRV, DNAME (else empty); `hints` are the packed addresses of SVCB/HTTPS ipv4hint and ipv6hint
    (RFC 9460)."""

    name: str
    raw_name: str
    rrtype: int
    ttl_s: int
    address: bytes
    target: str
    raw_target: str
    hints: tuple[bytes, ...]
    has_ech: bool  # SVCB/HTTPS carried an "ech" parameter (RFC 9460 key 5)

    def __init__(
        self,
        name: str,
        raw_name: str,
        rrtype: int,
        ttl_s: int,
        address: bytes,
        target: str,
        raw_target: str,
        hints: tuple[bytes, ...],
        has_ech: bool,
    ) -> None:
        self.name = name
        self.raw_name = raw_name
        self.rrtype = rrtype
        self.ttl_s = ttl_s
        self.address = address
        self.target = target
        self.raw_target = raw_target
        self.hints = hints
        self.has_ech = has_ech


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class DnsMessage:
    """A DNS message (RFC 1035 section 4) as far as it could be read. `error` is why reading stopped early, or ""."""

    txid: int
    is_response: bool
    opcode: int
    rcode: int
    truncated: bool
    questions: tuple[DnsQuestion, ...]
    answers: tuple[DnsRecord, ...]  # answer section, then authority, then additional; OPT is left out
    answer_count: int  # how many of `answers` stand in the answer section
    edns: bool
    error: str

    def __init__(
        self,
        txid: int,
        is_response: bool,
        opcode: int,
        rcode: int,
        truncated: bool,
        questions: tuple[DnsQuestion, ...],
        answers: tuple[DnsRecord, ...],
        answer_count: int,
        edns: bool,
        error: str,
    ) -> None:
        self.txid = txid
        self.is_response = is_response
        self.opcode = opcode
        self.rcode = rcode
        self.truncated = truncated
        self.questions = questions
        self.answers = answers
        self.answer_count = answer_count
        self.edns = edns
        self.error = error


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class HttpRequest:
    """The head of one HTTP/1 request (RFC 9112). `host` decides by RFC 9112 section 3.2: absolute-form or CONNECT
    target over the Host field. `target` and `user_agent` are latin-1 text as sent, cut at a bound: poison."""

    method: str
    target: str
    host: str  # normalised name, or "" when absent, illegal or an address literal
    raw_host: str  # as sent without port, escaped
    port: int  # 0 when not given
    user_agent: str
    header_host: str  # the Host field's own normalised name when it disagrees with the request target, else ""
    path: str  # origin-form path and query, "" for CONNECT

    def __init__(
        self,
        method: str,
        target: str,
        host: str,
        raw_host: str,
        port: int,
        user_agent: str,
        header_host: str,
        path: str,
    ) -> None:
        self.method = method
        self.target = target
        self.host = host
        self.raw_host = raw_host
        self.port = port
        self.user_agent = user_agent
        self.header_host = header_host
        self.path = path


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class ClientHello:
    """What a TLS ClientHello tells (RFC 8446 section 4.1.2). `ech` is "", "outer" (real as far as can be told) or
    "grease"."""

    sni: str
    raw_sni: str
    version: int  # highest offered, e.g. 0x0304
    alpn: tuple[str, ...]
    ech: str
    ech_reason: str

    def __init__(self, sni: str, raw_sni: str, version: int, alpn: tuple[str, ...], ech: str, ech_reason: str) -> None:
        self.sni = sni
        self.raw_sni = raw_sni
        self.version = version
        self.alpn = alpn
        self.ech = ech
        self.ech_reason = ech_reason


@dataclass(slots=True)
class SocksRequest:
    """A SOCKS 4, 4a or 5 request (RFC 1928 section 4). `host` is a normalised name or ""; `address` packed or empty."""

    version: int
    command: int
    host: str
    raw_host: str
    address: bytes
    port: int


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class Observation:
    """A destination was seen. `kind` is one of the constants below; `detail` is the parsed message where there is one.

    `number` is the packet's 1-based number in the capture that completed the observation (0 live). For `DNS_ANSWER`,
    `flow.client` is who asked and `flow.server` the server that answered. `sensor` names the log of another sensor that
    tells of it, "" is our own tap; what a log leaves out of a conversation is 0 and b"".
    """

    kind: str
    ts_us: int
    number: int
    flow: FlowKey
    name: str
    raw_name: str
    detail: DnsMessage | HttpRequest | ClientHello | SocksRequest | None
    version: int = 0  # QUIC version on the wire for QUIC_SNI
    # "ambiguous" (overlapping segments disagreed), "partial", "proxied" (the name is not the server's), BARE, EARLIER.
    note: str = ""
    sensor: str = ""

    def __init__(
        self,
        kind: str,
        ts_us: int,
        number: int,
        flow: FlowKey,
        name: str,
        raw_name: str,
        detail: DnsMessage | HttpRequest | ClientHello | SocksRequest | None,
        version: int = 0,
        note: str = "",
        sensor: str = "",
    ) -> None:
        self.kind = kind
        self.ts_us = ts_us
        self.number = number
        self.flow = flow
        self.name = name
        self.raw_name = raw_name
        self.detail = detail
        self.version = version
        self.note = note
        self.sensor = sensor


TAP: Final = "tap"  # how our own tap is called among the sources; no other sensor can have that name
DNS_QUERY: Final = "dns_query"
DNS_ANSWER: Final = "dns_answer"
HTTP_HOST: Final = "http_host"
TLS_SNI: Final = "tls_sni"
QUIC_SNI: Final = "quic_sni"
SOCKS_HOST: Final = "socks_host"
FLOW: Final = "flow"  # first packet of a conversation
REPLY: Final = "reply"  # first packet back on a conversation
BARE: Final = "bare"  # the note of a FLOW or REPLY that tells where packets go and nothing else (wire/portless.py)
EARLIER: Final = "earlier"  # the note of a REPLY that came, from outside, before its client was seen to send
BEHAVIOUR: Final = "behaviour"  # no observation: what several of them add up to (detect/behaviour/)


class Indicator(NamedTuple):
    """What intel says is bad, one line of a list. `value` is a normalised name, an address or network as text, or
    `host/path` for a URL. Of kind behaviour no list says it: `source` is "behaviour:" and the leading detector, `ref`
    tells in words what was seen. `scope` is what the line covers after narrowing: `registered`, `host` or `exact`;
    `narrowed` says why it is narrower than the default, or is empty. Times are epoch seconds, 0 = none."""

    kind: str  # domain | address | network | url | behaviour
    value: str
    scope: str
    narrowed: str
    registered_domain: str
    suffix_rule: str
    source: str
    line: int
    threat: str
    confidence: int  # 0..100
    added_s: int  # not in force before; contacts before it are found from history
    expires_s: int
    ref: str
    owner: str
    first_seen_s: int = 0  # when the source says that it was first seen; takes no part in matching


class Match(NamedTuple):
    """Why something matched. `level` is host (the listed name or below it), sibling (another name of its
    registered domain), address, url or behaviour."""

    level: str
    indicator: Indicator
    registered_domain: str
    suffix_rule: str


class Part(NamedTuple):
    """One detector's part in a sighting by behaviour: how sure it is (0 to 100), and why, for people."""

    detector: str
    score: int
    reason: str


class Target(NamedTuple):
    """What a decision acts on. `kind` is registered_domain, host, exact, address, network, pair or url; `value` is
    text; a pair is "client>address"."""

    kind: str
    value: str


@dataclass(slots=True)
class Sighting:
    """An observation met an indicator. `via` is the observation's kind; `retro` when it was found from history after
    the indicator arrived, in which case `count`, `first_us` and `last_us` sum up the contacts. `sources` is how many
    sensors have told of this contact so far, `told_by` names them; where only our own tap is listened to it is empty.
    `source` is who told of it now, "" when it comes from history, and `own` when that is new to that source, whether
    others told of it before or not."""

    ts_us: int
    number: int
    flow: FlowKey
    name: str
    match: Match
    via: str
    note: str
    retro: bool
    count: int
    first_us: int
    last_us: int
    url: str = ""
    address: bytes = b""  # what was contacted, when an address matched
    incident: str = ""
    campaign: str = ""
    new: bool = False  # the first sign of a contact, not one more of the same (detect/contacts.py)
    source: str = ""
    own: bool = False
    sources: int = 1
    told_by: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()  # of level behaviour: what it rests on, strongest first


@dataclass(slots=True)
class Decision:
    """Policy's verdict. `action` is block, extend (more targets for an earlier block), withdraw (fewer), refuse (a
    target that is not blocked, and why), alert, or ask (a person must decide). `id` is that of the block it belongs
    to."""

    id: str
    ts_us: int
    number: int
    action: str
    targets: tuple[Target, ...]
    reason: str
    rule: str
    evidence: str  # E0 the list line alone, E1 a client's own words, E2 an answer matching an outstanding question
    mode: str
    match: Match
    client: bytes
    name: str
    campaign: str


@dataclass(slots=True)
class Attempt:
    """Traffic toward a blocked target after the block. `first` when this client is new to the block; `count` runs per
    client and block. `stopped` when the block was enforced and covers the address that was tried, `leak` when that
    answered all the same."""

    ts_us: int
    number: int
    flow: FlowKey
    name: str
    via: str
    decision_id: str
    target: Target
    match: Match
    first: bool
    count: int
    leak: bool
    campaign: str
    incident: str
    stopped: bool = False


@dataclass(slots=True)
class Incident:
    """What a person handles: one device, or client where no device is known, in one campaign. `contacts` counts all,
    `attempts` those after the block, `answered` the connections that the destination answered. `sources` has how many
    of the contacts each sensor told of: one that three told of counts once in `contacts`, and for each of them here.
    `client` is the address that it was opened for, `device` the MAC as text or "", `addresses` all that it was seen
    under, the latest last. `volume` is what speaks for much data having gone out, "" when nothing does. `folded_into`
    names the older incident of the same device that took this one over. `let_through` are those of the attempts that
    nothing stopped, the mode being `monitor`; in a replay, which has one mode, it is not counted."""

    id: str
    campaign: str
    client: bytes
    match: Match
    opened_us: int
    first_us: int
    last_us: int
    contacts: int = 0
    attempts: int = 0
    answered: int = 0
    retro: bool = False
    number: int = 0
    names: dict[str, int] = field(default_factory=dict)
    via: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    device: str = ""
    addresses: list[bytes] = field(default_factory=list)
    volume: str = ""
    folded_into: str = ""
    let_through: int = 0


@dataclass(slots=True)
class Campaign:
    """Incidents tied by registered domain, indicator, address or threat tag, in order of discovery. `ties` are the
    reasons, for people. `candidates` are campaigns that may be part of it, each with the reason: a person decides.
    `repeated` and `sent` are those of the incidents that have more than one contact, and that speak for much data
    having gone out."""

    id: str
    keys: list[str]
    incidents: list[str]
    first_us: int
    last_us: int
    ties: list[str] = field(default_factory=list)
    candidates: dict[str, str] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)


Event = Sighting | Decision | Attempt | Incident
