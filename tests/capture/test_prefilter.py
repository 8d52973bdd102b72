"""The gate drops exactly what its rule says, in every format and byte order; the rule is written again here, slowly."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.capture import pcapfile, pcapng
from egressd.capture.merge import Replay
from egressd.capture.prefilter import frame_is_quiet
from egressd.wire.quiet import Recent

T0_US = 1_700_000_000_000_000
CLIENTS = [bytes([10, 0, 0, n]) for n in (1, 2)]
SERVERS = [bytes([192, 0, 2, n]) for n in (1, 2)]
CLIENTS6 = [bytes.fromhex("fd00") + bytes(13) + bytes([n]) for n in (1, 2)]
SERVERS6 = [bytes.fromhex("20010db8") + bytes(11) + bytes([n]) for n in (1, 2)]


class Recorder:
    """A sink that keeps the numbers it is given."""

    def __init__(self, quiet: dict[bytes, int], quiet_udp: dict[bytes, int]) -> None:
        self.quiet = quiet
        self.quiet_udp = quiet_udp
        self.recent: Recent | None = None
        self.numbers: list[int] = []

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        self.numbers.append(number)


def judge(link: int, frame: bytes, ts_us: int, quiet: dict[bytes, int], quiet_udp: dict[bytes, int]) -> bool:
    """The rule of prefilter's first paragraph, by the book: True when the packet may be dropped."""
    if link != 1 or len(frame) < 14:
        return False
    ethertype, packet = frame[12:14].hex(), frame[14:]
    if ethertype == "0800":
        if len(packet) < 20 or packet[0] != 0x45:
            return False
        total, _, fragment = struct.unpack(">HHH", packet[2:8])
        more_fragments, offset = bool(fragment & 0x2000), fragment & 0x1FFF
        if more_fragments or offset:
            return False
        proto, addresses, segment, segment_length = packet[9], packet[12:20], packet[20:], total - 20
    elif ethertype == "86dd":
        if len(packet) < 40 or packet[0] >> 4 != 6:
            return False
        segment_length, proto = struct.unpack(">HB", packet[4:7])
        addresses, segment = packet[8:40], packet[40:]
    else:
        return False
    key = addresses + segment[:4]
    if proto == 17:
        payload = segment[8:]
        if len(payload) >= 7 and payload[0] >= 0x80 and payload[1:5] in (b"\0\0\0\1", b"\x6b\x33\x43\xcf"):
            return False  # a long header of QUIC
        return len(segment) >= 8 and quiet_udp.get(key, 0) > ts_us
    if proto != 6 or len(segment) < 20:
        return False
    header, flags = (segment[12] >> 4) * 4, segment[13]
    if flags & 0x01 or flags & 0x02 or flags & 0x04:
        return False
    return (header >= 20 and segment_length == header) or quiet.get(key, 0) > ts_us


def random_frame(rng: random.Random) -> bytes:
    """Mostly plain TCP and UDP of few flows, each part of it now and then odd."""

    def odd(usual, *others, share=0.06):
        return rng.choice(others) if rng.random() < share else usual

    six = rng.random() < 0.4
    proto = odd(rng.choice([6, 6, 17]), 1, 0, 44)
    ports = rng.choice([b"\xc0\x01\x01\xbb", b"\xc0\x02\x01\xbb"])
    payload = bytes(rng.choice([0, 0, 1, 6, 12, 40, 216, 236, 500]))
    if proto == 17:
        payload = rng.choice(
            (b"", b"", b"\x40", b"\xc3\0\0\0\1", b"\xd0\x6b\x33\x43\xcf", b"\xc0\0\0\0\0", b"\x80\0\0\0\1")
        )
        payload += bytes(rng.choice([0, 0, 1, 6, 12, 500]))
        segment = ports + struct.pack(">HH", 8 + len(payload), 0) + payload
    else:
        words = odd(rng.choice([5, 8]), 0, 4, 6, 15)
        flags = odd(rng.choice([0x10, 0x18]), 0x00, 0x01, 0x02, 0x04, 0x11, 0x12, 0x14, 0x20, 0xC0)
        options = bytes(max(0, words * 4 - 20))
        segment = ports + rng.randbytes(8) + bytes([words << 4 | odd(0, 1), flags]) + bytes(6) + options + payload
    if six:
        length = odd(len(segment), 0, 20, 32, 0x0114, 0xFFFF)
        head = struct.pack(">BxxxHBB", odd(0x60, 0x6F, 0x45, 0x50), length, proto, 64)
        packet = head + rng.choice(CLIENTS6) + rng.choice(SERVERS6) + segment
    else:
        total = odd(20 + len(segment), 0, 40, 52, 0x0128, 0xFFFF)
        fragment = odd(rng.choice([0, 0x4000]), 0x2000, 1, 0x00FF, 0x1F00, 0x8000, 0x6000)
        head = struct.pack(">BBHHHBBH", odd(0x45, 0x46, 0x55, 0x44), 0, total, 1, fragment, 64, proto, 0)
        packet = head + rng.choice(CLIENTS) + rng.choice(SERVERS) + segment
    ethertype = odd(
        b"\x86\xdd" if six else b"\x08\x00", b"\x08\x06", b"\x81\x00", b"\x00\x08", b"\xdd\x86", b"\x08\x00"
    )
    frame = bytes(12) + ethertype + packet + odd(b"", bytes(6), share=0.2)
    return frame[: rng.randrange(len(frame) + 1)] if rng.random() < 0.15 else frame


def random_quiet(rng: random.Random) -> dict[bytes, int]:
    """Times around the packets' own, so that flows are quiet for a part of them."""
    quiet = {}
    for clients, servers in ((CLIENTS, SERVERS), (CLIENTS6, SERVERS6)):
        for client in clients:
            for server in servers:
                for port in (b"\xc0\x01", b"\xc0\x02"):
                    if rng.random() < 0.6:
                        quiet[client + server + port + b"\x01\xbb"] = T0_US + rng.randrange(-10, 700)
    return quiet


def classic(order, magic=0xA1B2C3D4):
    def build(packets, link):
        out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)]
        for ts_us, frame in packets:
            frac = ts_us % 1_000_000 * (1000 if magic == 0xA1B23C4D else 1)
            out.append(struct.pack(order + "IIII", ts_us // 1_000_000, frac, len(frame), len(frame)) + frame)
        return b"".join(out)

    return build


def next_generation(order, kind):
    def build(packets, link):
        out = [struct.pack(order + "IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)]
        out.append(struct.pack(order + "IIHHII", 1, 20, link, 0, 0, 20))
        for ts_us, frame in packets:
            padded = frame + bytes(-len(frame) % 4)
            size = struct.pack(order + "I", 32 + len(padded))
            times = struct.pack(order + "IIII", ts_us >> 32, ts_us & 0xFFFFFFFF, len(frame), len(frame))
            out.append(struct.pack(order + "I", kind) + size + bytes(4) + times + padded + size)
        return b"".join(out)

    return build


BUILDERS = {
    "pcap little": classic("<"),
    "pcap big": classic(">"),
    "pcap nano": classic("<", 0xA1B23C4D),
    "enhanced little": next_generation("<", 6),
    "enhanced big": next_generation(">", 6),
    "old little": next_generation("<", 2),
}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("link", [1, 113])
@pytest.mark.parametrize("indexed", [False, True])
def test_the_gate_drops_what_the_rule_says(tmp_path, monkeypatch, name, link, indexed):
    monkeypatch.setattr(pcapfile, "COMPILED", indexed)
    monkeypatch.setattr(pcapng, "COMPILED", indexed)
    path = tmp_path / "f"
    dropped = 0
    for seed in range(6):
        rng = random.Random(seed)
        packets = [(T0_US + i, random_frame(rng)) for i in range(600)]
        path.write_bytes(BUILDERS[name](packets, link))
        quiet, quiet_udp = random_quiet(rng), random_quiet(rng)
        quiet_before = dict(quiet)
        want = [n for n, (ts_us, frame) in enumerate(packets, 1) if not judge(link, frame, ts_us, quiet, quiet_udp)]
        for chunk_bytes in (700, 65536):
            sink = Recorder(quiet, quiet_udp)
            sink.recent = Recent() if indexed else None
            replay = Replay([path], sink, chunk_bytes=chunk_bytes)
            replay.run()
            assert sink.numbers == want
            assert replay.files[0].gated == 600 - len(want) and replay.files[0].packets == 600
        dropped += 600 - len(want)
        everything = Recorder(quiet, quiet_udp)
        Replay([path], everything, prefilter=False).run()
        assert everything.numbers == list(range(1, 601))
        assert quiet == quiet_before
    assert (600 < dropped < 3000) if link == 1 else dropped == 0


def test_the_slow_road_judges_the_same():
    rng = random.Random(99)
    verdicts = set()
    for _ in range(4000):
        frame = random_frame(rng)
        quiet, quiet_udp = random_quiet(rng), random_quiet(rng)
        want = judge(1, frame, T0_US + 300, quiet, quiet_udp)
        assert frame_is_quiet(b"before" + frame + b"behind" * 20, 6, len(frame), T0_US + 300, quiet, quiet_udp) is want
        verdicts.add(want)
    assert verdicts == {True, False}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([b"\x08\0\x45", b"\x86\xdd\x60", b""]))
def test_any_bytes_are_judged(rest, kind):
    frame = bytes(12) + kind + rest
    assert frame_is_quiet(frame, 0, len(frame), 5, {}, {}) is judge(1, frame, 5, {}, {})


def test_quiet_is_asked_packet_by_packet(tmp_path):
    """The sink may make a flow quiet, and loud again, while the same buffer is read."""
    frame = bytes(12) + b"\x08\0" + struct.pack(">BBHHHBBH", 0x45, 0, 128, 1, 0, 64, 17, 0) + bytes(108)
    key = frame[26:38]

    class Learning(Recorder):
        def packet(self, ts_us, number, link, buf, start, end, orig_len) -> None:
            super().packet(ts_us, number, link, buf, start, end, orig_len)
            self.quiet_udp[key] = ts_us + 3

    path = tmp_path / "f"
    for name, build in BUILDERS.items():
        path.write_bytes(build([(T0_US + i, frame) for i in range(10)], 1))
        sink = Learning({}, {})
        Replay([path], sink).run()
        assert sink.numbers == [1, 4, 7, 10], name


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_both_loops_give_the_same_for_broken_files(tmp_path_factory, data):
    """Whatever stands in lengths and times, wherever chunks and the file end; alone, and where files overlap."""
    rng = random.Random(data.draw(st.integers(0, 1 << 32)))
    content = bytearray(BUILDERS[data.draw(st.sampled_from([name for name in BUILDERS if name.startswith("pcap")]))](
        [(T0_US + rng.randrange(1_000_000) * rng.randrange(3), random_frame(rng)) for _ in range(40)], 1
    ))  # fmt: skip
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(24, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(content[: data.draw(st.integers(24, len(content)))])
    path = tmp_path_factory.mktemp("fuzz") / "f"
    path.write_bytes(whole)
    quiet, quiet_udp = random_quiet(rng), random_quiet(rng)
    for table in (quiet, quiet_udp):
        for key in table:
            table[key] += rng.choice((0, 1_000_000, 10_000_000, 300_000_000))
    paths = [path] * data.draw(st.integers(1, 2))
    results = []
    for indexed, chunk_bytes in ((True, 65536), (False, 65536), (False, data.draw(st.integers(16, 2000)))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pcapfile, "COMPILED", indexed)
            sink = Recorder(quiet, quiet_udp)
            sink.recent = Recent() if indexed else None
            replay = Replay(paths, sink, chunk_bytes=chunk_bytes)
            replay.run()
        results.append((sink.numbers, replay.files))
    assert results[0] == results[1] == results[2]
