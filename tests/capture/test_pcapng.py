"""pcapng: blocks built with struct in both byte orders, compared with scapy; damage of every sort."""

from __future__ import annotations

import gzip
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.capture import pcapng
from egressd.capture.merge import Replay, iter_packets
from egressd.capture.pcapng_interface import MAX_TS_US
from egressd.errors import CaptureError
from egressd.plural import count
from egressd.wire.quiet import Recent

T0_US = 1_700_000_000_123_456
NO_TIME = None


class Recorder:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.quiet: dict[bytes, int] = {}
        self.quiet_udp: dict[bytes, int] = {}
        self.recent: Recent | None = None
        self.seen: list[tuple[int, int, int, bytes, int]] = []

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        assert 0 <= start <= end <= len(buf)
        self.seen.append((ts_us, number, link, buf[start:end], orig_len))


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str, options: bytes = b"", major: int = 1) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, major, 0, -1) + options)


def interface(order: str, link: int = 1, snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link, 0, snaplen) + options)


def enhanced(order: str, which: int, count: int, content: bytes, orig: int = -1, options: bytes = b"") -> bytes:
    orig = len(content) if orig < 0 else orig
    head = struct.pack(order + "IIIII", which, count >> 32, count & 0xFFFFFFFF, len(content), orig)
    return block(order, 6, head + content + bytes(-len(content) % 4) + options)


def old(order: str, which: int, count: int, content: bytes, orig: int) -> bytes:
    head = struct.pack(order + "HHIIII", which, 7, count >> 32, count & 0xFFFFFFFF, len(content), orig)
    return block(order, 2, head + content)


def simple(order: str, content: bytes, orig: int) -> bytes:
    return block(order, 3, struct.pack(order + "I", orig) + content)


def read(tmp_path, content: bytes, **options):
    path = tmp_path / "f.pcapng"
    path.write_bytes(content)
    sink = Recorder()
    replay = Replay([path], sink, prefilter=False, **options)
    replay.run()
    return sink.seen, replay.files[0]


def of_all_sorts(order: str, seed: int = 1):
    """Blocks of a file with everything in it, and for each the packet that it makes (ts_us, link, bytes, length)."""
    rng = random.Random(seed)
    made = [
        (section(order, option(order, 4, b"a program") + option(order, 0, b"")), None),
        (interface(order, 1, 65535, option(order, 2, b"eth0")), None),
        (interface(order, 101, 0, option(order, 9, b"\x09")), None),
        (block(order, 5, rng.randbytes(50)), None),
        (simple(order, b"before any time", 15), (0, 1, b"before any time", 15)),
    ]
    for i in range(12):
        ts_us, content = T0_US + i * 999_999, rng.randbytes(rng.randrange(90))
        comment = option(order, 1, b"comment" * (i % 3)) + option(order, 0, b"")
        made.append((enhanced(order, 0, ts_us, content, options=comment), (ts_us, 1, content, len(content))))
        if i % 3 == 0:
            made.append((enhanced(order, 1, ts_us * 1000 + 7, content, 99), (ts_us, 101, content, 99)))
            made.append((simple(order, content + b"x", 9000), (ts_us, 1, None, 9000)))
        if i % 4 == 0:
            made.append((old(order, 0, ts_us, content, 98), (ts_us, 1, content, 98)))
            made.append((block(order, 0x12340 + i, rng.randbytes(rng.randrange(400))), None))
    return made


def expected(made):
    packets = []
    for raw, packet in made:
        if packet:
            ts_us, link, content, orig = packet
            if content is None:  # a simple packet has no captured length but its block's
                content = raw[12:-4]
            packets.append((ts_us, len(packets) + 1, link, content, orig))
    return packets


@pytest.fixture(params=["unpacked", "indexed"])
def loop(request, monkeypatch):
    """Both loops of the reader: the one for CPython and the one for compiled code."""
    monkeypatch.setattr(pcapng, "COMPILED", request.param == "indexed")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("chunk_bytes", [1, 64, 100, 129, 1000, 65536])
def test_all_sorts_of_blocks(tmp_path, order, chunk_bytes, loop):
    made = of_all_sorts(order)
    seen, result = read(tmp_path, b"".join(raw for raw, _ in made), chunk_bytes=chunk_bytes)
    assert seen == expected(made)
    assert (result.format, result.error, result.links) == ("pcapng", "", (1, 101))
    assert (result.first_us, result.last_us, result.truncated_bytes) == (0, T0_US + 11 * 999_999, 0)


def test_any_chunk_size_gives_the_same(tmp_path):
    made = of_all_sorts("<") + of_all_sorts(">", 2)
    path = tmp_path / "f"
    for content in (b"".join(raw for raw, _ in made), gzip.compress(b"".join(raw for raw, _ in made))):
        path.write_bytes(content)
        last_us = T0_US + 11 * 999_999
        first_of_second = next(i for i, p in enumerate(expected(made)) if p[3] == b"before any time" and i)
        want = expected(made)
        want[first_of_second] = (last_us, *want[first_of_second][1:])
        for chunk_bytes in [*range(1, 200, 3), 255, 256, 1000, 5000, 1 << 20]:
            assert list(iter_packets(path, chunk_bytes)) == want, chunk_bytes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "count", "ts_us"),
    [
        (None, T0_US, T0_US),
        (6, T0_US, T0_US),
        (9, T0_US * 1000 + 999, T0_US),
        (3, T0_US // 1000, T0_US // 1000 * 1000),
        (0, T0_US // 1_000_000, T0_US // 1_000_000 * 1_000_000),
        (12, 1_234_567_000_000_000, 1_234_567_000),
        (127, 2**64 - 1, 0),
        (0x80 | 10, (1_700_000_000 << 10) + 512, 1_700_000_000_500_000),
        (0x80 | 32, (1_700_000_000 << 32) + (1 << 30), 1_700_000_000_250_000),
        (0x80 | 0, 1_700_000_000, 1_700_000_000_000_000),
        (0xFF, 2**64 - 1, 0),
        (0, 2**64 - 1, MAX_TS_US),
        (6, 2**64 - 1, MAX_TS_US),
        (6, MAX_TS_US, MAX_TS_US),
        (6, MAX_TS_US + 1, MAX_TS_US),
    ],
)
def test_resolutions(tmp_path, order, resolution, count, ts_us, loop):
    options = b"" if resolution is None else option(order, 9, bytes([resolution]))
    blocks = enhanced(order, 0, count, b"one") + old(order, 0, count, b"two", 3)
    seen, result = read(tmp_path, section(order) + interface(order, options=options) + blocks)
    assert [packet[0] for packet in seen] == [ts_us, ts_us] and not result.error


@pytest.mark.parametrize("order", ["<", ">"])
def test_offsets(tmp_path, order, loop):
    offset = option(order, 14, struct.pack(order + "q", 1_600_000_000))
    back = option(order, 14, struct.pack(order + "q", -5)) + option(order, 9, b"\x09")
    content = section(order) + interface(order, options=offset) + interface(order, options=back)
    content += enhanced(order, 0, 17, b"a") + enhanced(order, 1, 6_000_000_999, b"b") + enhanced(order, 1, 10, b"c")
    assert [packet[0] for packet in read(tmp_path, content)[0]] == [1_600_000_000_000_017, 1_000_000, 0]


def test_a_section_begins_anew(tmp_path, loop):
    content = section("<") + interface("<", 1) + interface("<", 101) + enhanced("<", 1, 5, b"a")
    content += section(">") + interface(">", 113, options=option(">", 9, b"\x03")) + enhanced(">", 0, 5, b"b")
    seen, result = read(tmp_path, content + section("<") + enhanced("<", 0, 5, b"c"))
    assert seen == [(5, 1, 101, b"a", 1), (5000, 2, 113, b"b", 1)]
    assert (
        result.error == "has a packet of interface 0, which is not described, which cannot be: damaged from packet 3 on"
    )
    assert result.links == (1, 101, 113)


def test_numbers_are_those_of_wireshark(tmp_path, loop):
    packet = enhanced("<", 0, 5, b"a")
    content = section("<") + interface("<") + packet
    for kind, counts in [(0x0BAD, 1), (0x40000BAD, 1), (9, 1), (4, 0), (5, 0), (0x80000001, 0)]:
        content += block("<", kind, bytes(40)) + simple("<", b"b", 1) + packet
        seen, result = read(tmp_path, content)
        assert seen[-1][1] - seen[-3][1] == 2 + counts
        assert result.packets == len(seen)


def test_simple_packets_are_cut_by_the_snaplen(tmp_path):
    content = section("<") + interface("<", 1, 10) + simple("<", b"0123456789", 99) + simple("<", b"01234567", 5)
    assert [(p[3], p[4]) for p in read(tmp_path, content)[0]] == [(b"0123456789", 99), (b"01234", 5)]


def test_great_blocks_are_skipped_without_being_kept(tmp_path):
    import tracemalloc

    huge = block("<", 0x40000BAE, bytes(20_000_000))
    content = section("<", option("<", 1, b"c" * 60_000)) + interface("<") + huge + enhanced("<", 0, 9, b"after")
    path = tmp_path / "f.gz"
    path.write_bytes(gzip.compress(content, 1))
    del huge
    tracemalloc.start()
    try:
        packets = list(iter_packets(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert packets == [(9, 1, 1, b"after", 5)]
    assert peak < 2_000_000


def good_start(order="<"):
    return section(order) + interface(order) + enhanced(order, 0, 1, b"one") + enhanced(order, 0, 2, b"two" * 40)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (struct.pack("<III", 0xBAD, 8, 8), "has a block that claims 8 bytes"),
        (struct.pack("<IIII", 0xBAD, 14, 0, 0), "has a block that claims 14 bytes"),
        (struct.pack("<IIII", 6, 16, 0, 16), "has a packet block that claims 16 bytes"),
        (struct.pack("<IIII", 2, 28, 0, 28) + bytes(12), "has a packet block that claims 28 bytes"),
        (struct.pack("<III", 3, 12, 12), "has a packet block that claims 12 bytes"),
        (struct.pack("<III", 6, 0x7FFFFFF0, 0) + bytes(30), "has a packet block that claims 2147483632 bytes"),
        (struct.pack("<III", 3, 0x7FFFFFF0, 0) + bytes(30), "has a packet block that claims 2147483632 bytes"),
        (struct.pack("<III", 1, 0x00200000, 0) + bytes(30), "has an interface description that claims 2097152 bytes"),
        (struct.pack("<IIII", 1, 16, 0, 16), "has an interface description that claims 16 bytes"),
        (enhanced("<", 1, 5, b"x"), "has a packet of interface 1, which is not described"),
        (old("<", 3, 5, b"x", 1), "has a packet of interface 3, which is not described"),
        (enhanced("<", 0, 5, b"x" * 8)[:-4] + b"\x29\0\0\0", "has a block whose two lengths differ"),
        (simple("<", b"x" * 8, 8)[:-4] + b"\x29\0\0\0", "has a block whose two lengths differ"),
        (block("<", 77, bytes(500))[:-4] + b"\x29\0\0\0", "has a block whose two lengths differ"),
        (block("<", 6, struct.pack("<IIIII", 0, 0, 5, 9, 9) + bytes(8)), "has a packet that claims 9 bytes"),
        (block("<", 2, struct.pack("<IIIII", 0, 0, 5, 9, 9) + bytes(8)), "has a packet that claims 9 bytes"),
        (enhanced("<", 0, 5, bytes(262_145)), "has a packet that claims 262145 bytes"),
        (simple("<", bytes(262_145), 262_145), "has a packet that claims 262145 bytes"),
        (struct.pack("<IIII", 0x0A0D0D0A, 28, 99, 0) + bytes(12), "has a section header without byte-order mark"),
        (struct.pack("<IIII", 0x0A0D0D0A, 16, 0x1A2B3C4D, 1) + bytes(12), "has a section header that claims 16 bytes"),
        (section("<", major=2), "has a section of pcapng version 2.0, only version 1 can be read"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [64, 65536])
def test_blocks_that_cannot_be_end_the_file(tmp_path, bad, says, chunk_bytes, loop):
    content = good_start() + bad + enhanced("<", 0, 3, b"never seen")
    seen, result = read(tmp_path, content, chunk_bytes=chunk_bytes)
    assert [packet[0] for packet in seen] == [1, 2]
    assert result.error.startswith(says)
    assert result.content_bytes == len(content)
    assert "version" in says or result.error.endswith("damaged from packet 3 on")
    if len(bad) < 500:
        assert result.truncated_bytes == len(content) - len(good_start())


def test_interfaces_are_bounded(tmp_path):
    seen, result = read(tmp_path, section("<") + interface("<") * 65_537 + enhanced("<", 0, 3, b"x"))
    assert result.error.startswith("has more than 65536 interfaces") and not seen


@pytest.mark.parametrize("order", ["<", ">"])
def test_truncation_at_every_byte(tmp_path, order):
    made = of_all_sorts(order)
    content = b"".join(raw for raw, _ in made)
    ends, packets = [0], expected(made)
    for raw, _ in made:
        ends.append(ends[-1] + len(raw))
    for cut in range(1, len(content)):
        seen, result = read(tmp_path, content[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert seen == packets[: sum(packet is not None for _, packet in made[:whole])]
        left = cut - ends[whole]
        assert (result.truncated_bytes, result.content_bytes) == (left, cut)
        if left:
            assert result.error.startswith("ends in the middle of ") and result.error.endswith(
                f": {count(left, 'byte')} left over"
            )
        else:
            assert result.error == ""


def test_scapy_reads_the_same(tmp_path):
    from scapy.layers.l2 import Ether
    from scapy.utils import RawPcapNgReader, wrpcapng

    path = tmp_path / "scapy.pcapng"
    rng = random.Random(3)
    frames = [Ether(rng.randbytes(14 + rng.randrange(300))) for _ in range(50)]
    for i, frame in enumerate(frames):
        frame.time = 1_700_000_000 + i
    wrpcapng(str(path), frames)
    packets = list(iter_packets(path))
    assert [p[3] for p in packets] == [bytes(frame) for frame in frames]
    assert [p[0] for p in packets] == [(1_700_000_000 + i) * 1_000_000 for i in range(50)]
    for order in "<>":
        path.write_bytes(b"".join(raw for raw, packet in of_all_sorts(order) if not packet or packet[0]))
        with RawPcapNgReader(str(path)) as reader:
            theirs = [(bytes(content), meta.wirelen, meta.linktype) for content, meta in reader]
        ours = [(p[3], p[4], p[2]) for p in iter_packets(path)]
        assert len(ours) > 20
        assert [p for p in ours if p[1] != 9000] == [p for p in theirs if p[1] != 9000]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_bytes_make_it_raise(tmp_path_factory, data):
    content = bytearray(b"".join(raw for raw, _ in of_all_sorts(data.draw(st.sampled_from("<>")))))
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.sampled_from([0, 1, 2, 3, 4, 6, 10, 127, 255])
        )
    whole = bytes(content[: data.draw(st.integers(0, len(content)))]) + data.draw(st.binary(max_size=40))
    where = tmp_path_factory.mktemp("fuzz")
    results = []
    for chunk_bytes, indexed in [(1, False), (100, True), (65536, False)]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pcapng, "COMPILED", indexed)
            try:
                results.append(read(where, whole, chunk_bytes=chunk_bytes))
            except CaptureError as error:
                results.append(str(error))
    assert results[0] == results[1] == results[2]
