"""The proving ground itself: what the other tests here stand on must be true."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from tests.netns import clients, load, servers, spaces
from tests.netns.ground import Ground
from tests.netns.servers import AAAA
from tests.netns.spaces import Channel, missing
from tests.netns.topology import JPS, MHLW, Topology

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("namespaces")]

EVIL4, EVIL6 = "203.0.113.66", "2001:db8:f::66"
ZONE = {"*.evil.example": [EVIL4, EVIL6], "evil.example": [EVIL4], "alias.example": ["CNAME b.evil.example"]}


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(zone=ZONE) as ground:
        yield ground


def test_a_host_resolves_and_reaches_what_is_beyond_by_both_families(ground: Ground) -> None:
    may = ground.topology["may"].space
    before = len(ground.wan.ask("hits", 0))
    assert may.call(clients.visit, "b.evil.example", "10.2.0.1", "?id=x") == (clients.ESTABLISHED, True)
    visit6 = may.call(lambda: clients.visit("b.evil.example", "2001:db8:2::1", rrtype=AAAA, by_tls=True))
    assert visit6 == (clients.ESTABLISHED, True)
    first, second = ground.wan.ask("hits", before)
    assert (first["address"], first["port"], first["tls"]) == (EVIL4, 80, False)
    assert first["peer"] == "100.64.0.2"  # masqueraded
    assert first["what"].startswith("GET /?id=x HTTP/1.1\r\nHost: b.evil.example")
    assert (second["address"], second["port"], second["tls"]) == (EVIL6, 443, True)
    assert second["peer"] == ground.topology["may"].v6


def test_answers(ground: Ground) -> None:
    april = ground.topology["april"].space
    assert april.call(clients.resolve, "alias.example", "10.1.0.1") == [EVIL4]
    assert april.call(clients.resolve, "deep.below.evil.example", "10.1.0.1") == [EVIL4]
    assert april.call(clients.resolve, "other.example", "10.1.0.1") == []
    ground.names.ask("change", {"other.example": ["8.8.8.8", "::ffff:8.8.8.8"]})
    assert april.call(clients.resolve, "other.example", "10.1.0.1") == ["8.8.8.8"]
    (told,) = april.call(clients.resolve, "other.example", "10.1.0.1", AAAA)
    assert IPv6Address(told) == IPv6Address("::ffff:8.8.8.8")  # Python 3.13 writes it another way


def test_outcomes_are_told_apart(ground: Ground) -> None:
    may, gateway = ground.topology["may"].space, ground.topology.gateway
    assert may.call(clients.connect, EVIL4, 81) == (clients.REFUSED, None)
    assert may.call(lambda: clients.connect("198.51.100.5", 80, timeout_s=0.1)) == (clients.TIMEOUT, None)
    gateway.run("nft", "-f", "-", text=_REJECT)
    try:
        assert may.call(clients.connect, "203.0.113.5", 80) == (clients.UNREACHABLE, None)
        assert may.call(clients.connect, "203.0.113.6", 80) == (clients.REFUSED, None)
        assert may.call(clients.ask_udp, "203.0.113.5", servers.ECHO_PORT, b"x") == clients.UNREACHABLE
    finally:
        gateway.run("nft", "delete", "table", "inet", "proof")


_REJECT = """
table inet proof {
 chain refusing {
  type filter hook forward priority -10; policy accept;
  ip daddr 203.0.113.5 reject with icmpx admin-prohibited
  ip daddr 203.0.113.6 meta l4proto tcp reject with tcp reset
 }
}
"""


@pytest.mark.parametrize("address", [EVIL4, EVIL6, "8.8.8.8"])
def test_datagrams_come_back_from_the_address_that_was_asked(ground: Ground, address: str) -> None:
    told = ground.topology["office"].space.call(clients.ask_udp, address, servers.ECHO_PORT, b"hello")
    assert told == clients.ESTABLISHED


def test_a_flow_goes_both_ways_and_its_death_is_noticed(ground: Ground) -> None:
    with ground.topology["may"].space.start(clients.hold_flow, EVIL4, servers.PULSE_PORT) as flow:
        assert flow.receive() == "open"
        ground.topology.gateway.run("nft", "-f", "-", text=_REJECT.replace("203.0.113.6 ", f"{EVIL4} "))
        try:
            assert flow.result()["end"] == "reset"
        finally:
            ground.topology.gateway.run("nft", "delete", "table", "inet", "proof")


def test_a_probe_knocks_every_ten_milliseconds(ground: Ground) -> None:
    with ground.topology["may"].space.start(clients.probe, [EVIL4, EVIL6]) as probe:
        assert probe.receive() == "probing"
        time.sleep(0.3)
        probe.channel.send("stop")
        seen = probe.result()
    assert {outcome for _, _, outcome in seen} == {clients.ESTABLISHED}
    assert len(seen) >= 15


@pytest.mark.alone
def test_what_is_measured_is_the_gateway_not_the_harness(ground: Ground) -> None:
    """Answers come fast, the delay is kept, and without a block everything gets through."""
    names = [f"n{number}.evil.example" for number in range(60)]
    told = ground.topology["may"].space.call(clients.tries, names, "10.2.0.1", [1_000_000] * 60)
    assert all(one.outcome == clients.ESTABLISHED and one.delivered for one in told)
    assert sorted(one.asked_us for one in told)[30] < 2_000
    assert all(one.delay_ns >= 1_000_000 for one in told)
    assert sorted(one.delay_ns for one in told)[30] < 1_200_000


@pytest.mark.parametrize(("kind", "rate", "packets"), [("named", 20_000, 10_000), ("bulk", 50_000, 25_000)])
def test_load_is_forwarded_and_goes_no_further(ground: Ground, kind: str, rate: int, packets: int) -> None:
    topology = ground.topology
    before = _passed(topology)
    with topology.switch.start(load.send, kind, MHLW, rate, packets) as sending:
        assert sending.receive() == "sending"
        sent = sending.result()
    assert sent.packets == packets
    assert (sent.names > packets / 2) == (kind == "named")
    assert sent.took_s >= packets / rate * 0.9
    assert _passed(topology) - before >= packets * 0.99  # well formed: the gateway's rules have seen them
    assert topology.wan.run("cat", "/proc/net/dev").returncode == 0


def _passed(topology: Topology) -> int:
    """Packets that the gateway has sent to the provider."""
    row = next(line for line in topology.gateway.run("cat", "/proc/net/dev").stdout.splitlines() if "wan0:" in line)
    return int(row.split(":")[1].split()[9])


def test_no_two_names_of_the_load_are_the_same(ground: Ground) -> None:
    with ground.topology.gateway.start(_names_seen, 9_000) as seeing:
        assert seeing.receive() == "listening"
        with ground.topology.switch.start(load.send, "named", JPS, 20_000, 9_000) as sending:
            sending.receive()
            sent = sending.result()
        names, different = seeing.result()
    assert names == different
    assert names >= 0.98 * sent.names


def _names_seen(channel: Channel, packets: int) -> tuple[int, int]:
    import socket

    from egressd.model import Observation
    from egressd.wire.dissector import Dissector

    seen: list[Observation] = []
    dissector = Dissector(seen.append, 65_536)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    tap.bind(("jps0", 3))
    tap.settimeout(1.0)
    channel.send("listening")
    frames: list[bytes] = []
    try:
        while len(frames) < packets:
            frames.append(tap.recv(4096))
    except TimeoutError:
        pass
    for number, frame in enumerate(frames):
        dissector.packet(1_700_000_000_000_000 + 50 * number, number, 1, frame, 0, len(frame), len(frame))
    names = [one.name for one in seen if one.name]
    return len(names), len(set(names))


def test_unbound_serves_as_the_resolver_of_the_lan(ground: Ground, tmp_path: Path) -> None:
    if shutil.which("unbound") is None:
        pytest.skip("needs unbound: apt-get install unbound")
    with ground.topology.wan.start(servers.serve_names, ["192.0.2.53"], ZONE) as authority:
        assert authority.receive() == "ready"
        unbound = servers.start_unbound(ground.topology.gateway, ["10.1.0.1@5300"], "192.0.2.53", tmp_path)
        try:
            told = ground.topology.gateway.call(_ask_port, "10.1.0.1", 5300)
        finally:
            unbound.kill()
            unbound.wait()
    assert told == [EVIL4]


def _ask_port(address: str, port: int) -> list[str]:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.sendto(servers.question("q.evil.example", 1, 7), (address, port))
        return servers.answered_addresses(one.recv(4096))


def test_nothing_is_left_when_the_maker_is_killed() -> None:
    """Neither its namespaces nor what runs in them."""
    code = (
        "import os, sys\n"
        "from tests.netns.spaces import Spaces\n"
        "spaces = Spaces()\n"
        "space = spaces.make('a')\n"
        "running = space.start(lambda channel: channel.recv())\n"
        "other = space.popen(['sh', '-c', 'echo there; exec sleep 600'], stdout=-1)\n"
        "other.stdout.readline()\n"  # one that is on its way in is not found in there
        "print(space.name, running.pid, other.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    root = Path(__file__).resolve().parents[2]
    maker = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert maker.stdout is not None
    name, *pids = maker.stdout.readline().split()
    assert (spaces.NAMES / name).exists()
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    until_s = time.monotonic() + 20
    while (spaces.NAMES / name).exists() or any(_alive(int(pid)) for pid in pids):
        assert time.monotonic() < until_s, f"{name} or one of {pids} is still there"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_missing_is_said_with_its_package() -> None:
    assert missing() == ""
    assert missing({"no-such-tool": "its-package"}) == "needs its-package: apt-get install its-package"
