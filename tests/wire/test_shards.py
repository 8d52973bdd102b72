"""Shards: several dissectors that share out the conversations tell together what one tells of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.traffic import write
from egressd.capture.merge import NO_LIMIT_US, iter_packets, open_capture
from egressd.capture.pcapfile import PcapReader
from egressd.model import FLOW, FlowKey, Observation
from egressd.wire.direction import reverse_key
from egressd.wire.frame import Frames
from egressd.wire.quiet import Recent
from egressd.wire.shards import NOT_PLAIN, SHARDS, Shards, add_counts, plain_shard, shard_of
from egressd.wire.tunnels import PORTS
from scripts.mutate import ROOT, Mutator, load_corpus
from tests.wire.frames_made import CLIENT, PSH, SERVER, tcp, udp

Packets = list[tuple[int, int, int, bytes]]  # time, number, link type, octets
Carried = tuple[FlowKey, int, int, int]
Told = list[tuple[int, Observation | Carried]]


def tell(packets: Packets, conversations: int, worker: int, workers: int) -> tuple[Told, dict[str, int]]:
    """What a process sees, each with its place, and what it counts. As its reader does it drops what is quiet."""
    told: Told = []
    place = 0

    def emit(seen: Observation) -> None:
        told.append((place if shards.flushing < 0 else len(packets) + shards.flushing, seen))

    def carried(*what: Any) -> None:
        told.append((place if shards.flushing < 0 else len(packets) + shards.flushing, what))

    shards = Shards(emit, conversations, worker, workers, carried)
    for at, (ts_us, number, link, octets) in enumerate(packets):
        place = at
        shards.packet(ts_us, number, link, octets, 0, len(octets), len(octets))
    shards.flush()
    return told, shards.counts()


def check_sharing(packets: Packets, conversations: int) -> Told:
    """Each number of processes tells the same."""
    alone, counts = tell(packets, conversations, 0, 1)
    for workers in (2, 3, SHARDS):
        together: Told = []
        totals: dict[str, int] = {}
        for worker in range(workers):
            told, more = tell(packets, conversations, worker, workers)
            assert [place for place, _ in told] == sorted(place for place, _ in told)
            together += told
            add_counts(totals, more)
        together.sort(key=lambda one: one[0])
        assert together == alone
        assert dict(sorted(totals.items())) == counts
    return alone


def test_every_case_is_shared_out() -> None:
    told = 0
    for path in sorted((ROOT / "pcaps").glob("*/*.pcap*")):
        packets = [(ts_us, number, link, octets) for ts_us, number, link, octets, _ in iter_packets(path)]
        told += len(check_sharing(packets, 32_768))
    assert told > 500


@pytest.mark.parametrize("conversations", [64, 32_768])
def test_mutated_packets_are_shared_out(conversations: int) -> None:
    """With small tables they forget all the time, in each shard for itself."""
    mutator = Mutator(load_corpus([ROOT / "pcaps"]), 11)
    made = [one for _ in range(300) for one in mutator.run()]
    packets = [(ts_us, number, link, octets) for number, (ts_us, link, octets) in enumerate(made, 1)]
    assert len(check_sharing(packets, conversations)) > 500


@given(st.binary(min_size=12, max_size=12) | st.binary(min_size=36, max_size=36))
def test_both_directions_are_in_one_shard(key: bytes) -> None:
    assert 0 <= shard_of(key) < SHARDS
    assert shard_of(key) == shard_of(reverse_key(key))


def test_a_plain_packet_is_in_the_shard_of_its_key() -> None:
    corpus = load_corpus([ROOT / "pcaps"])
    plain = 0
    for capture in corpus.captures:
        for link, octets in capture:
            frames = Frames()
            shard = plain_shard(link, b"\xff" * 7 + octets + b"\xff" * 60, 7, 7 + len(octets))
            if shard != NOT_PLAIN and frames.decode(link, octets, 0, len(octets), 0):
                plain += 1
                assert shard == shard_of(frames.key)
    assert plain > 500


def test_conversations_spread_over_the_shards() -> None:
    found = [0] * SHARDS
    for client in range(1, 9):
        for port in range(40_000, 40_200):
            key = bytes((10, 0, 0, client, 192, 0, 2, 7)) + port.to_bytes(2, "big") + b"\x01\xbb"
            found[shard_of(key)] += 1
    assert min(found) > 150


def test_what_others_read_is_quiet_and_a_syn_is_not() -> None:
    for number in range(1, 60):
        octets = tcp((CLIENT, 40_000 + number), (SERVER, 443), 5, PSH, b"\x16\x03\x01")
        shards = Shards(lambda _: None, worker=0, workers=2)
        shards.packet(1, 1, 1, octets, 0, len(octets), len(octets))
        key = octets[26:38]
        assert (key in shards.quiet) == (shard_of(key) % 2 == 1)
        opening = tcp((CLIENT, 40_000 + number), (SERVER, 443), 5, 2)
        shards = Shards(lambda _: None, worker=0, workers=2)
        shards.packet(1, 1, 1, opening, 0, len(opening), len(opening))
        assert not shards.quiet


@pytest.mark.parametrize("port", sorted(PORTS))
def test_a_port_of_a_tunnel_is_never_quiet(port: int) -> None:
    """The gate would throw away the packets that later datagrams carry."""
    shards = Shards(lambda _: None)
    for number in range(1, 40):
        octets = udp((CLIENT, 40_000), (SERVER, port), b"\xff" * 9)
        shards.packet(number, number, 1, octets, 0, len(octets), len(octets))
    assert not shards.quiet_udp


def test_gate_and_shards_agree_on_bounds(tmp_path: Path) -> None:
    """A flow beyond what a process remembers of others' is dropped by its shard, not only by the gate."""
    seen: list[Observation] = []
    shards = Shards(seen.append, worker=0, workers=2)
    for client in range(2):
        for port in range(1024, 60_000):
            octets = tcp((bytes((10, 0, client, 1)), port), (SERVER, 443), 5, PSH, b"\x17\x03\x03")
            shards.packet(port, port, 1, octets, 0, len(octets), len(octets))
    assert len(shards.quiet) <= 65_536
    assert all(shard_of(flow_key(one)) % 2 == 0 for one in seen if one.kind == FLOW)


def flow_key(seen: Observation) -> bytes:
    flow = seen.flow
    return flow.client + flow.server + flow.client_port.to_bytes(2, "big") + flow.server_port.to_bytes(2, "big")


class Kept:
    """A sink that keeps the numbers of what it is given."""

    def __init__(self) -> None:
        self.quiet: dict[bytes, int] = {}
        self.quiet_udp: dict[bytes, int] = {}
        self.recent: Recent | None = None
        self.numbers: list[int] = []

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        self.numbers.append(number)


def test_a_reader_leaves_out_what_others_read_and_nothing_else(tmp_path: Path) -> None:
    """The compiled form of the loop, which is the one that does."""
    write(tmp_path / "x.pcap", "bulk", 3_000)
    vlan = ROOT / "pcaps" / "vlan" / "input.pcap"
    for path, left_out in ((tmp_path / "x.pcap", True), (vlan, False)):
        given: list[int] = []
        for worker in range(2):
            sink = Kept()
            reader = open_capture(path)
            assert isinstance(reader, PcapReader)
            reader.others = Shards(lambda _: None, worker=worker, workers=2).others
            while not reader.done:
                reader.step_indexed(sink, False, NO_LIMIT_US)
            reader.close()
            given += sink.numbers
        packets = len(list(iter_packets(path)))
        assert sorted(set(given)) == list(range(1, packets + 1))
        assert (len(given) == packets) == left_out
