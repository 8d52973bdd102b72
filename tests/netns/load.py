"""Traffic at a rate: packets that carry names, none twice the same, and bulk that carries none.

Frames are made before the start; what differs from one turn to the next (a serial number in the name, the client's
port) is written into them. They go to the gateway through AF_PACKET, many a system call, and end at the provider.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import struct
import time
from ipaddress import IPv4Address
from random import Random
from typing import Final, NamedTuple

from bench.traffic import client_hello, http_request
from egressd.capture.bpf import PROTOCOL, run
from egressd.capture.fanout import client_fanout
from egressd.capture.livefilter import ETHERNET
from pcaps.hellos import records
from tests.netns.servers import question
from tests.netns.spaces import Channel
from tests.netns.topology import GATEWAY_MAC, NUMBERS

SOL_PACKET: Final = 263
PACKET_QDISC_BYPASS: Final = 20  # linux/if_packet.h
PLACE: Final = b"00000000"  # where the serial number goes
SEGMENT_BYTES: Final = 1448
MIX: Final = {"dns": 5, "tls": 2, "http": 2}  # conversations; a post-quantum hello is two packets
TEMPLATES: Final = 4_000
SITES: Final = 3_000
CLIENTS: Final = 250
BULK_FLOWS: Final = 200
REPEATED: Final = 2_000  # questions, asked over and over
QUEUES: Final = 2
FIRST_PORT: Final = 20_000
TICK_S: Final = 0.001
BURST: Final = 256  # frames a system call


class Sent(NamedTuple):
    """What a generator did. `late_us` is the furthest that it was behind."""

    packets: int
    names: int
    took_s: float
    late_us: int


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Header(ctypes.Structure):  # struct mmsghdr; `sent` is aligned to the size of a struct msghdr
    _fields_ = [
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("vector", ctypes.c_void_p),
        ("vector_size", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("sent", ctypes.c_uint64),
    ]  # fmt: skip


class Frames:
    """Frames in a row, sent again and again. `places` are, for each, the offsets of its serial number (0: none) and of
    its client's port; empty: nothing changes from turn to turn."""

    def __init__(self, frames: list[bytes], places: list[tuple[int, int]]) -> None:
        self.count = len(frames)
        self.octets = bytearray(b"".join(frames))
        starts = [0, *itertools.accumulate(len(frame) for frame in frames)]
        self.places = [
            (start + serial if serial else 0, start + port)
            for start, (serial, port) in zip(starts, places, strict=False)
        ]
        self._anchor = (ctypes.c_char * len(self.octets)).from_buffer(self.octets)
        base = ctypes.addressof(self._anchor)
        self._vectors = (_Iovec * self.count)(
            *(_Iovec(base + start, len(frame)) for start, frame in zip(starts, frames, strict=False))
        )
        self.headers = (_Header * self.count)()
        for at in range(self.count):
            self.headers[at].vector = ctypes.addressof(self._vectors) + at * ctypes.sizeof(_Iovec)
            self.headers[at].vector_size = 1


def checksum(head: bytes) -> int:
    """Of an IPv4 header without options (RFC 1071): a wrong one is dropped before the gateway's rules are asked."""
    total: int = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total & 0xFFFF) + (total >> 16))


def _client(segment: str, number: int) -> str:
    return f"10.{NUMBERS[segment]}.{128 + number % CLIENTS // 128}.{1 + number % CLIENTS % 128}"


def _frame(segment: str, number: int, proto: int, body: bytes) -> bytes:
    """A frame from load client `number % CLIENTS` to the server that makes this pair of addresses unique."""
    client = IPv4Address(_client(segment, number)).packed
    server = bytes((198, 51, 100, 1 + number // CLIENTS % 254))
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, proto, 0) + client + server
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    macs = bytes.fromhex(GATEWAY_MAC[segment].replace(":", "")) + b"\x02\0\0\0\xff" + bytes((number % 256,))
    return macs + b"\x08\0" + head + body


def _segments(payload: bytes, port: int) -> list[bytes]:
    """TCP segments of a young conversation; no SYN went before, as when a capture begins."""
    return [
        struct.pack(">HHIIBBHHH", FIRST_PORT, port, 1_000 + at, 1, 0x50, 0x18, 502, 0, 0)
        + payload[at : at + SEGMENT_BYTES]
        for at in range(0, len(payload), SEGMENT_BYTES)
    ]


def named(segment: str, seed: int = 1) -> Frames:
    """Conversations of one request each: questions, ClientHellos (half of them post-quantum), GETs."""
    draw = Random(seed)
    kinds = [kind for kind, weight in MIX.items() for _ in range(weight)]
    frames: list[bytes] = []
    places: list[tuple[int, int]] = []
    for number in range(TEMPLATES):
        kind = draw.choice(kinds)
        name = b"h%s.site%04d.example" % (PLACE, draw.randrange(SITES))
        if kind == "dns":
            asked = question(name.decode("ascii"), draw.choice((1, 1, 28)), draw.randrange(1 << 16))
            bodies = [struct.pack(">HHHH", FIRST_PORT, 53, 8 + len(asked), 0) + asked]
        elif kind == "tls":
            bodies = []
            while not any(b"h" + PLACE in body for body in bodies):  # not cut in two
                bodies = _segments(records(client_hello(draw, name, draw.random() < 0.5)), 443)
        else:
            bodies = _segments(http_request(draw, name), 80)
        for body in bodies:
            made = _frame(segment, number, 17 if kind == "dns" else 6, body)
            frames.append(made)
            places.append((max(made.find(b"h" + PLACE) + 1, 0), 34))
    return Frames(frames, places)


def queue_of(address: str) -> int:
    """Which of two packet processes gets what a client sends: the kernel takes what the program says modulo their
    number (net/packet/af_packet.c, fanout_demux_bpf)."""
    head = b"\x45" + bytes(11) + IPv4Address(address).packed + bytes(4)
    return run(client_fanout(ETHERNET), head, {PROTOCOL: 0x0800}) % QUEUES


def repeated(segment: str, apart_from: str) -> Frames:
    """Questions of clients whose packets another of two packet processes gets than those of `apart_from`; nothing is
    written into them between turns, so that as many as possible can be sent."""
    numbers = [at for at in range(CLIENTS) if queue_of(_client(segment, at)) != queue_of(apart_from)]
    draw = Random(3)
    frames = []
    for number in range(REPEATED):
        name = f"h{number:04}.site{draw.randrange(SITES):04}.example"
        asked = question(name, draw.choice((1, 1, 28)), draw.randrange(1 << 16))
        head = struct.pack(">HHHH", FIRST_PORT + number, 53, 8 + len(asked), 0)
        frames.append(_frame(segment, numbers[number % len(numbers)], 17, head + asked))
    return Frames(frames, [])


def bulk(segment: str) -> Frames:
    """The middle of long conversations, as clients send it: full-size uploads, bare acknowledgements, QUIC."""
    draw = Random(2)
    frames = []
    for number in range(BULK_FLOWS * 4):
        flow = number % BULK_FLOWS
        if flow % 5 == 4:
            body = struct.pack(">HHHH", 50_000, 443, 8 + 1200, 0) + b"\x4b" + draw.randbytes(1199)
            frames.append(_frame(segment, flow, 17, body))
            continue
        size = SEGMENT_BYTES if flow % 5 < 2 else 0
        head = struct.pack(">HHIIBBHHH", 50_000, 443, 9_000_000 + number * size, 1, 0x50, 0x10, 502, 0, 0)
        frames.append(_frame(segment, flow, 6, head + (b"\x17\x03\x03\x40\x11" + draw.randbytes(size))[:size]))
    return Frames(frames, [])


def send(channel: Channel, kind: str, segment: str, rate: int, packets: int, apart_from: str = "") -> Sent:
    """Send `packets` frames of a kind ("named", "bulk" or "repeated") at `rate` a second, in the switch's namespace.
    Says "sending", and ends earlier when told anything."""
    if apart_from:
        os.nice(-10)  # a flood comes from elsewhere: what else this machine does must not thin it
        frames = repeated(segment, apart_from)
    else:
        frames = named(segment) if kind == "named" else bulk(segment)
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    line.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    line.bind((f"up{NUMBERS[segment]}", 0))
    channel.send("sending")
    return _send(channel, line.fileno(), frames, rate, packets)


def _send(channel: Channel, line: int, frames: Frames, rate: int, packets: int) -> Sent:
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    step = ctypes.sizeof(_Header)
    headers = ctypes.addressof(frames.headers)
    write_port = struct.Struct(">H").pack_into
    octets, places, count = frames.octets, frames.places, frames.count
    sent = names = late_us = at = turn = 0
    began_s = time.monotonic()
    while sent < packets and not (sent & 0x1FFF < BURST and channel.poll()):
        due = min(packets, int((time.monotonic() - began_s) * rate) + 1) - sent
        late_us = max(late_us, round((due / rate - TICK_S) * 1e6))
        number = min(due, BURST, count - at)
        for serial, port in places[at : at + number]:
            if serial:
                octets[serial : serial + 8] = b"%08x" % (sent + names & 0xFFFFFFFF)
                names += 1
            write_port(octets, port, FIRST_PORT + turn % 45_000)
        done = sendmmsg(line, ctypes.c_void_p(headers + at * step), number, 0)
        if done < 0:
            if ctypes.get_errno() in (11, 105):  # EAGAIN, ENOBUFS: the receiver is behind
                continue
            raise OSError(ctypes.get_errno(), "sendmmsg")
        sent += done
        at += done
        if at == count:
            at = 0
            turn += 1
        if due <= BURST:
            time.sleep(max(0.0, began_s + sent / rate + TICK_S - time.monotonic()))
    return Sent(sent, names, time.monotonic() - began_s, late_us)
