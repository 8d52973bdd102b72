"""Observations of other sensors on their way from the process that reads the logs, by the core, to a packet process.

The log process reads what strangers wrote, so the core believes nothing of it but values of the expected types within
bounds. Where an observation goes on to is decided here too: to the packet process that sees its client's packets.
"""

from __future__ import annotations

from typing import Any, Final

from egressd.errors import Malformed
from egressd.model import (
    DNS_QUERY,
    HTTP_HOST,
    QUIC_SNI,
    TLS_SNI,
    ClientHello,
    DnsMessage,
    DnsQuestion,
    HttpRequest,
    Observation,
)
from egressd.names import normalise
from egressd.runtime.messages import VIAS, Values
from egressd.wire.table import RecentTable

MAX_CLIENTS: Final = 65_536  # of which it is known which packet process sees them
MAX_QUESTIONS: Final = 16

Packed = list[Any]


def pack_observation(seen: Observation) -> Packed:
    """An observation as plain values: of its message what matching needs."""
    detail = seen.detail
    more: list[Any] = []
    if isinstance(detail, HttpRequest):
        more = [
            detail.method, detail.target, detail.host, detail.raw_host, detail.port, detail.user_agent,
            detail.header_host, detail.path,
        ]  # fmt: skip
    elif isinstance(detail, DnsMessage):
        more = [[one.name, one.raw_name, one.rrtype] for one in detail.questions[:MAX_QUESTIONS]]
    flow = seen.flow
    return [
        seen.sensor, seen.kind, seen.ts_us,
        [flow.proto, flow.client.hex(), flow.client_port, flow.server.hex(), flow.server_port],
        seen.name, seen.raw_name, seen.version, seen.note, more,
    ]  # fmt: skip


def unpack_observation(packed: object) -> Observation:
    """The observation that `pack_observation` made a list of. Raises Malformed."""
    values = Values(packed)
    sensor = values.sensor()
    if not sensor:
        raise Malformed("an observation of nobody")
    kind, ts_us, flow = values.one_of(VIAS), values.count(), values.flow()
    name, raw_name, version, note = _name(values), values.text(), values.count(), values.text()
    more = Values(values.next())
    detail: DnsMessage | HttpRequest | ClientHello | None = None
    if kind == HTTP_HOST:
        method, target, host, raw_host = more.text(), more.text(), _name(more), more.text()
        detail = HttpRequest(
            method, target, host, raw_host, more.count(65_535), more.text(), _name(more), more.text()
        )  # fmt: skip
    elif kind in (TLS_SNI, QUIC_SNI):
        detail = ClientHello(name, raw_name, 0, (), "", "")
    elif kind == DNS_QUERY and len(more):
        if len(more) > MAX_QUESTIONS:
            raise Malformed("too many questions")
        questions = []
        for _ in range(len(more)):
            one = Values(more.next())
            questions.append(DnsQuestion(_name(one), one.text(), one.count(65_535)))
        detail = DnsMessage(0, False, 0, 0, False, tuple(questions), (), 0, False, "")
    return Observation(kind, ts_us, 0, flow, name, raw_name, detail, version, note, sensor)


def _name(values: Values) -> str:
    name = values.text()
    if name and normalise(name.encode("utf-8", "replace")) != name:
        raise Malformed("a name that is none")
    return name


class Whose:
    """Which packet process sees which client's packets, as far as they have told. Of several, each has its share."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._seen_by: RecentTable[bytes, int] = RecentTable(MAX_CLIENTS)

    def note(self, number: int, client: bytes) -> None:
        """Packet process `number` told of packets of `client`."""
        if self._processes > 1:
            self._seen_by.put(client, number)

    def of(self, client: bytes) -> tuple[int, bool]:
        """(who takes what is told of a client, whether that is sure). Of one that nobody has seen the first takes it,
        and all others keep in mind that it is told, should its packets come to them."""
        number = self._seen_by.get(client)
        return (0, self._processes == 1) if number is None else (number, True)
