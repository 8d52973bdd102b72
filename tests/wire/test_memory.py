"""Unfinished messages of many conversations stay within their bounds, and one client cannot take all of it."""

from __future__ import annotations

from egressd.model import HTTP_HOST, TLS_SNI, Observation
from egressd.wire.dissector import Dissector
from egressd.wire.memory import MAX_COMPARED_BYTES, MAX_SENDER_BYTES, MAX_WAITING_BYTES
from pcaps.hellos import hello
from pcaps.packets import Capture, Tcp, get

HEAD = b"GET / HTTP/1.1\r\nX-Filling: " + b"x" * 1_300  # never ends


def feed(dissector: Dissector, capture: Capture) -> None:
    """Give the dissector what the capture holds, and empty the capture."""
    for packet in capture.packets:
        dissector.packet(packet.ts_us, 1, 1, packet.octets, 0, len(packet.octets), packet.wire_bytes)
    capture.packets.clear()


def half_way(capture: Capture, client: tuple[str, int], segments: int) -> None:
    """A request that stops in its head."""
    connection = Tcp(capture, client, ("192.0.2.10", 80))
    connection.segment(flags="S")
    connection.send(HEAD + b"y" * 1_300 * (segments - 1), 1_300)


def test_one_client_cannot_fill_memory_and_others_are_still_heard() -> None:
    seen: list[Observation] = []
    dissector = Dissector(seen.append)
    capture = Capture()
    for port in range(10_000, 10_160):
        half_way(capture, ("10.0.0.66", port), 40)
        feed(dissector, capture)
        assert dissector.tcp.memory.waiting <= MAX_SENDER_BYTES + 70_000
    assert dissector.tcp.memory.given_up > 0
    assert dissector.counts()["tcp_over_memory"] > 0
    whole = hello("c2.bad.example")
    Tcp(capture, ("10.0.0.7", 40_000), ("192.0.2.11", 443)).open().send(whole, 200)
    feed(dissector, capture)
    assert [one.name for one in seen if one.kind == TLS_SNI] == ["c2.bad.example"]


def test_one_host_with_many_ipv6_addresses_cannot_fill_memory() -> None:
    dissector = Dissector(lambda seen: None)
    memory = dissector.tcp.memory
    memory._limit, memory._sender_limit, memory._network_limit = 800_000, 100_000, 400_000
    capture = Capture()
    for number in range(1, 60):
        connection = Tcp(capture, (f"2001:db8::{number:x}", 40_000), ("2001:db8:1::1", 80))
        connection.segment(flags="S")
        connection.send(HEAD + b"y" * 1_300 * 30, 1_300)
        feed(dissector, capture)
        assert memory.waiting <= 400_000 + 70_000
    assert memory.waiting > 300_000 and memory.given_up > 0


def test_who_gave_up_is_heard_again_with_the_next_request() -> None:
    seen: list[Observation] = []
    dissector = Dissector(seen.append)
    dissector.tcp.memory._sender_limit = 5_000
    capture = Capture()
    connection = Tcp(capture, ("10.0.0.66", 10_000), ("192.0.2.10", 80)).open()
    connection.send(b"GET /a HTTP/1.1\r\nHost: first.example\r\nX: " + b"x" * 9_000, 1_300)
    connection.send(get("second.example", "/b"))
    feed(dissector, capture)
    assert [one.name for one in seen if one.kind == HTTP_HOST] == ["first.example", "second.example"]
    assert dissector.tcp.memory.given_up == 1


def test_accounts_are_closed_with_their_conversations() -> None:
    dissector = Dissector(lambda seen: None)
    capture = Capture()
    for port in range(10_000, 10_050):
        half_way(capture, ("10.0.0.66", port), 3)
        Tcp(capture, ("10.0.0.66", port), ("192.0.2.10", 80)).segment(flags="R", at=2_600)
    connection = Tcp(capture, ("10.0.0.5", 40_000), ("192.0.2.11", 443)).open().send(hello("www.good.example"), 100)
    connection.receive(b"\x16\x03\x03\x00\x04\x02\0\0\0")
    feed(dissector, capture)
    memory = dissector.tcp.memory
    for port in range(10_000, 10_050):  # the ports are used anew
        Tcp(capture, ("10.0.0.66", port), ("192.0.2.10", 80), isn=(77, 78)).segment(flags="S")
    feed(dissector, capture)
    assert memory.waiting == 0
    assert memory.compared == 0
    assert memory._by_sender == {}


def test_bytes_to_compare_with_are_bounded() -> None:
    names: list[str] = []
    dissector = Dissector(lambda seen: names.append(seen.name) if seen.kind == TLS_SNI else None)
    capture = Capture()
    whole = hello("www.good.example") + b"\x17\x03\x03\x0b\xb8" + b"z" * 3_000
    count = MAX_COMPARED_BYTES // len(whole) + 50
    for number in range(count):
        client = (f"10.{number >> 12}.{number >> 6 & 63}.{number & 63}", 40_000)
        connection = Tcp(capture, client, ("192.0.2.11", 443))
        connection.segment(flags="S")
        connection.send(whole)
        feed(dissector, capture)
        assert dissector.tcp.memory.compared <= MAX_COMPARED_BYTES
    assert len(names) == count, "no name is lost by it"
    assert dissector.tcp.memory.waiting < MAX_WAITING_BYTES
