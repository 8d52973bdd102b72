"""Blind spots: which conversations count as unreadable, once each, for whom."""

from __future__ import annotations

import pytest

from egressd.detect import blind as blind_module
from egressd.detect.blind import DOH, DOQ, DOT, ECH, NO_NAME, BlindSpots
from egressd.model import FLOW, HTTP_HOST, QUIC_SNI, TCP, TLS_SNI, UDP, ClientHello, Observation
from tests.detect.scene import RESOLVER, RESOLVERS, A, X, at, flow, packed


def seen(kind: str, server: str = X, port: int = 443, sni: str = "", ech: str = "", proto: int = TCP) -> Observation:
    detail = None if kind == FLOW else ClientHello(sni, sni, 0x0304, (), ech, "")
    return Observation(kind, at(0), 1, flow(A, server, 40000, port, proto), sni, sni, detail)


@pytest.mark.parametrize(
    ("observation", "sort"),
    [
        (seen(FLOW), ""),
        (seen(FLOW, port=853), DOT),
        (seen(FLOW, port=853, proto=UDP), DOQ),
        (seen(FLOW, port=784, proto=UDP), DOQ),
        (seen(FLOW, port=784), ""),
        (seen(FLOW, RESOLVER), DOH),
        (seen(FLOW, RESOLVER, proto=UDP), DOH),
        (seen(FLOW, RESOLVER, port=53), ""),
        (seen(TLS_SNI, sni="www.good.example"), ""),
        (seen(TLS_SNI), NO_NAME),
        (seen(QUIC_SNI, proto=UDP), NO_NAME),
        (seen(TLS_SNI, sni="resolver.example"), DOH),
        (seen(TLS_SNI, sni="abc123.resolver.example"), DOH),  # some operators give every customer a name
        (seen(TLS_SNI, sni="notresolver.example"), ""),
        (seen(TLS_SNI, sni="www.good.example", ech="outer"), ECH),
        (seen(TLS_SNI, sni="www.good.example", ech="grease"), ""),
        (seen(TLS_SNI, RESOLVER, sni="resolver.example"), ""),  # its first packet was counted
        (seen(TLS_SNI, RESOLVER, port=8443), NO_NAME),  # this one's was not
        (seen(TLS_SNI, port=853), ""),
        (seen(TLS_SNI, port=8853), NO_NAME),  # TCP: DNS over QUIC it is not
        (seen(QUIC_SNI, port=8853, proto=UDP), ""),
        (Observation(HTTP_HOST, at(0), 1, flow(A, X), "", "", None), ""),
    ],
)
def test_sorts(observation: Observation, sort: str) -> None:
    blind = BlindSpots(RESOLVERS)
    assert blind.observe(observation) == sort
    assert blind.totals() == ({sort: 1} if sort else {})


@pytest.mark.parametrize("port", [443, 853])
def test_an_encrypted_question_counts_once(port: int) -> None:
    blind = BlindSpots(RESOLVERS)
    blind.observe(seen(FLOW, RESOLVER, port))
    blind.observe(seen(TLS_SNI, RESOLVER, port, "resolver.example"))
    assert sum(blind.totals().values()) == 1


def test_counted_by_client_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blind_module, "MAX_CLIENTS", 3)
    blind = BlindSpots(RESOLVERS)
    for number in range(5):
        key = flow(f"10.0.0.{number}", X, 40000, 853)
        for _ in range(2):
            blind.observe(Observation(FLOW, at(0), 1, key, "", "", None))
    assert blind.by_client == {packed(f"10.0.0.{number}"): {DOT: 2} for number in range(3)}
    assert (blind.uncounted, blind.totals()) == (4, {DOT: 10})
