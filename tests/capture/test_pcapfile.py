"""Classic pcap, gzip, pipes, several files in time order: built with struct, compared with scapy and the plain rule."""

from __future__ import annotations

import gzip
import heapq
import io
import os
import random
import struct
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from egressd.capture import pcapfile
from egressd.capture.merge import Replay, iter_packets, open_capture
from egressd.capture.pcapfile import MAX_PACKET_BYTES, USUAL_PACKET_BYTES
from egressd.errors import CaptureError
from egressd.plural import count
from egressd.wire.quiet import Recent

MICRO, NANO, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
T0_US = 1_700_000_000_000_000


class Recorder:
    """A sink that keeps everything, and which file it came from."""

    def __init__(self) -> None:
        self.quiet: dict[bytes, int] = {}
        self.quiet_udp: dict[bytes, int] = {}
        self.recent: Recent | None = None
        self.seen: list[tuple[int, int, int, bytes, int]] = []
        self.files: list[int] = []
        self.replay: Replay | None = None

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        assert 0 <= start <= end <= len(buf)
        self.seen.append((ts_us, number, link, buf[start:end], orig_len))
        if self.replay:
            self.files.append(self.replay.current_file)


def pcap(packets, magic=MICRO, order="<", link=1, snaplen=65535):
    """packets: (ts_us, bytes) or (ts_us, bytes, orig_len)."""
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
    for ts_us, content, *rest in packets:
        frac = ts_us % 1_000_000 * (1000 if magic == NANO else 1)
        orig = rest[0] if rest else len(content)
        out.append(struct.pack(order + "IIII", ts_us // 1_000_000, frac, len(content), orig))
        out.append(bytes(8 if magic == MODIFIED else 0) + content)
    return b"".join(out)


def some_packets(count=40, seed=1, longest=400):
    rng = random.Random(seed)
    sizes = [0, 1, 13, 14, 41, 42, 47, 48, 53, 54, 60] + [rng.randrange(longest) for _ in range(count - 11)]
    return [(T0_US + 1000 * i + i % 7, rng.randbytes(size), size + i % 3) for i, size in enumerate(sizes)]


def expected(packets, link=1):
    return [(ts_us, i + 1, link, content, orig) for i, (ts_us, content, orig) in enumerate(packets)]


def read(paths, prefilter=False, **options):
    sink = Recorder()
    replay = Replay(paths if isinstance(paths, list) else [paths], sink, prefilter=prefilter, **options)
    sink.replay = replay
    replay.run()
    return sink, replay


@pytest.fixture(params=["unpacked", "indexed"])
def loop(request, monkeypatch):
    """Both loops of the reader: the one for CPython and the one for compiled code."""
    monkeypatch.setattr(pcapfile, "COMPILED", request.param == "indexed")


@pytest.fixture
def write(tmp_path):
    made = iter(range(10_000))

    def write_file(content: bytes) -> Path:
        path = tmp_path / f"{next(made):04}.cap"
        path.write_bytes(content)
        return path

    return write_file


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [MICRO, NANO, MODIFIED])
@pytest.mark.parametrize("link", [1, 101, 113])
def test_every_kind_of_pcap(write, magic, order, link, loop):
    packets = some_packets()
    path = write(pcap(packets, magic, order, link))
    sink, replay = read(path)
    assert sink.seen == expected(packets, link)
    result = replay.files[0]
    assert (result.format, result.packets, result.gated, result.error) == ("pcap", len(packets), 0, "")
    assert (result.first_us, result.last_us) == (packets[0][0], packets[-1][0])
    assert (result.content_bytes, result.links) == (path.stat().st_size, (link,))
    assert list(iter_packets(path)) == expected(packets, link)


def test_link_type_leaves_out_the_frame_check_bits(write):
    path = write(pcap(some_packets(), link=0x14000001))
    assert open_capture(path).links == [1]


def test_any_chunk_size_gives_the_same(write):
    packets = some_packets(60)
    plain, packed = write(pcap(packets)), write(gzip.compress(pcap(packets), mtime=0))
    for chunk_bytes in [*range(1, 200), 255, 256, 257, 511, 1000, 4096, 5000, 1 << 30]:
        for path in (plain, packed):
            assert list(iter_packets(path, chunk_bytes)) == expected(packets), (chunk_bytes, path)


def test_scapy_reads_the_same(tmp_path):
    from scapy.utils import RawPcapReader, RawPcapWriter

    packets = some_packets()
    for nano, endian in [(False, "<"), (False, ">"), (True, "<"), (True, ">")]:
        path = str(tmp_path / f"scapy{nano}{ord(endian)}.pcap")
        with RawPcapWriter(path, linktype=1, nano=nano, endianness=endian) as writer:
            writer.write_header(None)
            for ts_us, content, orig in packets:
                if content:
                    frac = ts_us % 1_000_000 * (1000 if nano else 1)
                    writer.write_packet(content, sec=ts_us // 1_000_000, usec=frac, wirelen=orig)
        with RawPcapReader(path) as reader:
            scale = 1000 if nano else 1
            theirs = [(m.sec * 1_000_000 + m.usec // scale, content, m.wirelen) for content, m in reader]
        assert [(p[0], p[3], p[4]) for p in iter_packets(path)] == theirs
        assert len(theirs) > 30


def test_truncation_at_every_byte(write, loop):
    packets = some_packets(14, longest=70)
    whole = pcap(packets)
    ends = [24]
    for _, content, _ in packets:
        ends.append(ends[-1] + 16 + len(content))
    for cut in range(len(whole)):
        sink, replay = read(write(whole[:cut]))
        result = replay.files[0]
        complete = sum(end <= cut for end in ends) - 1
        assert sink.seen == expected(packets)[: max(complete, 0)]
        left = cut - ends[complete] if complete >= 0 else cut
        assert (result.packets, result.truncated_bytes, result.content_bytes) == (max(complete, 0), left, cut)
        if cut == 0:
            assert result.error == "is empty"
        elif left:
            what = "its file header" if complete < 0 else "a record"
            assert result.error == f"ends in the middle of {what}: {count(left, 'byte')} left over"
        else:
            assert result.error == ""


@pytest.mark.parametrize("compressed", [False, True])
def test_absurd_lengths_end_the_file(write, compressed, loop):
    good = some_packets(12)
    bad = pcap(good) + struct.pack("<IIII", 1, 1, USUAL_PACKET_BYTES + 1, 60) + bytes(300_000)
    for chunk_bytes in (64, 65536):
        path = write(gzip.compress(bad) if compressed else bad)
        sink, replay = read(path, chunk_bytes=chunk_bytes)
        result = replay.files[0]
        assert len(sink.seen) == result.packets == 12
        assert result.error == "has a record that claims 262145 bytes, which cannot be: damaged from packet 13 on"
        if not compressed:
            assert result.truncated_bytes == 300_016 and result.content_bytes == len(bad)


def test_long_records_are_read_as_far_as_the_snaplen_and_the_bound_go(write, loop):
    long = [(T0_US, b"a" * 300_000), (T0_US, b"b" * 10), (T0_US, b"c" * MAX_PACKET_BYTES)]
    for order in "<>":
        sink, replay = read(write(pcap(long, order=order, snaplen=0xFFFFFFFF)))
        assert [p[3] for p in sink.seen] == [p[1] for p in long] and not replay.files[0].error
    longer = pcap([(T0_US, b"c" * (MAX_PACKET_BYTES + 1))], snaplen=0xFFFFFFFF)
    assert "claims 1048577 bytes" in read(write(longer))[1].files[0].error


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no capture at all", "begins with 6e 6f 20 63"),
        (b"\x28\xb5\x2f\xfd rest of it", "unpack it with zstd -d first"),
        (b"x", "begins with 78"),
        (gzip.compress(b"#!/bin/sh", mtime=0), "begins with 23 21"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0 not a byte-order mark", "is not a capture"),
    ],
)
def test_what_is_no_capture(write, content, says):
    path = write(content)
    sink = Recorder()
    good = write(pcap(some_packets()))
    with pytest.raises(CaptureError) as caught:
        Replay([good, path], sink).run()
    assert says in str(caught.value) and str(path) in str(caught.value)
    assert sink.seen == []  # told before any packet
    with pytest.raises(CaptureError):
        list(iter_packets(path))


def test_what_cannot_be_opened(tmp_path):
    for path, says in [
        (tmp_path / "absent", "No such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "a\nb", r"a\nb"),
    ]:
        with pytest.raises(CaptureError, match="cannot be opened") as caught:
            open_capture(path)
        assert says in str(caught.value)


def test_other_versions_are_told(write):
    sink, replay = read(write(struct.pack("<IHHiIII", MICRO, 3, 0, 0, 0, 65535, 1) + bytes(100)))
    assert replay.files[0].error == "is of pcap version 3.0, only version 2 can be read" and not sink.seen


def test_gzip_members_padding_and_rubbish(write):
    packets = some_packets(60)
    whole = pcap(packets)
    thirds = [whole[:1000], whole[1000:1003], b"", whole[1003:]]
    members = b"".join(gzip.compress(part) for part in thirds)
    for tail, error in [
        (b"", ""),
        (bytes(70_000), ""),
        (b"rubbish", "something that is not gzip follows its gzip stream"),
        (bytes(20) + b"rubbish", "something that is not gzip follows its gzip stream"),
        (b"\x1f", "its gzip stream ends early"),
        (b"\x1frubbish", "its gzip stream is damaged"),
    ]:
        for chunk_bytes in (64, 65536):
            sink, replay = read(write(members + tail), chunk_bytes=chunk_bytes)
            assert sink.seen == expected(packets)
            assert replay.files[0].error == error


def test_truncated_gzip_gives_what_is_there(write):
    packets = some_packets(40)
    packed = gzip.compress(pcap(packets))
    counts = []
    for cut in range(2, len(packed), 23):
        sink, replay = read(write(packed[:cut]))
        assert sink.seen == expected(packets)[: len(sink.seen)]
        counts.append(len(sink.seen))
        assert "its gzip stream ends early" in replay.files[0].error
    assert counts == sorted(counts) and counts[-1] >= 30
    sink, replay = read(write(b"\x1f\x8b\x08 this is not gzip"))
    assert not sink.seen and replay.files[0].error == "its gzip stream is damaged"


def test_gzip_bombs_do_not_fill_memory(write):
    record = struct.pack("<IIII", 1, 1, 200_000, 200_000) + bytes(200_000)
    packed = io.BytesIO()
    with gzip.open(packed, "wb") as file:
        file.write(pcap([]))
        for _ in range(150):
            file.write(record)
    path = write(packed.getvalue())
    assert path.stat().st_size < 100_000

    class Counter(Recorder):
        count = 0

        def packet(self, *packet) -> None:
            self.count += 1

    sink = Counter()
    tracemalloc.start()
    try:
        Replay([path], sink, prefilter=False).run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sink.count == 150
    assert peak < 3_000_000


@pytest.mark.parametrize("compressed", [False, True])
def test_standard_input_is_read_as_it_comes(monkeypatch, compressed):
    packets = some_packets(200)
    content = pcap(packets)
    content = gzip.compress(content) if compressed else content
    out_fd, in_fd = os.pipe()

    def feed() -> None:
        with open(in_fd, "wb", buffering=0) as pipe:
            for at in range(0, len(content), 777):
                pipe.write(content[at : at + 777])

    saved = os.dup(0)
    writer = threading.Thread(target=feed)
    writer.start()
    try:
        os.dup2(out_fd, 0)
        sink, replay = read("-")
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(out_fd)
        writer.join()
    assert sink.seen == expected(packets)
    assert replay.files[0].error == ""
    with pytest.raises(CaptureError, match="only once"):
        Replay(["-", "-"], Recorder()).run()


def test_a_named_pipe_among_files(tmp_path, write):
    packets = some_packets(100)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(pcap(packets[1::2]),))
    writer.start()
    sink, _ = read([fifo, write(pcap(packets[::2]))])
    writer.join()
    assert [p[0] for p in sink.seen] == sorted(p[0] for p in packets)


def merged(files):
    """What a stable merge of the heads gives, by the standard library."""
    streams = [[(ts, index, n, content) for n, (ts, content, _) in enumerate(f, 1)] for index, f in enumerate(files)]
    return list(heapq.merge(*streams, key=lambda packet: packet[0]))


def check_merge(paths, files, chunk_bytes):
    sink, replay = read(paths, chunk_bytes=chunk_bytes)
    got = [(p[0], index, p[1], p[3]) for p, index in zip(sink.seen, sink.files, strict=True)]
    assert got == merged(files)
    assert [f.packets for f in replay.files] == [len(f) for f in files]
    return got


@pytest.mark.parametrize("step_us", [1, 1000, 250_000])
@pytest.mark.parametrize("chunk_bytes", [100, 65536])
def test_overlapping_files_come_in_time_order(write, step_us, chunk_bytes, loop):
    rng = random.Random(5)
    for _ in range(10):
        files = []
        for _ in range(rng.randrange(2, 6)):
            at = T0_US + rng.randrange(40) * step_us
            count = rng.randrange(0, 30)
            files.append([(at + i * step_us * rng.randrange(1, 3), rng.randbytes(20), 20) for i in range(count)])
            files[-1].sort(key=lambda packet: packet[0])
        got = check_merge([write(pcap(f)) for f in files], files, chunk_bytes)
        assert [p[0] for p in got] == sorted(p[0] for p in got)


def test_a_clock_that_jumps_back_keeps_the_order_of_the_file(write, loop):
    rng = random.Random(6)
    for _ in range(30):
        files = [[(T0_US + rng.randrange(50), bytes([i]), 1) for i in range(20)] for _ in range(3)]
        check_merge([write(pcap(f)) for f in files], files, 100)


def test_rotated_files_in_any_order_and_broken_ones_among_them(write):
    packets = some_packets(300)
    first, second, third = packets[:100], packets[100:200], packets[200:]
    torn = pcap(second)[:-1]
    sink, replay = read(
        [write(pcap(third)), write(b""), write(torn), write(pcap([])), write(gzip.compress(pcap(first)))]
    )
    assert [p[3] for p in sink.seen] == [p[1] for p in packets[:199] + packets[200:]]
    assert [f.packets for f in replay.files] == [100, 0, 99, 0, 100]
    assert [f.error.split(":")[0] for f in replay.files] == ["", "is empty", "ends in the middle of a record", "", ""]
    assert replay.files[4].first_us == first[0][0]


def test_progress_goes_up_to_the_whole(write):
    calls: list[tuple[int, int]] = []
    packets = [(T0_US + i, bytes(1000), 1000) for i in range(3000)]
    paths = [write(pcap(packets)), write(pcap(packets)), write(b"")]
    read(paths, progress=lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in paths)
    assert {call[1] for call in calls} == {total}
    assert calls[-1][0] == total and calls == sorted(calls) and 4 <= len(calls) <= 8


def test_files_are_closed_whatever_happens(write):
    class Failing(Recorder):
        def packet(self, *packet) -> None:
            raise KeyboardInterrupt

    path = write(pcap(some_packets()))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(KeyboardInterrupt):
        Replay([path, path], Failing()).run()
    with pytest.raises(CaptureError):
        Replay([path, write(b"rubbish here")], Recorder()).run()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_bytes_make_it_raise(tmp_path_factory, data):
    content = bytearray(pcap(some_packets(15, longest=60), order=data.draw(st.sampled_from("<>"))))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(content[: data.draw(st.integers(0, len(content)))]) + data.draw(st.binary(max_size=40))
    assume(whole[:2] != b"\x1f\x8b")  # would be gzip, whose content is not what lies in the file
    path = tmp_path_factory.mktemp("fuzz") / "f"
    path.write_bytes(whole)
    results = []
    for chunk_bytes, indexed in [(16, False), (100, True), (65536, False)]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pcapfile, "COMPILED", indexed)
            try:
                sink, replay = read(path, chunk_bytes=chunk_bytes)
            except CaptureError as error:
                results.append(str(error))
            else:
                result = replay.files[0]
                assert result.packets == len(sink.seen) and result.content_bytes == len(whole)
                results.append((sink.seen, result))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("snaplen", "backwards_us", "note"),
    [
        (65_535, 0, ""),
        (0, 0, ""),
        (1_500, 0, ""),
        (96, 0, "holds 96 bytes of a packet at most: names behind are missed"),
        (65_535, 900_000, ""),
        (65_535, 1_000_001, "is not in order of time: sort it (reordercap), or counts are wrong"),
    ],
)
def test_what_may_mislead_though_it_is_whole_is_noted(
    tmp_path: Path, snaplen: int, backwards_us: int, note: str
) -> None:
    """A capture with 96 bytes of each packet has no names of HTTP and TLS, and nothing said so."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([(T0_US, bytes(60)), (T0_US + 5, bytes(60)), (T0_US - backwards_us, b"x")], snaplen=snaplen))
    _, replay = read(path)
    assert (replay.files[0].note, replay.files[0].error) == (note, "")
    path.write_bytes(pcap([], snaplen=snaplen))
    assert read(path)[1].files[0].note == ""


@pytest.mark.parametrize(("link", "read_too"), [(1, True), (12, True), (113, True), (189, False), (258, False)])
def test_a_link_type_that_is_not_read_is_noted(tmp_path: Path, link: int, read_too: bool) -> None:
    """Nothing in such a capture is found, and that looked like nothing to find."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([(T0_US, bytes(60))], link=link))
    note = "" if read_too else f"link type {link} is not read: what its packets hold is missed"
    assert read(path)[1].files[0].note == note
    path.write_bytes(pcap([], link=link))
    assert read(path)[1].files[0].note == ""
