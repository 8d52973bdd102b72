"""Live capture on real interfaces: nothing unasked, nothing lost without a count, and interfaces that come and go.

Each test runs in a child process inside a namespace of its own, which holds both ends of a veth pair.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from egressd.capture.afpacket import CLOSED, DOWN, MISSING, UP, LiveSource, wait
from egressd.capture.livefilter import FilterSettings
from egressd.capture.ring import FLOW, CaptureSettings
from egressd.errors import CaptureError
from egressd.wire.quiet import Recent
from tests.netns.spaces import Channel, Namespace, Spaces
from tests.wire.frames_made import ACK, frame, tcp, udp

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("namespaces")]

SOL_PACKET = 263
CLIENT, SERVER = ("10.0.0.5", 40_000), ("192.0.2.1", 443)
QUESTION = bytes.fromhex("123401000001000000000000") + b"\x04evil\x07example\0\0\1\0\1"
ASKED = udp(CLIENT, ("192.0.2.1", 53), QUESTION)
BULK = tcp(("192.0.2.1", 443), CLIENT, 1, ACK, bytes([0x99]) * 1400)
PLENTY_S = 60.0


class Recorder:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.quiet: dict[bytes, int] = {}
        self.quiet_udp: dict[bytes, int] = {}
        self.recent: Recent | None = None
        self.packets: list[bytes] = []
        self.told: list[tuple[int, int, int, int]] = []  # time, number, link type, length on the wire

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        self.packets.append(buf[start:end])
        self.told.append((ts_us, number, link, orig_len))


@pytest.fixture
def space() -> Iterator[Namespace]:
    spaces = Spaces()
    try:
        yield spaces.make("tap")
    finally:
        spaces.close()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def make_pair(name: str = "v0", peer: str = "v1") -> None:
    ip("link", "add", name, "type", "veth", "peer", "name", peer)
    for end in (name, peer):
        Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")  # no router solicitations between ours
        ip("link", "set", end, "up")


def sender(name: str = "v1") -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.bind((name, 0))
    return made


def read_until(source: LiveSource, sink: Recorder, done: Callable[[], bool]) -> None:
    """Wait and read as a packet process does, until `done`; fails after a long time."""
    end_s = time.monotonic() + PLENTY_S
    while not done():
        assert time.monotonic() < end_s, f"{source.state} {source.problem} {source.counts()} {len(sink.packets)}"
        wait([source], [], 200)
        source.read(sink, 64)


def opened(name: str = "v0", **settings: object) -> tuple[LiveSource, Recorder]:
    no_chance = FilterSettings(bulk_sample=0)
    return LiveSource(name, CaptureSettings(filter=no_chance, **settings)), Recorder()  # type: ignore[arg-type]


def send_until_seen(out: socket.socket, source: LiveSource, sink: Recorder) -> None:
    """An interface that was just set up has its carrier a little later, and drops what is sent before."""
    seen = len(sink.packets)
    end_s = time.monotonic() + PLENTY_S
    while len(sink.packets) == seen:
        assert time.monotonic() < end_s, f"{source.state} {source.problem} {source.counts()}"
        out.send(ASKED)
        wait([source], [], 20)
        source.read(sink, 64)


# -- packets


def see_packets() -> None:
    make_pair()
    source, sink = opened()
    assert source.state == UP and source.link == 1
    before_us = time.time_ns() // 1000
    with sender() as out, sender("v0") as own:
        out.send(ASKED)
        out.send(BULK)
        own.send(udp(("192.0.2.1", 53), CLIENT, QUESTION))  # outgoing: toward the clients
        read_until(source, sink, lambda: len(sink.packets) == 2)
    assert sink.packets[0] == ASKED
    assert [told[1:] for told in sink.told] == [(1, 1, len(ASKED)), (2, 1, len(sink.packets[1]))]
    assert all(before_us <= told[0] <= time.time_ns() // 1000 for told in sink.told)
    assert source.last_us == sink.told[-1][0]
    counts = source.counts()
    assert (counts["received"], counts["packets"], counts["kernel_drops"], counts["gated"]) == (2, 2, 0, 0)
    source.close()
    assert source.state == CLOSED and source.fileno() == -1 and source.read(sink, 10) == 0
    source.close()


def leave_quiet_out() -> None:
    make_pair()
    source, sink = opened()
    sink.quiet_udp[ASKED[26:38]] = 1 << 60
    with sender() as out:
        out.send(ASKED)
        out.send(udp(CLIENT, ("192.0.2.2", 53), QUESTION))
        read_until(source, sink, lambda: len(sink.packets) == 1)
    assert source.counts()["gated"] == 1 and source.counts()["packets"] == 2


def take_large_whole() -> None:
    """Offloading joins segments: longer than a slot, in order with the others; and as long as the queue has room."""
    make_pair()
    for end in ("v0", "v1"):
        ip("link", "set", end, "mtu", "65000")
    source, sink = opened(slot_bytes=1024)
    large = tcp(CLIENT, SERVER, 1, ACK, b"GET / HTTP/1.1\r\n" + bytes(range(256)) * 200)
    with sender() as out:
        for _ in range(3):
            out.send(ASKED)
            out.send(large)
        read_until(source, sink, lambda: len(sink.packets) == 6)
        assert sink.packets == [ASKED, large] * 3
        for _ in range(400):  # 20 MB: more than the queue takes
            out.send(large)
        read_until(source, sink, lambda: len(sink.packets) == 406)
    assert all(packet == large[: len(packet)] for packet in sink.packets[6:])
    assert {told[3] for told in sink.told[6:]} == {len(large)}
    counts = source.counts()
    assert 0 < counts["cut"] < 400 and counts["cut"] == sum(len(packet) < len(large) for packet in sink.packets[6:])


def count_what_is_lost() -> None:
    make_pair()
    source, sink = opened(ring_bytes=65_536, slot_bytes=2048)  # 32 slots
    sent = 0
    with sender() as out:
        for turn in range(50):
            for _ in range(turn):
                out.send(ASKED)
                out.send(BULK)
                sent += 1
            source.read(sink, 1000)
        for _ in range(20):  # left over
            out.send(ASKED)
            sent += 1
    counts = source.counts()
    assert counts["kernel_drops"] > 0 and counts["losing"] > 0
    assert counts["packets"] == len(sink.packets) and counts["received"] == counts["packets"] + 20
    assert counts["received"] + counts["kernel_drops"] == sent
    source.close()
    counts = source.counts()
    assert counts["abandoned"] == 20 and counts["received"] + counts["kernel_drops"] == sent


@pytest.mark.parametrize(
    "scene", [see_packets, leave_quiet_out, take_large_whole, count_what_is_lost], ids=lambda scene: scene.__name__
)
def test_packets(space: Namespace, scene: Callable[[], None]) -> None:
    space.call(scene)


def flood(channel: Channel, packets: list[bytes]) -> int:
    """Send these again and again, until told to stop; how often."""
    turns = 0
    with sender() as out:
        channel.send("sending")
        while not channel.poll():
            for packet in packets:
                out.send(packet)
            turns += 1
    return turns


def open_in_a_flood(group: int) -> int:
    seen = 0
    for _ in range(40):
        source, sink = opened(fanout_group=group)
        read_until(source, sink, lambda sink=sink: len(sink.packets) > 3)  # type: ignore[misc]
        seen += len(sink.packets)
        assert set(sink.packets) == {ASKED}
        source.close()
    return seen


@pytest.mark.parametrize("group", [0, 9])
def test_nothing_passes_before_the_filter(space: Namespace, group: int) -> None:
    space.call(make_pair)
    with space.start(flood, [BULK, BULK, ASKED, BULK]) as sending:
        assert sending.receive() == "sending"
        assert space.call(open_in_a_flood, group) > 120
        sending.channel.send("stop")


# -- interfaces


def go_down_and_up() -> None:
    make_pair()
    source, sink = opened()
    with sender() as out:
        out.send(ASKED)
        ip("link", "set", "v0", "down")
        read_until(source, sink, lambda: source.state == DOWN)
        assert sink.packets == [ASKED]
        ip("link", "set", "v0", "up")
        read_until(source, sink, lambda: source.state == UP)
        send_until_seen(out, source, sink)
    assert source.counts()["openings"] == 1


def be_renamed() -> None:
    make_pair()
    source, sink = opened()
    ip("link", "set", "v0", "down")
    ip("link", "set", "v0", "name", "lan")
    ip("link", "set", "lan", "up")
    with sender() as out:
        send_until_seen(out, source, sink)
    read_until(source, sink, lambda: source.state == UP)
    assert (source.wanted, source.name, source.counts()["openings"]) == ("v0", "lan", 1)


def vanish_and_return() -> None:
    make_pair()
    source, sink = opened()
    with sender() as out:
        out.send(ASKED)
    ip("link", "del", "v0")
    read_until(source, sink, lambda: source.state == MISSING)
    assert source.fileno() == -1 and sink.packets == [ASKED]
    make_pair()
    read_until(source, sink, lambda: source.state == UP)
    with sender() as out:
        send_until_seen(out, source, sink)
    while source.read(sink, 10):
        pass
    counts = source.counts()
    seen = len(sink.packets)
    assert (counts["openings"], counts["received"], counts["packets"], counts["abandoned"]) == (2, seen, seen, 0)
    assert [told[1] for told in sink.told] == list(range(1, seen + 1))


def be_replaced_at_once() -> None:
    """Gone and there again before anybody looked."""
    make_pair()
    source, sink = opened()
    ip("link", "del", "v0")
    make_pair()
    read_until(source, sink, lambda: source.counts()["openings"] == 2 and source.state == UP)


def come_late_by_pattern() -> None:
    source, sink = opened("tenant*")
    assert source.state == MISSING
    make_pair("tenant7", "v1")
    read_until(source, sink, lambda: source.state == UP)
    assert (source.wanted, source.name) == ("tenant*", "tenant7")


def begin_down() -> None:
    make_pair()
    ip("link", "set", "v0", "down")
    for group in (0, 3):
        source, sink = opened(fanout_group=group)
        assert source.state == DOWN
        ip("link", "set", "v0", "up")
        read_until(source, sink, lambda source=source: source.state == UP)  # type: ignore[misc]
        with sender() as out:
            send_until_seen(out, source, sink)
        ip("link", "set", "v0", "down")


def rest_meanwhile() -> None:
    """An interface that is down or missing costs a look now and then."""
    make_pair()
    ip("link", "set", "v0", "down")
    sources = [LiveSource("v0", CaptureSettings()), LiveSource("nowhere", CaptureSettings())]
    sink = Recorder()
    end_s = time.monotonic() + 1.5
    used_s = time.process_time()
    turns = 0
    while time.monotonic() < end_s:
        wait(sources, [], -1)
        for source in sources:
            source.read(sink, 10)
        turns += 1
    assert turns < 40 and time.process_time() - used_s < 0.2
    assert [source.state for source in sources] == [DOWN, MISSING]


def wake_for_others() -> None:
    make_pair()
    source, _ = opened()
    here, there = socket.socketpair()
    assert wait([source], [here.fileno()], 0) == []
    there.send(b"x")
    assert wait([source], [here.fileno()], 10_000) == [here.fileno()]
    here.recv(1)
    there.close()
    assert wait([source], [here.fileno()], 10_000) == [here.fileno()]
    source.close()
    assert wait([source], [], 0) == []


def watch_several() -> None:
    make_pair()
    make_pair("w0", "w1")
    sources = [LiveSource(name, CaptureSettings(ring_bytes=1 << 20)) for name in ("v0", "w0")]
    sinks = [Recorder(), Recorder()]
    with sender("v1") as one, sender("w1") as two:
        one.send(ASKED)
        two.send(ASKED)
        two.send(ASKED)
        end_s = time.monotonic() + PLENTY_S
        while [len(sink.packets) for sink in sinks] != [1, 2]:
            assert time.monotonic() < end_s
            wait(sources, [], 1000)
            for source, sink in zip(sources, sinks, strict=True):
                source.read(sink, 10)


def put_fragments_together() -> None:
    """In a group the kernel does, so that all of a datagram reach the process that its ports choose; also out of order,
    and when that makes it longer than a slot. Alone, each fragment comes as it is."""
    make_pair()
    whole = frame("10.0.0.5", "192.0.2.1", 17, struct.pack(">HHHH", 4000, 53, 8 + 3000, 0) + bytes(range(250)) * 12)
    head, body = whole[:34], whole[34:]

    def piece(identification: int, start: int, end: int) -> bytes:
        place = start // 8 | (0x2000 if end < len(body) else 0)
        ip_head = bytearray(head[14:])
        ip_head[2:8] = struct.pack(">HHH", 20 + len(body[start:end]), identification, place)
        total = sum(struct.unpack(">10H", bytes(ip_head)))  # RFC 1071; the kernel asks for it before it puts together
        total = (total & 0xFFFF) + (total >> 16)
        ip_head[10:12] = struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
        return head[:14] + bytes(ip_head) + body[start:end]

    alone, everything = opened()
    grouped, together = opened(fanout_group=4)
    pieces = [piece(1, 0, 1400), piece(1, 1400, 2800), piece(1, 2800, len(body))]
    pieces += [piece(2, 1400, 2800), piece(2, 2800, len(body)), piece(2, 0, 1400)]
    with sender() as out:
        for one in pieces:
            out.send(one)
    read_until(alone, everything, lambda: len(everything.packets) == 6)
    read_until(grouped, together, lambda: len(together.packets) == 2)
    assert everything.packets == pieces
    for packet in together.packets:
        assert packet[12:14] == b"\x08\x00" and packet[34:] == body
    assert grouped.counts()["cut"] == 0


def hear_loopback() -> None:
    """Each packet once, although it goes out and comes in there."""
    source, sink = opened("lo")
    assert source.state == UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(5):
            out.sendto(QUESTION, ("127.0.0.1", 53))
    read_until(source, sink, lambda: len(sink.packets) >= 5)
    assert not source.read(sink, 10)
    assert len(sink.packets) == 5 and all(packet.endswith(QUESTION) for packet in sink.packets)


def be_promiscuous() -> None:
    make_pair()

    def how_often() -> str:
        told = subprocess.run(["ip", "-d", "link", "show", "v0"], check=True, capture_output=True, text=True)
        return told.stdout.partition("promiscuity ")[2].split()[0]

    assert how_often() == "0"
    source, _ = opened(promiscuous=True)
    assert how_often() == "1"
    source.close()
    assert how_often() == "0"


def read_a_tunnel() -> None:
    """An interface without link headers: WireGuard and tun are of this kind."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x0001 | 0x1000))  # TUNSETIFF; no packet information
    ip("link", "set", "tun0", "up")
    ip("addr", "add", "10.0.0.1/24", "dev", "tun0")
    source, sink = opened("tun0")
    assert (source.state, source.link) == (UP, 101)
    os.write(tun, ASKED[14:])
    os.write(tun, BULK[14:])
    os.write(tun, udp(("fd00::5", 4000), ("2001:db8::1", 53), QUESTION)[14:])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(QUESTION, ("10.0.0.5", 53))
    read_until(source, sink, lambda: len(sink.packets) >= 3)
    kept = [packet for packet in sink.packets if packet.endswith(QUESTION)]
    assert kept[0] == ASKED[14:] and [packet[0] >> 4 for packet in kept] == [4, 6, 4]
    assert {told[2] for told in sink.told} == {101}


def be_refused() -> None:
    make_pair()
    os.setuid(65_534)
    with pytest.raises(CaptureError, match="v0: capturing needs CAP_NET_RAW"):
        opened()


SCENES = [
    *(go_down_and_up, be_renamed, vanish_and_return, be_replaced_at_once, come_late_by_pattern, begin_down),
    *(rest_meanwhile, wake_for_others, watch_several, hear_loopback, be_promiscuous, be_refused),
    put_fragments_together,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_interfaces(space: Namespace, scene: Callable[[], None]) -> None:
    space.call(scene)


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun (modprobe tun)")
def test_an_interface_without_link_headers(space: Namespace) -> None:
    space.call(read_a_tunnel)


# -- several processes


def capture_share(channel: Channel, by: str, other_name: str) -> dict[str, int]:
    """Capture as one of a group until told to stop; which packets were seen, by source and destination."""
    source = LiveSource("v0", CaptureSettings(fanout_group=1234, fanout_by=by, ring_bytes=1 << 22))
    other = LiveSource(other_name, CaptureSettings(fanout_group=1234, fanout_by=by, ring_bytes=1 << 20))
    sink = Recorder()
    channel.send(source.state + other.state)
    while not channel.poll():
        wait([source, other], [channel.fileno()], 1000)
        source.read(sink, 1000)
    while source.read(sink, 1000):
        pass
    shares: dict[str, int] = {}
    for packet in sink.packets:
        way = packet[26:34] if packet[12:14] == b"\x08\x00" else packet[22:54]
        half = len(way) // 2
        name = f"{way[:half].hex()}>{way[half:].hex()}"
        shares[name] = shares.get(name, 0) + 1
    return shares


def talk(turns: int) -> None:
    """Clients and servers on both sides of v0, every client with every server."""
    with sender("v1") as clients, sender("v0") as servers:
        for _ in range(turns):
            for host in range(1, 13):
                for server in ("192.0.2.1", "198.51.100.9"):
                    clients.send(udp((f"10.0.0.{host}", 4000), (server, 53), QUESTION))
                    servers.send(udp((server, 53), (f"10.0.0.{host}", 4000), QUESTION))
                clients.send(udp((f"fd00::{host}", 4000), ("2001:db8::1", 53), QUESTION))
                servers.send(udp(("2001:db8::1", 53), (f"fd00::{host}", 4000), QUESTION))
            fragmented = frame("10.0.0.99", "192.0.2.1", 17, struct.pack(">HHHH", 4000, 53, 40, 0))
            clients.send(fragmented[:20] + b"\x20\x00" + fragmented[22:])


@pytest.mark.parametrize("by", ["client", FLOW])
def test_a_group_shares_by_client(space: Namespace, by: str) -> None:
    space.call(make_pair)
    space.call(make_pair, "w0", "w1")
    with space.start(capture_share, by, "w0") as first, space.start(capture_share, by, "w0") as second:
        assert first.receive() == second.receive() == "upup"
        space.call(talk, 20)
        for process in (first, second):
            process.channel.send("stop")
        shares = [first.result(), second.result()]
    seen = {way: [share.get(way, 0) for share in shares] for share in shares for way in share}
    assert len(seen) == 12 * 6
    assert all(sorted(counts) == [0, 20] for counts in seen.values()), "each conversation whole, each packet once"
    owner = {way: counts.index(20) for way, counts in seen.items()}
    if by == "client":
        clients: dict[str, set[int]] = {}
        for way, process in owner.items():
            source, target = way.split(">")
            clients.setdefault(source if source.startswith(("0a", "fd")) else target, set()).add(process)
        assert len(clients) == 24 and all(len(processes) == 1 for processes in clients.values())
        assert {process for processes in clients.values() for process in processes} == {0, 1}
    else:
        for way, process in owner.items():
            source, target = way.split(">")
            assert owner[f"{target}>{source}"] == process


def number_packets(channel: Channel) -> int:
    """Send questions of many clients, each with a number of its own, until told to stop; how many."""
    number = 0
    with sender() as out:
        channel.send("sending")
        while not channel.poll():
            number += 1
            out.send(udp((f"10.0.{number % 7}.{number % 250}", 4000), ("192.0.2.1", 53), struct.pack(">Q", number) * 2))
    return number


def record_numbers(channel: Channel) -> set[bytes]:
    source, sink = opened(fanout_group=5)
    channel.send("open")
    while not channel.poll():
        wait([source], [channel.fileno()], 1000)
        source.read(sink, 1000)
    return {packet[-8:] for packet in sink.packets}


def join_and_leave() -> list[bytes]:
    numbers: list[bytes] = []
    for _ in range(60):
        source, sink = opened(fanout_group=5, ring_bytes=1 << 20)
        read_until(source, sink, lambda sink=sink: len(sink.packets) > 5)  # type: ignore[misc]
        source.close()
        numbers += [packet[-8:] for packet in sink.packets]
    return numbers


def test_who_joins_a_group_takes_nothing_that_is_the_others(space: Namespace) -> None:
    space.call(make_pair)
    with space.start(record_numbers) as staying, space.start(number_packets) as sending:
        assert (staying.receive(), sending.receive()) == ("open", "sending")
        passing = space.call(join_and_leave)
        staying.channel.send("stop")
        stayed = staying.result()
        sending.channel.send("stop")
    assert len(passing) == len(set(passing)) > 300 and len(stayed) > 300
    assert not stayed & set(passing)
