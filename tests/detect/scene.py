"""A scene: an engine with lists as text, and observations made by hand, in seconds of packet time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from egressd.config.feed_options import FeedOptions
from egressd.detect.engine import Engine
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.resolutions import Resolutions
from egressd.intel.allowances import Allowances, parse_allowances
from egressd.intel.feeds.reading import read
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.index import Index
from egressd.intel.lines import render_time
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.intel.shared_ranges import SharedRanges, parse_shared_ranges
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    QUIC_SNI,
    REPLY,
    SOCKS_HOST,
    TCP,
    TLS_SNI,
    UDP,
    Attempt,
    ClientHello,
    Decision,
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    Event,
    FlowKey,
    HttpRequest,
    Incident,
    Indicator,
    Observation,
    Sighting,
    SocksRequest,
)
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse("com\nexample\n// ===BEGIN PRIVATE DOMAINS===\nhosted.example\n")
GUARD, _ = Guard.parse("platform.example category=platform # everybody is there\n", SUFFIXES)
PROTECTED, _ = Protected.parse(
    "10.0.0.0/8 # private use\n127.0.0.0/8 # loopback\n", extra=[("192.0.2.1", "our gateway")]
)
RESOLVERS, _ = Resolvers.parse("192.0.2.53 # Open Resolver\nresolver.example # Open Resolver\n")

T0 = 1_700_000_000  # when every scene begins, epoch seconds
RESOLVER = "192.0.2.53"
A, B, C = "10.0.0.5", "10.0.0.6", "10.0.0.7"  # clients
X, Y = "198.51.100.7", "198.51.100.8"  # servers


def packed(address: str) -> bytes:
    return ip_address(address).packed


def at(second: float) -> int:
    """Packet time in microseconds."""
    return T0 * 1_000_000 + round(second * 1_000_000)


def when(second: int) -> str:
    """An `added=` or `expires=` time."""
    return render_time(T0 + second)


def flow(client: str, server: str, sport: int = 40000, dport: int = 443, proto: int = TCP) -> FlowKey:
    return FlowKey(proto, packed(client), sport, packed(server), dport)


def listed(text: str) -> list[Indicator]:
    found, problems = parse_list(text, "l.txt", SUFFIXES, GUARD)
    assert problems == []
    return found


def fed(text: str, **options: Any) -> list[Indicator]:
    """What a feed lists."""
    found = list(read(text, "feed", FeedOptions(confidence=100, **options), SUFFIXES, GUARD))
    assert all(isinstance(one, Indicator) for one in found)
    return found  # type: ignore[return-value]


def allowed(text: str) -> Allowances:
    found, problems = parse_allowances(text, "allow.txt", SUFFIXES)
    assert problems == []
    return Allowances(found)


def shared(text: str) -> SharedRanges:
    found, problems = parse_shared_ranges(text, "cdn.txt")
    assert problems == []
    return SharedRanges(found)


def record(name: str, rdata: str, rrtype: int = 0) -> DnsRecord:
    """An A, AAAA or (with a name as data) CNAME record, or of the type given."""
    try:
        address = packed(rdata)
    except ValueError:
        return DnsRecord(name, name, rrtype or 5, 60, b"", rdata, rdata, (), False)
    if rrtype in (64, 65):
        return DnsRecord(name, name, rrtype, 60, b"", "", "", (address,), False)
    return DnsRecord(name, name, 1 if len(address) == 4 else 28, 60, address, "", "", (), False)


def message(
    name: str, txid: int, records: Sequence[DnsRecord] = (), response: bool = True, more: Sequence[str] = ()
) -> DnsMessage:
    questions = tuple(DnsQuestion(one, one, 1) for one in (name, *more))
    return DnsMessage(txid, response, 0, 0, False, questions, tuple(records), len(records), False, "")


class Scene:
    """An engine and everything that it has said."""

    def __init__(
        self,
        lists: str = "c2.bad.example threat=case",
        allow: str = "",
        settings: PolicySettings | None = None,
        *,
        enforced: bool = False,
        history: int = 1000,
        ranges: str = "",
        sensors: bool = False,
        feed: str = "",
    ) -> None:
        self.events: list[Event] = []
        index = Index.build([*listed(lists), *fed(feed)], SUFFIXES)
        intel = Intel(index, SUFFIXES, allowed(allow), PROTECTED, RESOLVERS, shared(ranges))
        self.engine = Engine(
            intel, settings or PolicySettings(), self.events.append, enforced=enforced, history=history,
            sensors=sensors,
        )  # fmt: skip
        self.number = 0
        self.txid = 0
        self.sensor = ""  # who tells

    # -- what can be seen

    def see(
        self, kind: str, second: float, key: FlowKey, name: str = "", detail: object = None, note: str = ""
    ) -> None:
        self.number += 1
        self.engine.observe(
            Observation(
                kind,
                at(second),
                self.number,
                key,
                name,
                name,
                detail,
                0,
                note,
                self.sensor,  # type: ignore[arg-type]
            )
        )

    @contextmanager
    def told_by(self, sensor: str) -> Iterator[None]:
        """What is seen within is told by another sensor."""
        self.sensor = sensor
        try:
            yield
        finally:
            self.sensor = ""

    def question(
        self, second: float, client: str, name: str, *, server: str = RESOLVER, sport: int = 50000, txid: int = 0,
        more: Sequence[str] = (),
    ) -> None:  # fmt: skip
        detail = message(name, txid, (), False, more)
        self.see(DNS_QUERY, second, flow(client, server, sport, 53, UDP), name, detail)

    def answer(
        self, second: float, client: str, name: str, *records: DnsRecord, server: str = RESOLVER, sport: int = 50000,
        txid: int = 0,
    ) -> None:  # fmt: skip
        self.see(DNS_ANSWER, second, flow(client, server, sport, 53, UDP), name, message(name, txid, records))

    def resolve(self, second: float, client: str, name: str, *addresses: str, server: str = RESOLVER) -> None:
        """A question and its answer, 10 ms later."""
        self.txid += 1
        self.question(second, client, name, txid=self.txid, server=server)
        records = [record(name, address) for address in addresses]
        self.answer(second + 0.01, client, name, *records, txid=self.txid, server=server)

    def flow(self, second: float, client: str, server: str, sport: int = 40000, dport: int = 443) -> None:
        self.see(FLOW, second, flow(client, server, sport, dport))

    def reply(self, second: float, client: str, server: str, sport: int = 40000, dport: int = 443) -> None:
        self.see(REPLY, second, flow(client, server, sport, dport))

    def tls(self, second: float, client: str, server: str, sni: str, sport: int = 40000, note: str = "") -> None:
        hello = ClientHello(sni, sni, 0x0304, (), "", "")
        self.see(TLS_SNI, second, flow(client, server, sport), sni, hello, note)

    def quic(self, second: float, client: str, server: str, sni: str, sport: int = 40000) -> None:
        hello = ClientHello(sni, sni, 0x0304, (), "", "")
        self.see(QUIC_SNI, second, flow(client, server, sport, 443, UDP), sni, hello)

    def http(
        self, second: float, client: str, server: str, host: str, target: str = "/", *, sport: int = 40000,
        method: str = "GET", raw_host: str = "", header_host: str = "", dport: int = 80,
    ) -> None:  # fmt: skip
        path = target if target.startswith("/") else "/"
        request = HttpRequest(method, target, host, raw_host or host, 0, "", header_host, path)
        self.see(HTTP_HOST, second, flow(client, server, sport, dport), host, request)

    def socks(self, second: float, client: str, server: str, host: str, sport: int = 40000, address: str = "") -> None:
        asked = SocksRequest(5, 1, host, host, packed(address) if address else b"", 443)
        self.see(SOCKS_HOST, second, flow(client, server, sport, 1080), host, asked)

    # -- what was said

    @property
    def sightings(self) -> list[Sighting]:
        return [event for event in self.events if isinstance(event, Sighting)]

    @property
    def attempts(self) -> list[Attempt]:
        return [event for event in self.events if isinstance(event, Attempt) and not event.leak]

    @property
    def leaks(self) -> list[Attempt]:
        return [event for event in self.events if isinstance(event, Attempt) and event.leak]

    @property
    def opened(self) -> list[Incident]:
        return [event for event in self.events if isinstance(event, Incident)]

    @property
    def incidents(self) -> list[Incident]:
        return list(self.engine.campaigns.incidents.values())

    @property
    def decisions(self) -> list[Decision]:
        return [event for event in self.events if isinstance(event, Decision)]

    def targets(self, *actions: str) -> list[str]:
        """`kind value` of what decisions with one of `actions` act on, in order."""
        return [f"{t.kind} {t.value}" for d in self.decisions if d.action in actions for t in d.targets]

    def said(self, *actions: str) -> list[tuple[str, str, str]]:
        """(action, rule, `kind value`) of decisions, in order; of some actions if given."""
        return [
            (one.action, one.rule, f"{target.kind} {target.value}")
            for one in self.decisions
            for target in one.targets
            if not actions or one.action in actions
        ]

    def rules(self, action: str) -> list[str]:
        return [d.rule for d in self.decisions if d.action == action]

    def counts(self, client: str) -> tuple[int, int]:
        """(contacts, attempts) of a client over its incidents."""
        mine = [one for one in self.incidents if one.client == packed(client)]
        return sum(one.contacts for one in mine), sum(one.attempts for one in mine)


def learn(resolutions: Resolutions, client: bytes, name: str, address: bytes, ts_us: int) -> None:
    """A client was told where a name lives, by an answer that proves it."""
    resolutions.reached(client, name, address, ts_us)
    resolutions.lives_at(name, address, ts_us)
