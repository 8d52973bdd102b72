"""Mutated packets raise nothing and none is slow; and the run that says so would notice if it were otherwise."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from egressd.wire.dissector import Dissector
from scripts import mutate
from scripts.mutate import ROOT, Mutator, Report, blow_up, load_corpus, render_report, run, run_all
from tests.wire.frames_made import CLIENT, PSH, SERVER, Tap, tcp, udp

CASES = [ROOT / "pcaps"]


def check(report: Report, packets: int) -> None:
    assert report.packets == packets
    assert not report.failed, render_report(report, 0)
    # That it was no idle run.
    assert report.observations > packets // 20 and report.events > packets // 100
    assert report.grown_bytes < 200_000_000


def test_twenty_thousand_mutated_packets() -> None:
    check(run(20_000, 1, CASES), 20_000)


@pytest.mark.slow
def test_a_million_mutated_packets() -> None:
    for _, report in run_all(1_000_000, 100, CASES, 2, mutate.BOUND_MS):
        check(report, 500_000)


def test_the_same_seed_gives_the_same_run() -> None:
    first, again, other = (run(1_500, seed, CASES) for seed in (7, 7, 8))
    assert (first.digest, first.observations, first.events) == (again.digest, again.observations, again.events)
    assert first.digest != other.digest


def test_an_error_is_told_with_its_packet_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = Dissector.packet

    def broken(self: Dissector, ts_us: int, number: int, link: int, buf: bytes, *where: int) -> None:
        if number == 150:
            raise IndexError("planted")
        read(self, ts_us, number, link, buf, *where)

    monkeypatch.setattr(Dissector, "packet", broken)
    report = run(300, 1, CASES)
    assert report.errors == 1 and report.packets == 300
    wanted = r"packet 150, link type \d+:\nTraceback(?s:.*)IndexError: planted\npacket: [0-9a-f]*$"
    assert re.search(wanted, report.shown[0])
    assert mutate.main(["--packets", "300", "--captures", str(ROOT / "pcaps" / "vlan")]) == 1
    assert "1 errors" in capsys.readouterr().out


def test_a_packet_that_is_slow_each_time_fails_the_run_and_one_that_was_slow_once_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = mutate.Pipeline.read
    slow: list[bytes] = []

    def slowed(self: mutate.Pipeline, made: mutate.Made) -> float:
        took_s = read(self, made)
        if not slow and self.number == 200 and made[0] != mutate.START_US:  # which is the warming up
            slow.append(made[2])
        return 0.5 if slow and made[2] is slow[0] else took_s

    monkeypatch.setattr(mutate.Pipeline, "read", slowed)
    report = run(400, 1, CASES)
    assert [found.octets for found in report.slow] == [slow[0]]
    assert report.slow[0].how == "alone" and report.failed and report.slowest_ms == 500
    assert slow[0].hex() in render_report(report, 1)

    once: list[int] = []

    def slowed_once(self: mutate.Pipeline, made: mutate.Made) -> float:
        took_s = read(self, made)
        if not once and self.number == 200 and made[0] != mutate.START_US:
            once.append(1)
            return 0.5
        return took_s

    monkeypatch.setattr(mutate.Pipeline, "read", slowed_once)
    report = run(400, 1, CASES)
    assert report.over_bound >= 1 and not report.slow and not report.failed


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutate.main(["--packets", "200", "--seed", "3", "--bound-ms", "10000"]) == 0
    assert capsys.readouterr().out.startswith("seed 3: 200 packets, 0 errors, 0 slow; slowest ")


def test_the_corpus_is_every_capture_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.pcap").write_bytes(b"no capture")
    (tmp_path / "notes.txt").write_bytes(b"no capture either")
    assert load_corpus([tmp_path]).captures == []
    assert len(load_corpus(CASES).captures) >= 60


def test_mutations_are_of_every_kind_and_in_bounds() -> None:
    corpus = load_corpus(CASES)
    originals = {octets for capture in corpus.captures for _, octets in capture}
    mutator = Mutator(corpus, 5)
    made = [one for _ in range(400) for one in mutator.run()]
    kept = sum(octets in originals for _, _, octets in made)
    assert 0.3 < kept / len(made) < 0.7
    assert max(len(octets) for _, _, octets in made) > 60_000
    assert all(len(octets) <= mutate.MAX_PACKET_BYTES for _, _, octets in made)


def test_what_is_blown_up_is_a_whole_packet() -> None:
    for octets in (tcp((CLIENT, 1), (SERVER, 80), 5, PSH, b"GET / "), udp((CLIENT, 1), (SERVER, 9_999), b"payload")):
        draw = Random(1)
        for _ in range(20):
            tap = Tap()
            made = blow_up(octets, draw)
            assert len(made) > 2_900
            tap.put(made)
            assert tap.dissector.counts() == {} and tap.dissector.frames.payload_end == 2 + len(made)
    assert blow_up(b"short", Random(1)) == b"short"
