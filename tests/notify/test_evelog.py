"""The event file: whole lines whatever the disk does, nothing lost without a count, nobody waits for it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.notify.evelog import LOOK_S, MODE, EveLog, EveLogError
from tests.loops import HANG_S

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = HANG_S


def sighting(number: int, padding: str = "") -> dict[str, Any]:
    return {"event_type": "sighting", "number": number, "padding": padding}


def question(number: int) -> dict[str, Any]:
    return {"event_type": "dns", "number": number}


def numbers(path: Path) -> list[int]:
    """The events of a file; every line must be whole."""
    text = path.read_text(encoding="ascii")
    assert not text or text.endswith("\n")
    return [json.loads(line)["number"] for line in text.splitlines()]


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[EveLog]:
    log = EveLog(str(path), **{"retry_s": 0.01, **options})
    log.start()
    try:
        yield log
    finally:
        log.close()


class Disk:
    """Writes that fail as told: `room` bytes are left; `hang` holds every write back."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.room = room
        self.hang = threading.Event()
        self.hang.set()
        self.called = threading.Event()
        self.failed = threading.Event()

    def write(self, fd: int, chunk: bytes) -> int:
        self.called.set()
        assert self.hang.wait(WAIT_S)
        if not self.room:
            self.failed.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        done = os.write(fd, chunk[: self.room])
        self.room -= done
        return done


def test_events_are_lines_in_order(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    with opened(path) as log:
        for number in range(5_000):
            assert log.write(sighting(number))
        assert log.flush(WAIT_S)
        stats = log.stats
    assert numbers(path) == list(range(5_000))
    assert (stats.written, stats.dropped, stats.errors, stats.trouble) == (5_000, {}, 0, "")
    assert (stats.waiting, stats.waiting_bytes) == (0, 0)


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    log = EveLog(str(tmp_path / "eve.json"))
    log.start()
    for number in range(100):
        log.write(sighting(number))
    assert log.close() == 0
    assert numbers(tmp_path / "eve.json") == list(range(100))
    assert not log.write(sighting(1))
    assert log.stats.dropped == {"sighting": 1}


def test_it_is_appended_to_and_readable_by_the_group(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    before = os.umask(0o077)
    try:
        for number in range(2):
            with opened(path) as log:
                log.write(sighting(number))
    finally:
        os.umask(before)
    assert numbers(path) == [0, 1]
    assert path.stat().st_mode & 0o777 == MODE


def test_the_file_is_not_given_to_programs_we_start(tmp_path: Path) -> None:
    with opened(tmp_path / "eve.json") as log:
        assert not os.get_inheritable(log._fd)


def test_hostile_text_stays_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    with opened(path) as log:
        log.write(sighting(1, '\n{"event_type":"incident"}\n\x1b[2J\u2028\0é\ud800'))
    assert numbers(path) == [1]
    assert b"\x1b" not in path.read_bytes()


# -- rotation


def test_asked_to_reopen_while_the_thread_is_about_to_write(tmp_path: Path) -> None:
    """What was asked for in that moment was forgotten, and lines went into the file that had been moved away."""
    path, old = tmp_path / "eve.json", tmp_path / "eve.json.1"
    rotates = threading.Event()

    def clock_s() -> float:
        if rotates.is_set():
            rotates.clear()
            path.rename(old)
            log.reopen()
        return 0.0

    with opened(path, clock_s=clock_s) as log:
        rotates.set()
        log.write(sighting(1))
        assert log.flush(WAIT_S)
        log.write(sighting(2))
        assert log.flush(WAIT_S)
    assert (numbers(old), numbers(path)) == ([1], [2])


def test_reopened_after_rotation(tmp_path: Path) -> None:
    path, moved = tmp_path / "eve.json", tmp_path / "eve.json.1"
    with opened(path) as log:
        log.write(sighting(1))
        assert log.flush(WAIT_S)
        path.rename(moved)
        log.write(sighting(2))
        assert log.flush(WAIT_S)
        log.reopen()
        assert log.flush(WAIT_S)
        log.write(sighting(3))
        assert log.flush(WAIT_S)
    assert (numbers(moved), numbers(path)) == ([1, 2], [3])


def test_rotation_without_a_signal_is_noticed(tmp_path: Path) -> None:
    path, moved = tmp_path / "eve.json", tmp_path / "eve.json.1"
    now_s = [100.0]
    with opened(path, clock_s=lambda: now_s[0]) as log:
        log.write(sighting(1))
        assert log.flush(WAIT_S)
        path.rename(moved)
        now_s[0] += LOOK_S
        log.write(sighting(2))
        assert log.flush(WAIT_S)
        path.unlink()
        path.write_text("")  # another file of the same name
        now_s[0] += LOOK_S
        log.write(sighting(3))
        assert log.flush(WAIT_S)
    assert (numbers(moved), numbers(path)) == ([1], [3])


def test_while_the_new_file_cannot_be_made_the_old_one_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "eve.json"
    moved = tmp_path / "moved"
    with opened(path) as log:
        log.write(sighting(1))
        assert log.flush(WAIT_S)
        folder.rename(moved)
        log.reopen()
        log.write(sighting(2))
        assert not log.flush(0.05)
        assert "eve.json: No such file" in log.stats.trouble and log.stats.errors
        folder.mkdir()
        assert log.flush(WAIT_S)
        assert log.stats.trouble == ""
    assert (numbers(moved / "eve.json"), numbers(path)) == ([1], [2])


def test_what_comes_while_nothing_can_be_opened_under_the_name_waits(tmp_path: Path) -> None:
    """One try in LOOK_S failed; in between events went into the removed file, and no trouble was told."""
    path = tmp_path / "eve.json"
    now_s = [100.0]
    with opened(path, clock_s=lambda: now_s[0]) as log:
        log.write(sighting(1))
        assert log.flush(WAIT_S)
        path.unlink()
        path.mkdir()
        now_s[0] += LOOK_S
        for number in (2, 3):
            log.write(sighting(number))
            assert not log.flush(0.05)
            assert "eve.json: Is a directory" in log.stats.trouble
        path.rmdir()
        assert log.flush(WAIT_S)
        assert log.stats.trouble == ""
    assert numbers(path) == [2, 3]


def test_truncated_by_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    with opened(path) as log:
        log.write(sighting(1))
        assert log.flush(WAIT_S)
        os.truncate(path, 0)
        log.write(sighting(2))
    assert numbers(path) == [2]


# -- a line is whole or not there


def test_a_line_torn_by_a_crash_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_text('{"event_type":"sighting","num')
    with opened(path) as log:
        log.write(sighting(1))
    assert path.read_text().splitlines() == [
        '{"event_type":"sighting","num', '{"event_type":"sighting","number":1,"padding":""}',
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=6))
def test_a_full_disk_tears_no_line_and_loses_none(tmp_path_factory: pytest.TempPathFactory, rooms: list[int]) -> None:
    path = tmp_path_factory.mktemp("full") / "eve.json"
    disk = Disk(room=0)
    with opened(path, write=disk.write, retry_s=0.001) as log:
        for number in range(20):
            assert log.write(sighting(number))
        for room in rooms:
            disk.failed.clear()
            disk.room = room
            assert disk.failed.wait(WAIT_S)
        disk.room = 1 << 40
        assert log.flush(WAIT_S)
        assert log.stats.errors and log.stats.trouble == ""
    assert numbers(path) == list(range(20))


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    disk = Disk(room=0)
    with opened(tmp_path / "eve.json", write=disk.write) as log:
        log.write(sighting(1))
        assert not log.flush(0.1)
        stats = log.stats
        assert stats.trouble == f"{tmp_path / 'eve.json'}: No space left on device"
        assert (stats.waiting, stats.written) == (1, 0) and stats.errors >= 1 and stats.waiting_bytes > 0
        assert log.close(0.05) == 1
        assert log.stats.dropped == {"sighting": 1}


LIMITED = """
import json, resource, sys, time
from egressd.notify.evelog import EveLog
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
log = EveLog(sys.argv[1], retry_s=0.01)
log.start()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
for number in range(100):
    assert log.write({"event_type": "sighting", "number": number})
assert not log.flush(0.2)
stats = log.stats
size = len(open(sys.argv[1]).read())
whole = open(sys.argv[1]).read().endswith("\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert log.flush(10)
print(json.dumps([stats.trouble, stats.written, size, whole, log.close()]))
"""


def test_a_real_limit_of_the_kernel(tmp_path: Path) -> None:
    """The kernel writes what fits and fails the rest, as with a full disk."""
    path = tmp_path / "eve.json"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=HANG_S
    )
    trouble, written, size, whole, left = json.loads(done.stdout)
    assert trouble.endswith("File too large") and whole and left == 0
    assert 0 < size <= 1_000 and 0 < written < 100
    assert numbers(path) == list(range(100))


# -- nobody waits, nothing is lost without a count


def test_findings_have_room_that_observations_cannot_take(tmp_path: Path) -> None:
    disk = Disk()
    disk.hang.clear()
    with opened(tmp_path / "eve.json", write=disk.write, max_waiting_bytes=10_000) as log:
        taken = [log.write(question(number)) for number in range(1_000)]
        assert disk.called.wait(WAIT_S)
        observations = sum(taken)
        assert 0 < observations < 200 and log.stats.dropped == {"dns": 1_000 - observations}
        findings = sum(log.write(sighting(number)) for number in range(1_000))
        assert findings > 50
        stats = log.stats
        assert stats.dropped == {"dns": 1_000 - observations, "sighting": 1_000 - findings}
        assert stats.waiting_bytes <= 10_000 and stats.waiting == observations + findings
        disk.hang.set()
        assert log.flush(WAIT_S)
        assert log.stats.written == observations + findings
    assert len(numbers(tmp_path / "eve.json")) == observations + findings


def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    disk = Disk()
    disk.hang.clear()
    with opened(tmp_path / "eve.json", write=disk.write) as log:
        log.write(sighting(0))
        assert disk.called.wait(WAIT_S)
        done = threading.Event()

        def others() -> None:
            for number in range(1, 1_000):
                log.write(sighting(number))
            log.reopen()
            assert log.stats.waiting == 1_000
            done.set()

        threading.Thread(target=others, daemon=True).start()
        assert done.wait(WAIT_S)
        assert log.close(0.05) == 1_000
        disk.hang.set()


# -- at the start


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_the_start_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """After an error of the disk /var is read-only: the ledger was ready for that, and egressd did not start for want
    of an event file."""
    path = tmp_path / "eve.json"
    failing = [True]
    real = os.open

    def fails(name: Any, flags: int, *more: Any) -> int:
        if str(name) == str(path) and failing:
            raise OSError(number, os.strerror(number))
        return real(name, flags, *more)

    monkeypatch.setattr(os, "open", fails)
    with opened(path) as log:
        assert log.stats.trouble == f"{path}: {os.strerror(number)}"
        log.write(sighting(1))
        failing.clear()
        assert log.flush(WAIT_S)
        assert (numbers(path), log.stats.trouble) == ([1], "")


def test_the_alarm_of_a_disk_that_failed_at_the_start_ends_without_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was tried before there was an event to write: the alarm stood for hours, of a disk that was long well."""
    path = tmp_path / "eve.json"
    real = EveLog._open
    fails = [OSError(errno.EROFS, os.strerror(errno.EROFS))]

    def open_(log: EveLog) -> None:
        if fails:
            raise fails.pop()
        real(log)

    monkeypatch.setattr(EveLog, "_open", open_)
    with opened(path) as log:
        assert log.flush(WAIT_S)
        assert path.exists() and log.stats.trouble == ""


@pytest.mark.parametrize("sort", ["no folder", "folder", "fifo", "device"])
def test_what_cannot_be_an_event_file(tmp_path: Path, sort: str) -> None:
    path = tmp_path / "eve.json"
    if sort == "no folder":
        path = tmp_path / "missing" / "eve.json"
    elif sort == "folder":
        path.mkdir()
    elif sort == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    log = EveLog(str(path))
    with pytest.raises(EveLogError, match=r"state\.events"):
        log.start()
    assert log.close() == 0
