"""How fast live capture is: packets a second without loss, cost of a packet, and how soon one is seen.

Figures are printed (`pytest -s`; EGRESSD_MEASURE=1 for more of them); what is asserted is far below, since machines
differ and are busy.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from egressd.capture.afpacket import LiveSource, wait
from egressd.capture.prefilter import COMPILED, Sink
from egressd.capture.ring import CaptureSettings
from egressd.model import Observation
from egressd.wire.dissector import Dissector
from egressd.wire.quiet import Recent
from tests.netns.spaces import Channel, Namespace, Spaces
from tests.netns.test_afpacket import make_pair, sender
from tests.wire.frames_made import ACK, tcp, udp

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.usefixtures("namespaces")]

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
MORE = bool(os.environ.get("EGRESSD_MEASURE"))
SECONDS = 2.0 if MORE else 0.5
RATES = [20_000, 50_000, 100_000, 150_000, 200_000, 300_000] if MORE else [20_000]
TICK_S = 0.001


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Header(ctypes.Structure):  # struct mmsghdr
    _fields_ = [
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("vector", ctypes.c_void_p),
        ("vector_size", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("sent", ctypes.c_uint64),
    ]  # fmt: skip


def send_at(channel: Channel, frames: list[bytes], rate: int) -> tuple[int, float]:
    """Send `frames` in turn, `rate` a second, for SECONDS; how many and in what time."""
    libc = ctypes.CDLL(None, use_errno=True)
    kept = [ctypes.create_string_buffer(one, len(one)) for one in frames]
    vectors = (_Iovec * len(frames))()
    headers = (_Header * len(frames))()
    for at, one in enumerate(kept):
        vectors[at] = _Iovec(ctypes.addressof(one), len(one))
        headers[at].vector = ctypes.addressof(vectors[at])
        headers[at].vector_size = 1
    step = ctypes.sizeof(_Header)
    base = ctypes.addressof(headers)
    with sender() as out:
        out.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        channel.send("ready")
        channel.recv()
        start_s = time.monotonic()
        sent = 0
        while (passed_s := time.monotonic() - start_s) < SECONDS:
            due = min(int(passed_s * rate) - sent, 512)
            if due <= 0:
                time.sleep(TICK_S / 4)
                continue
            at = sent % len(frames)
            done = libc.sendmmsg(out.fileno(), ctypes.c_void_p(base + at * step), min(due, len(frames) - at), 0)
            if done > 0:
                sent += done
        return sent, time.monotonic() - start_s


class Counter:
    """A sink that only counts: what the capture itself costs."""

    def __init__(self) -> None:
        self.quiet: dict[bytes, int] = {}
        self.quiet_udp: dict[bytes, int] = {}
        self.recent: Recent | None = None
        self.packets = 0

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        self.packets += 1


def ignore(seen: Observation) -> None:
    return None


def dissecting() -> Sink:
    return Dissector(ignore)


def receive(channel: Channel, make: Callable[[], Sink], settings: CaptureSettings) -> dict[str, float]:
    """Read until told to stop, into what `make` makes; packets, losses and processor time."""
    sink = make()
    source = LiveSource("v0", settings)
    channel.send("ready")
    used_s = time.process_time()
    while not channel.poll():
        wait([source], [channel.fileno()], 100)
        source.read(sink, 256)
    while source.read(sink, 256):
        pass
    arrived = int(Path("/proc/net/dev").read_text().partition("v0:")[2].split()[1])
    return {**source.counts(), "arrived": arrived, "cpu_s": time.process_time() - used_s}


@pytest.fixture
def space() -> Iterator[Namespace]:
    spaces = Spaces()
    try:
        yield spaces.make("rate")
    finally:
        spaces.close()


def questions() -> list[bytes]:
    made = []
    for number in range(4096):
        label = b"host%05d" % number
        message = struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + bytes([len(label)]) + label
        message += b"\7example\0\0\1\0\1"
        made.append(udp((f"10.0.{number % 4}.{number % 200 + 1}", 20_000 + number), ("192.0.2.53", 53), message))
    return made


def bulk() -> list[bytes]:
    return [
        tcp(("192.0.2.7", 443), (f"10.0.0.{number % 200 + 1}", 30_000 + number), number, ACK, bytes([0x99]) * 1400)
        for number in range(512)
    ]


def measure(
    space: Namespace, make: Callable[[], Sink], loads: list[tuple[list[bytes], int]], processes: int = 1
) -> tuple[dict[str, float], int, float]:
    """Loads of (frames in turn, how many a second) to readers that share them out: what these counted together, with
    the processor time of the busiest as `most_s`; how many of the first load were sent; how many a second of all."""
    settings = CaptureSettings(fanout_group=processes - 1)
    with ExitStack() as stack:
        readers = [stack.enter_context(space.start(receive, make, settings)) for _ in range(processes)]
        assert all(one.receive() == "ready" for one in readers)
        senders = [space.start(send_at, frames, rate) for frames, rate in loads]
        for one in senders:
            one.receive()
        for one in senders:
            one.channel.send("go")
        sent = [one.result() for one in senders]
        for one in readers:
            one.channel.send("stop")
        counts = [one.result() for one in readers]
        total = {key: sum(one[key] for one in counts) for key in counts[0]}
        total["arrived"] = counts[0]["arrived"]
        total["most_s"] = max(one["cpu_s"] for one in counts)
        return total, sent[0][0], sum(count / took_s for count, took_s in sent)


@pytest.mark.parametrize("make", [Counter, dissecting])
@pytest.mark.parametrize("rate", RATES)
def test_packets_with_names(space: Namespace, make: Callable[[], Sink], rate: int) -> None:
    space.call(make_pair)
    counts, sent, reached = measure(space, make, [(questions(), rate)])
    lost = counts["kernel_drops"]
    print(
        f"\n{'compiled' if COMPILED else 'CPython'} {make.__name__}: {reached:,.0f} name packets/s, "
        f"lost {lost / sent:.2%}, {counts['cpu_s'] / max(1, counts['packets']) * 1e6:.2f} us CPU a packet"
    )
    # What the veth itself dropped, its backlog being full, never arrived.
    assert counts["packets"] + lost == counts["arrived"] <= sent
    assert rate > 20_000 or lost == 0


@pytest.mark.parametrize("rate", [100_000, 300_000] if MORE else [100_000])
def test_names_beside_a_flood(space: Namespace, rate: int) -> None:
    space.call(make_pair)
    counts, sent, reached = measure(space, dissecting, [(questions(), 5_000), (bulk(), rate)])
    sampled = counts["packets"] - sent
    print(
        f"\n{'compiled' if COMPILED else 'CPython'}: {reached:,.0f} packets/s, 5,000 of them with names; lost "
        f"{counts['kernel_drops']}, {sampled:,.0f} of the flood sampled, {counts['cpu_s'] / SECONDS:.1%} of a core"
    )
    assert counts["kernel_drops"] == 0 and 0 <= sampled < reached * SECONDS / 32


class Clock(Counter):
    """How long after it was sent each packet came here; the time is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.took_ns: list[int] = []

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        self.took_ns.append(time.monotonic_ns() - struct.unpack_from(">Q", buf, end - 8)[0])


def send_with_times(channel: Channel, packets: int) -> None:
    template = udp(("10.0.0.5", 4000), ("192.0.2.1", 53), bytes(32))[:-8]
    with sender() as out:
        channel.send("ready")
        channel.recv()
        for _ in range(packets):
            time.sleep(0.001)
            out.send(template + struct.pack(">Q", time.monotonic_ns()))


def clock(channel: Channel, packets: int, realtime: bool) -> list[int]:
    if realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    source = LiveSource("v0", CaptureSettings())
    sink = Clock()
    channel.send("ready")
    while len(sink.took_ns) < packets:
        wait([source], [channel.fileno()], 1000)
        source.read(sink, 64)
    return sorted(sink.took_ns)


@pytest.mark.parametrize("realtime", [False, True])
def test_how_soon_a_packet_is_seen(space: Namespace, realtime: bool) -> None:
    space.call(make_pair)
    packets = 1500 if MORE else 300
    with space.start(clock, packets, realtime) as receiving, space.start(send_with_times, packets) as sending:
        assert (receiving.receive(), sending.receive()) == ("ready", "ready")
        sending.channel.send("go")
        took_ns = receiving.result()
    told = ", ".join(f"p{share:g} {took_ns[int(packets * share / 100)] / 1000:.0f} us" for share in (50, 90, 99, 99.9))
    print(f"\n{'compiled' if COMPILED else 'CPython'} {'SCHED_FIFO' if realtime else 'normal'}: {told}")
    assert took_ns[packets // 2] < 5_000_000
