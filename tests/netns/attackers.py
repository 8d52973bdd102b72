"""Hosts and attackers that keep at it: tries on a block, answers in flux, forged names. In a size that the caller
chooses."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack
from ipaddress import ip_address
from random import Random
from typing import Any, NamedTuple

from bench.traffic import client_hello, http_request
from pcaps.hellos import records
from tests.netns import clients, kernel
from tests.netns.daemon import Daemon, until
from tests.netns.ground import RESOLVER, Ground
from tests.netns.load import checksum
from tests.netns.servers import Answers, question
from tests.netns.topology import GATEWAY_MAC, JPS


class Trying(NamedTuple):
    """Hosts that connect to a blocked address again and again. `tries` are what they made, `kernel_packets` what the
    element counted, `alerts` the events that a person would be told of."""

    tries: dict[str, int]
    got_through: int
    kernel_packets: int
    incidents: list[dict[str, Any]]
    watch: dict[str, Any]
    alerts: int


def three_hosts_trying(
    ground: Ground, daemon: Daemon, hosts: tuple[str, ...], address: str, count: int, period_s: float
) -> Trying:
    """An answer to the first host makes the block; then each connects `count` times."""
    assert ground.resolve(hosts[0], "b.evil.example")
    until(lambda: address in kernel.blocked(ground.gateway))
    already = kernel.blocked(ground.gateway)[address].packets
    events_before = len(daemon.events())
    tries: dict[str, int] = {}
    through = 0
    with ExitStack() as stack:
        runs = {host: stack.enter_context(ground[host].space.start(knock, address, count, period_s)) for host in hosts}
        for host, running in runs.items():
            outcomes = running.result(count * period_s + 60)
            tries[host] = len(outcomes)
            through += outcomes.count(clients.ESTABLISHED)
    packets = kernel.blocked(ground.gateway)[address].packets - already
    wanted = {ground[host].v4 for host in hosts}
    until(lambda: wanted <= {one["client"] for one in daemon.ask("incidents")["incidents"]})
    time.sleep(2.5)  # sums are told once a second
    incidents = daemon.ask("incidents")["incidents"]
    held = next(one for one in daemon.ask("watch")["watches"] if one["target"]["value"] == "evil.example")
    watch = daemon.ask("watch", id=held["decision_id"])["watches"][0]
    alerts = sum(one["event_type"] in ("incident", "leak", "decision") for one in daemon.events()[events_before:])
    return Trying(tries, through, packets, incidents, watch, alerts)


def knock(channel: Any, address: str, count: int, period_s: float) -> list[str]:
    outcomes = []
    due_s = time.monotonic()
    for _ in range(count):
        outcomes.append(clients.connect(address, 80)[0])
        due_s += period_s
        time.sleep(max(0.0, due_s - time.monotonic()))
    return outcomes


class Flux(NamedTuple):
    """A listed name that answers with ever new addresses."""

    answers: int
    took_s: float
    addresses: int
    incidents: list[dict[str, Any]]
    refused: int


def flux(ground: Ground, daemon: Daemon, answers: int) -> Flux:
    """A host resolves so many names of one listed domain, each at an address of its own."""
    zone = {f"f{number}.flux.example": [f"45.9.{number >> 8}.{number & 255}"] for number in range(answers)}
    ground.zone(zone)
    began_s = time.monotonic()
    resolved = ground["may"].space.call(_resolve_all, list(zone), RESOLVER, timeout_s=600.0)
    took_s = time.monotonic() - began_s
    assert resolved == answers
    time.sleep(2.5)
    held = [address for address in kernel.blocked(ground.gateway) if address.startswith("45.9.")]
    refused = len(daemon.events("decision", action="refuse"))
    return Flux(answers, took_s, len(held), daemon.ask("incidents")["incidents"], refused)


def _resolve_all(names: list[str], resolver: str) -> int:
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(2.0)
    asking.connect((resolver, 53))
    answered = 0
    for number, name in enumerate(names):
        asking.send(question(name, 1, number & 0xFFFF))
        answered += bool(asking.recv(4096))
    return answered


class Forged(NamedTuple):
    """What came of forged names: blocks for everybody, and for the one that sent them."""

    sent: int
    blocked: set[str]
    pairs: set[str]


VICTIM = "192.0.2.22"  # an innocent server that many use
FORGER = "10.2.9.77"


def forge(ground: Ground, count: int) -> Forged:
    """A host of the LAN says listed names to an innocent server, and sends answers in the resolver's name: with a wrong
    transaction id, and, having asked the question itself, with the right one."""
    sent = ground.topology.switch.call(_forge, count, timeout_s=300.0)
    time.sleep(2.5)
    return Forged(sent, set(kernel.blocked(ground.gateway)), set(kernel.pairs(ground.gateway)))


def _forge(count: int) -> int:
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    line.bind(("up2", 0))
    draw = Random(5)
    answers = Answers({"*.evil.example": [VICTIM]})
    sent = 0
    for number in range(count):
        name, port = f"f{number}.evil.example", 20_000 + number % 40_000
        match number % 4:
            case 0:
                hello = records(client_hello(draw, name.encode(), False))
                frames = [_tcp(FORGER, VICTIM, port, 443, hello)]
            case 1:
                frames = [_tcp(FORGER, VICTIM, port, 80, http_request(draw, name.encode()))]
            case 2:  # an answer to a question that nobody asked
                asked = question(name, 1, number & 0xFFFF)
                frames = [_udp(RESOLVER, FORGER, 53, port, answers.answer(asked))]
            case _:  # an answer to the forger's own question, before the resolver's own comes
                asked = question(name, 1, number & 0xFFFF)
                frames = [
                    _udp(FORGER, RESOLVER, port, 53, asked),
                    _udp(RESOLVER, FORGER, 53, port, answers.answer(asked)),
                ]
        for frame in frames:
            sent += line.send(frame) > 0
        if number % 20 == 19:
            time.sleep(0.002)
    return sent


def _ip(source: str, target: str, proto: int, body: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, proto, 0)
    head += ip_address(source).packed + ip_address(target).packed
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    macs = bytes.fromhex(GATEWAY_MAC[JPS].replace(":", "")) + b"\x02\0\x0a\x02\x09\x4d"
    return macs + b"\x08\0" + head + body


def _tcp(source: str, target: str, port: int, to_port: int, payload: bytes) -> bytes:
    head = struct.pack(">HHIIBBHHH", port, to_port, 1_000, 1, 0x50, 0x18, 502, 0, 0)
    return _ip(source, target, 6, head + payload)


def _udp(source: str, target: str, port: int, to_port: int, payload: bytes) -> bytes:
    return _ip(source, target, 17, struct.pack(">HHHH", port, to_port, 8 + len(payload), 0) + payload)
