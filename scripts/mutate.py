#!/usr/bin/env python3
"""Mutated packets through one dissector and one engine: nothing may raise, no packet may take long.

usage: scripts/mutate.py [--packets N] [--seed N] [--processes N] [--bound-ms N] [--captures DIR]...

Packets are taken from the captures of the cases (pcaps/*/) and of every DIR, in short runs of neighbours, so that
conversations go on; bytes are changed, cut, put in from other packets and repeated, lengths are changed, payloads are
blown up to the largest that IP can carry, packets are sent again, left out and exchanged. The same arguments give the
same packets (`digest` of the report).

Time is CPU time of the thread (`time.thread_time`), of the dissector and the engine together. The garbage collector is
off while a packet is read and runs between packets, every 5,000 of them; what was loaded before is frozen, and what is
imported at first use has been. A packet over the bound is read again twice, alone and after the 500 packets before it,
each time from a fresh start; only when it is over the bound both times in either way is it slow, else the machine was.

Exit code 1 when anything was raised or is slow. Memory is reported: growth from one tenth of the run to its end.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import resource
import sys
import traceback
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import thread_time
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from egressd.capture.merge import iter_packets
from egressd.config.load import default_config, load_intel
from egressd.config.settings import policy_settings
from egressd.detect.engine import Engine
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.errors import CaptureError
from egressd.model import Event, Observation
from egressd.wire.dissector import Dissector

BOUND_MS: Final = 10.0
CONVERSATIONS: Final = 4_096  # small, so that tables fill and forget within a run
HISTORY: Final = 10_000
COLLECT_EVERY: Final = 5_000  # packets
BEFORE: Final = 500  # packets read again before one that was slow
MAX_RUN: Final = 24  # neighbours taken from one capture at a time
MAX_PACKET_BYTES: Final = 65_549  # an Ethernet frame with the largest IP packet
MAX_SHOWN: Final = 20  # errors kept in full
START_US: Final = 1_700_000_000_000_000
LINKS: Final = (0, 1, 12, 101, 105, 113, 127, 228, 229, 276)
VALUES: Final = (0x00, 0x01, 0x7F, 0x80, 0xC0, 0xFF)

Made = tuple[int, int, bytes]  # time in microseconds, link type, octets


@dataclass
class Corpus:
    """Packets of each capture in order, as (link type, octets)."""

    captures: list[list[tuple[int, bytes]]]


@dataclass
class Slow:
    """A packet that was over the bound each time: how, CPU milliseconds, and the packet."""

    how: str
    took_ms: float
    link: int
    octets: bytes


@dataclass
class Report:
    """What a run came to."""

    packets: int = 0
    observations: int = 0
    events: int = 0
    errors: int = 0
    shown: list[str] = field(default_factory=list)
    slow: list[Slow] = field(default_factory=list)
    slowest_ms: float = 0.0
    seconds: float = 0.0
    over_bound: int = 0
    grown_bytes: int = 0
    rss_bytes: int = 0
    digest: str = ""

    @property
    def failed(self) -> bool:
        """Whether the run found something."""
        return bool(self.errors or self.slow)


class Pipeline:
    """Dissector and engine as a packet process puts them together."""

    def __init__(self, intel: Intel, settings: PolicySettings) -> None:
        self.observations = 0
        self.events = 0
        self.engine = Engine(intel, settings, self._event, history=HISTORY)
        self.dissector = Dissector(self._observation, CONVERSATIONS)
        self.number = 0

    def read(self, made: Made) -> float:
        """Read a packet; returns the CPU seconds that it took."""
        ts_us, link, octets = made
        self.number += 1
        begin = thread_time()
        self.dissector.packet(ts_us, self.number, link, octets, 0, len(octets), len(octets))
        return thread_time() - begin

    def finish(self) -> None:
        """The end of a capture."""
        self.dissector.flush()
        self.engine.finish()

    def _observation(self, seen: Observation) -> None:
        self.observations += 1
        self.engine.observe(seen)

    def _event(self, event: Event) -> None:
        self.events += 1


def load_corpus(folders: list[Path]) -> Corpus:
    """Every capture below the folders that can be read, in order of name."""
    captures = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and ("cap" in path.suffix or path.suffix == ".gz"):
                try:
                    packets = [(link, octets) for _, _, link, octets, _ in iter_packets(path)]
                except CaptureError:
                    continue
                if packets:
                    captures.append(packets)
    return Corpus(captures)


def load_lists() -> tuple[Intel, PolicySettings]:
    """What the shipped files say, with the lists of the cases: so that there are sightings, decisions and attempts."""
    config = default_config()
    loaded = load_intel(config, sorted((ROOT / "pcaps").glob("*/list.txt")), base_dir=ROOT)
    return loaded.intel, policy_settings(config, loaded.policy)


class Mutator:
    """An endless supply of packets, the same for the same seed."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self._captures = corpus.captures
        self._draw = Random(seed)
        self._now_us = START_US

    def run(self) -> list[Made]:
        """Some neighbours of one capture, each mutated or not."""
        draw = self._draw
        capture = draw.choice(self._captures)
        size = draw.randrange(1, MAX_RUN + 1)
        first = draw.randrange(max(1, len(capture) - size + 1)) if draw.random() < 0.7 else 0
        packets = list(capture[first : first + size])
        self._disturb(packets)
        rate = draw.choice((0.1, 0.5, 1.0))
        made: list[Made] = []
        for link, octets in packets:
            mutated = self._mutate(octets) if draw.random() < rate else octets
            if draw.random() < 0.01:
                link = draw.choice(LINKS)
            self._now_us += draw.choice((1, 50, 900, 20_000, 4_000_000)) if draw.random() < 0.9 else -1_000_000
            made.append((self._now_us, link, mutated))
        return made

    def _disturb(self, packets: list[tuple[int, bytes]]) -> None:
        """Send again, leave out, exchange."""
        draw = self._draw
        for _ in range(draw.choice((0, 0, 1, 3))):
            at, other = draw.randrange(len(packets)), draw.randrange(len(packets))
            what = draw.randrange(3)
            if what == 0:
                packets.insert(at, packets[other])
            elif what == 1 and len(packets) > 1:
                del packets[at]
            else:
                packets[at], packets[other % len(packets)] = packets[other % len(packets)], packets[at]

    def _mutate(self, octets: bytes) -> bytes:
        for _ in range(self._draw.choice((1, 1, 1, 2, 4))):
            octets = self._mutate_once(octets)
        return octets[:MAX_PACKET_BYTES]

    def _mutate_once(self, octets: bytes) -> bytes:
        draw = self._draw
        if not octets:
            return draw.randbytes(draw.randrange(80))
        # Headers are where the decisions lie: half of the places are in the first 120 bytes.
        at = draw.randrange(min(len(octets), 120) if draw.random() < 0.5 else len(octets))
        what = draw.randrange(10)
        if what == 0:
            return octets[:at] + bytes((octets[at] ^ 1 << draw.randrange(8),)) + octets[at + 1 :]
        if what == 1:
            return octets[:at] + bytes((draw.choice(VALUES),)) + octets[at + 1 :]
        if what == 2:
            return octets[:at] + draw.randbytes(draw.randrange(1, 9)) + octets[at + 1 :]
        if what == 3:
            return octets[:at]
        if what == 4:  # the rest from another packet
            other = draw.choice(draw.choice(self._captures))[1]
            return octets[:at] + other[draw.randrange(len(other) + 1) :]
        if what == 5:  # a piece again and again
            piece = octets[at : at + draw.randrange(1, 60)]
            return octets[:at] + piece * draw.choice((2, 3, 50, 1_000)) + octets[at:]
        if what == 6:  # a length, more or less
            number = int.from_bytes(octets[at : at + 2], "big") + draw.choice((-256, -4, -1, 1, 4, 256))
            return octets[:at] + (number & 0xFFFF).to_bytes(2, "big") + octets[at + 2 :]
        if what == 7:  # a length that stands elsewhere
            place = draw.randrange(len(octets))
            return octets[:at] + octets[place : place + 2] + octets[at + 2 :]
        if what == 8:
            return blow_up(octets, draw)
        return octets[:at] + octets[at + draw.randrange(1, 40) :]


def blow_up(octets: bytes, draw: Random) -> bytes:
    """The same packet with much payload, a piece of its own again and again, and lengths that fit; only for IPv4 in
    Ethernet, others stay as they are."""
    if len(octets) < 42 or octets[12:15] != b"\x08\x00\x45" or octets[23] not in (6, 17):
        return octets
    if octets[23] == 6 and len(octets) < 54:
        return octets
    start = 42 if octets[23] == 17 else 34 + (octets[46] >> 4 << 2)
    payload = octets[start : 14 + int.from_bytes(octets[16:18], "big")]
    if not payload or start >= len(octets):
        return octets
    first = draw.choice((0, draw.randrange(len(payload))))
    piece = payload[first : first + draw.choice((len(payload), draw.randrange(1, 80)))]
    room = draw.choice((3_000, 9_000, 65_535 - (start - 14)))
    payload = payload[:first] + piece * (room // len(piece))
    payload = payload[:room]
    made = bytearray(octets[:start]) + payload
    made[16:18] = (start - 14 + len(payload)).to_bytes(2, "big")
    if octets[23] == 17:
        made[38:40] = (8 + len(payload)).to_bytes(2, "big")
    return bytes(made)


def run(packets: int, seed: int, folders: list[Path], bound_ms: float = BOUND_MS) -> Report:
    """Mutate and read; the garbage collector is as before when this returns."""
    intel, settings = load_lists()
    corpus = load_corpus(folders)
    warm_up(Pipeline(intel, settings), corpus)
    pipeline = Pipeline(intel, settings)
    mutator = Mutator(corpus, seed)
    report = Report()
    digest = hashlib.blake2b(digest_size=8)
    before: deque[Made] = deque(maxlen=BEFORE)
    began = thread_time()
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        while report.packets < packets:
            for made in mutator.run()[: packets - report.packets]:
                digest.update(made[2])
                _one(pipeline, made, report, bound_ms, before, intel, settings)
                if report.packets % COLLECT_EVERY == 0:
                    gc.collect()
                if report.packets == packets // 10:
                    gc.collect()
                    report.grown_bytes = -rss_bytes()
        try:
            pipeline.finish()
        except Exception:  # noqa: BLE001  (to find it is what this is for)
            _note(report, "at the end", traceback.format_exc(), b"", 0)
        gc.collect()
        report.rss_bytes = rss_bytes()
        report.grown_bytes += report.rss_bytes
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
    report.seconds = thread_time() - began
    report.observations = pipeline.observations
    report.events = pipeline.events
    report.digest = digest.hexdigest()
    return report


def warm_up(pipeline: Pipeline, corpus: Corpus) -> None:
    """Read the beginnings of the captures as they are, so that what is imported and cached at first use is there."""
    for capture in corpus.captures[:100]:
        for link, octets in capture[:MAX_RUN]:
            try:
                pipeline.read((START_US, link, octets))
            except Exception:  # noqa: BLE001, S112  (the run meets it again, and notes it)
                continue


def _one(
    pipeline: Pipeline,
    made: Made,
    report: Report,
    bound_ms: float,
    before: deque[Made],
    intel: Intel,
    settings: PolicySettings,
) -> None:
    report.packets += 1
    try:
        took_ms = pipeline.read(made) * 1_000
    except Exception:  # noqa: BLE001  (to find it is what this is for)
        _note(report, f"packet {report.packets}", traceback.format_exc(), made[2], made[1])
        took_ms = 0.0
    report.slowest_ms = max(report.slowest_ms, took_ms)
    if took_ms > bound_ms:
        report.over_bound += 1
        for how, earlier in (("alone", []), (f"after {len(before)} others", list(before))):
            again = [read_again(intel, settings, earlier, made) for _ in range(2)]
            if min(again) > bound_ms:
                report.slow.append(Slow(how, min(again), made[1], made[2]))
                break
    before.append(made)


def read_again(intel: Intel, settings: PolicySettings, earlier: list[Made], made: Made) -> float:
    """CPU milliseconds of one packet from a fresh start; 0 when it raises, which is told elsewhere."""
    pipeline = Pipeline(intel, settings)
    for one in [*earlier, made]:
        try:
            took_ms = pipeline.read(one) * 1_000
        except Exception:  # noqa: BLE001  (it was noted when it was met)
            took_ms = 0.0
    return took_ms


def _note(report: Report, where: str, trace: str, octets: bytes, link: int) -> None:
    report.errors += 1
    if len(report.shown) < MAX_SHOWN:
        report.shown.append(f"{where}, link type {link}:\n{trace}packet: {octets.hex()}")


def rss_bytes() -> int:
    """Resident memory of this process; its greatest so far where /proc is missing."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    return pages * resource.getpagesize()


def render_report(report: Report, seed: int) -> str:
    """The report as text."""
    lines = list(report.shown)
    if report.errors > len(report.shown):
        lines.append(f"... and {report.errors - len(report.shown)} more errors")
    for slow in report.slow:
        lines.append(f"slow {slow.how}: {slow.took_ms:.1f} ms, link type {slow.link}, packet: {slow.octets.hex()}")
    each_us = report.seconds / max(1, report.packets) * 1e6
    lines.append(
        f"seed {seed}: {report.packets} packets, {report.errors} errors, {len(report.slow)} slow; slowest "
        f"{report.slowest_ms:.1f} ms of CPU ({report.over_bound} over the bound at first); memory grew by "
        f"{report.grown_bytes / 1e6:.1f} MB to {report.rss_bytes / 1e6:.0f} MB; {report.observations} observations, "
        f"{report.events} events; {each_us:.0f} us a packet with making it; digest {report.digest}"
    )
    return "\n".join(lines)


def run_all(packets: int, seed: int, folders: list[Path], processes: int, bound_ms: float) -> list[tuple[int, Report]]:
    """The packets shared out over processes, each with a seed of its own."""
    seeds = [seed + number for number in range(processes)]
    share = -(-packets // processes)
    if processes == 1:
        return [(seed, run(packets, seed, folders, bound_ms))]
    with ProcessPoolExecutor(processes) as pool:
        jobs = [pool.submit(run, share, one, folders, bound_ms) for one in seeds]
        return [(one, job.result()) for one, job in zip(seeds, jobs, strict=True)]


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Mutated packets through the dissector and the engine.")
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--bound-ms", type=float, default=BOUND_MS)
    parser.add_argument("--captures", type=Path, action="append", default=[], help="more captures, besides the cases")
    options = parser.parse_args(words)
    folders = [ROOT / "pcaps", *options.captures]
    failed = False
    for seed, report in run_all(options.packets, options.seed, folders, options.processes, options.bound_ms):
        print(render_report(report, seed))
        failed |= report.failed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
