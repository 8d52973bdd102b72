"""Replay by several processes gives the bytes of replay by one: every case, several files, mutated packets."""

from __future__ import annotations

import signal
import subprocess
from io import BytesIO
from pathlib import Path

import pytest

from bench.traffic import write
from egressd.errors import CaptureError
from egressd.runtime import parallel_replay
from egressd.runtime.parallel_replay import LEAST_BYTES, SeveralProcesses, processes_for
from egressd.runtime.replay_reader import Job, ShardReader
from pcaps.files import pcapng
from pcaps.packets import Packet
from scripts.mutate import ROOT, Mutator, load_corpus
from tests.test_pcaps import EXPECTED, expectation, inputs, records_of, replayed
from tests.test_pcaps import replay as run_replay


class Here:
    """A reading process whose work was done in this one."""

    stdin = None

    def __init__(self, job: Job) -> None:
        self.stdout = BytesIO()
        ShardReader(job, self.stdout).run()
        self.stdout.seek(0)

    def kill(self) -> None:
        """It has ended."""

    def wait(self) -> None:
        """It has ended."""


@pytest.fixture
def readers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays with --jobs are shared out, however small, and no process is started."""
    monkeypatch.setattr(parallel_replay, "processes_for", lambda _, jobs: jobs)
    monkeypatch.setattr(parallel_replay, "_start", Here)


@pytest.mark.usefixtures("readers_here")
@pytest.mark.parametrize("name", EXPECTED)
def test_case_gives_the_same_bytes(name: str) -> None:
    for jobs in ("2", "5"):
        assert run_replay(name, inputs(name), "--jobs", jobs) == replayed(name)
    assert run_replay(name, inputs(name), "--jobs", "3", "--no-prefilter") == replayed(name)


def mutated(path: Path, packets: int, seed: int) -> None:
    """Write a capture of mutated packets."""
    mutator = Mutator(load_corpus([ROOT / "pcaps"]), seed)
    made = []
    while len(made) < packets:
        made += mutator.run()
    path.write_bytes(pcapng([Packet(ts_us, octets, len(octets), link) for ts_us, link, octets in made]))


@pytest.mark.usefixtures("readers_here")
def test_files_that_overlap_and_mutated_packets(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        mutated(tmp_path / f"{seed}.pcapng", 4_000, seed)
    files = [str(tmp_path / f"{seed}.pcapng") for seed in (1, 2, 3)]
    name = EXPECTED[0]
    alone = run_replay(name, files)
    assert len(alone[1].splitlines()) > 1_000
    for jobs in ("2", "4"):
        assert run_replay(name, files, "--jobs", jobs) == alone


def test_processes_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "bulk.pcap", "bulk", 60_000)
    write(tmp_path / "names.pcap", "names", 10_000)
    files = [str(tmp_path / "bulk.pcap"), str(tmp_path / "names.pcap")]
    words = ["--list", str(tmp_path / "names.pcap.list")]
    name = next(name for name in EXPECTED if not expectation(name).get("args"))
    alone = run_replay(name, files, *words)
    monkeypatch.setattr(parallel_replay, "LEAST_BYTES", 0)
    started: list[subprocess.Popen[bytes]] = []
    start = parallel_replay._start

    def noted(job: Job) -> subprocess.Popen[bytes]:
        started.append(start(job))
        return started[-1]

    monkeypatch.setattr(parallel_replay, "_start", noted)
    assert run_replay(name, files, *words, "--jobs", "2") == alone
    assert len(started) == 2 and all(child.returncode is not None for child in started)
    assert sum(one["event_type"] == "sighting" for one in records_of(alone[1])) > 20


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "names.pcap", "names", 20_000)
    start = parallel_replay._start
    started: list[subprocess.Popen[bytes]] = []

    def shot(job: Job) -> subprocess.Popen[bytes]:
        started.append(start(job))
        if job.worker == 1:
            started[-1].send_signal(signal.SIGKILL)
        return started[-1]

    monkeypatch.setattr(parallel_replay, "_start", shot)
    reading = SeveralProcesses([tmp_path / "names.pcap"], lambda _: None, lambda *_: None, 1_000, True, None, 2)
    with pytest.raises(CaptureError, match="ended early"):
        reading.run()
    assert len(started) == 2 and all(child.returncode is not None for child in started)


def test_what_cannot_be_opened_is_told_before_any_process_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parallel_replay, "_start", lambda _: pytest.fail("started"))
    (tmp_path / "x.pcap").write_bytes(b"no capture at all")
    for path in (tmp_path / "x.pcap", tmp_path / "missing"):
        with pytest.raises(CaptureError):
            SeveralProcesses([path], lambda _: None, lambda *_: None, 1_000, True, None, 2).run()


def test_when_it_pays(tmp_path: Path) -> None:
    large, small, packed = tmp_path / "large", tmp_path / "small", tmp_path / "packed"
    with large.open("wb") as file:
        file.truncate(LEAST_BYTES)
    small.write_bytes(bytes(100))
    with packed.open("wb") as file:
        file.write(b"\x1f\x8b")
        file.truncate(LEAST_BYTES)
    assert processes_for([large], 3) == 3
    assert processes_for([large, small], 100) == 8
    assert processes_for([large], 1) == 1
    for paths in ([small], [packed], [large, packed], [large, "-"], [large, tmp_path / "missing"], []):
        assert processes_for(paths, 4) == 1
    assert processes_for([large], 0) >= 1
