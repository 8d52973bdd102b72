"""Logs that are followed: rotated, cut, half written, and met again after a restart; on real files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.capture.logfollow import DRAIN_US, READ_BYTES, FollowedLog, Lines, Mark
from egressd.logs.formats import MAX_LINE_BYTES
from egressd.logs.framestream import DNSTAP, START, render_control


class Log:
    """A log that a program writes and we follow."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.log"
        self.now_us = 0
        self.write("old\n")
        self.followed = FollowedLog(str(self.path))
        assert self.poll() == []

    def write(self, text: str, path: Path | None = None) -> None:
        with open(path or self.path, "a") as file:
            file.write(text)

    def poll(self) -> list[str]:
        found = self.followed.poll(self.now_us)
        while self.followed.is_behind:
            found += self.followed.poll(self.now_us)
        return [line.decode() for line in found]

    def restart(self, *, new: bool = False) -> None:
        """We are stopped, and started with what was remembered."""
        marks = self.followed.marks()
        self.followed.close()
        self.followed = FollowedLog(str(self.path), [Mark(*one) for one in marks], new=new)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_reading_begins_at_the_end_and_goes_on_with_whole_lines(log: Log) -> None:
    log.write("one\ntw")
    assert log.poll() == ["one"]
    log.write("o\r\n\nthree\n")
    assert log.poll() == ["two", "three"]


def test_a_line_that_is_being_written_as_we_begin_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("old\nhal")
    followed = FollowedLog(str(tmp_path / "a.log"))
    assert followed.poll(0) == []
    with open(tmp_path / "a.log", "a") as file:
        file.write("f\n")
    assert followed.poll(0) == [b"half"]


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    followed = FollowedLog(str(tmp_path / "a.log"))
    assert (followed.poll(0), followed.problem) == ([], "no such file")
    (tmp_path / "a.log").write_text("one\n")
    assert (followed.poll(0), followed.problem) == ([b"one"], "")


def test_rotation_by_renaming(log: Log) -> None:
    log.write("one\n")
    moved = log.path.with_suffix(".log.1")
    log.path.rename(moved)
    log.write("two\n", moved)  # the program has it open still
    assert log.poll() == ["one", "two"]
    log.write("four\n")
    log.write("three\n", moved)
    assert sorted(log.poll()) == ["four", "three"]
    log.now_us += DRAIN_US + 1
    log.write("five\n")
    assert log.poll() == ["five"]
    assert len(log.followed.marks()) == 1, "nobody writes to the old one any more"


def test_cut_to_nothing(log: Log) -> None:
    log.write("one\n")
    assert log.poll() == ["one"]
    os.truncate(log.path, 0)
    assert log.poll() == []
    log.write("two\n")
    assert log.poll() == ["two"]


def test_cut_to_nothing_and_written_beyond_where_we_were(log: Log) -> None:
    log.write("one\n")
    assert log.poll() == ["one"]
    os.truncate(log.path, 0)
    log.write("new beginning\n" * 3)
    assert log.poll() == ["new beginning"] * 3


def test_restarts_lose_nothing_and_read_nothing_twice(log: Log) -> None:
    log.write("one\ntw")
    assert log.poll() == ["one"]
    log.restart()
    log.write("o\nthree\n")
    assert log.poll() == ["two", "three"]
    log.restart()
    assert log.poll() == []


def test_rotation_while_we_were_stopped(log: Log) -> None:
    log.write("one\n")
    assert log.poll() == ["one"]
    marks = log.followed.marks()
    log.followed.close()
    log.write("two\n")
    log.path.rename(log.path.with_suffix(".log.1"))
    log.write("three\n")
    log.followed = FollowedLog(str(log.path), marks)
    assert log.poll() == ["two", "three"]
    assert log.followed.gaps == 0


def test_rotation_and_compression_while_we_were_stopped_is_a_gap(log: Log) -> None:
    marks = log.followed.marks()
    log.followed.close()
    other = log.path.with_suffix(".log.1.gz")
    other.write_text("compressed")
    log.path.unlink()
    spare = log.path.with_suffix(".spare")  # so that the inode is not used again
    spare.write_text("")
    log.write("three\n")
    if log.path.stat().st_ino in [mark.inode for mark in marks]:
        pytest.skip("the file system used the inode again at once")
    log.followed = FollowedLog(str(log.path), marks)
    assert log.poll() == ["three"]
    assert log.followed.gaps == 1


def test_a_folder_that_cannot_be_listed_is_a_gap(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    log.path.rename(log.path.with_suffix(".log.1"))
    log.write("three\n")
    log.restart()
    monkeypatch.setattr(os, "scandir", refused)
    assert log.poll() == ["three"]
    assert (log.followed.gaps, log.followed.problem) == (1, "")


def test_a_moved_file_that_may_not_be_read_any_more_is_a_gap(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = log.path.with_suffix(".log.1")
    really_open = os.open

    def refused(path: str, flags: int) -> int:
        if path == str(moved):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return really_open(path, flags)

    log.path.rename(moved)
    log.write("three\n")
    log.restart()
    monkeypatch.setattr(os, "open", refused)
    assert log.poll() == ["three"]
    assert (log.followed.gaps, log.followed.problem) == (1, "")


def test_a_disk_that_does_not_read_takes_no_descriptors(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, size: int, at: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    log.followed.close()
    monkeypatch.setattr(os, "pread", broken)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert log.followed.poll(0) == []
        assert log.followed.problem == "input/output error"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_inode_that_is_used_again_is_another_file(log: Log) -> None:
    (mark,) = log.followed.marks()
    log.followed.close()
    os.truncate(log.path, 0)
    log.write("other content that is longer\n")
    log.followed = FollowedLog(str(log.path), [mark])
    assert log.poll() == ["other content that is longer"]


def test_lines_without_end_are_left_out_in_bounded_memory(log: Log) -> None:
    with open(log.path, "a") as file:
        for _ in range(40):
            file.write("x" * MAX_LINE_BYTES)
        file.write("\nnext\n")
    assert log.poll() == ["next"]
    assert log.followed.too_long == 1
    assert log.followed.marks()[0].offset == log.path.stat().st_size


@given(st.lists(st.binary(max_size=8), max_size=12))
@settings(max_examples=200)
def test_the_same_lines_in_whatever_pieces(pieces: list[bytes]) -> None:
    whole = Lines()
    parts = Lines()
    joined = b"".join(pieces)
    found = [line for piece in pieces for line in parts.feed(piece)]
    assert found == whole.feed(joined)
    assert parts.consumed == whole.consumed == joined.rfind(b"\n") + 1


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    followed = FollowedLog(str(tmp_path))
    assert followed.poll(0) == []
    assert followed.problem == "is no regular file"
    os.mkfifo(tmp_path / "pipe")
    followed = FollowedLog(str(tmp_path / "pipe"))
    assert followed.poll(0) == []
    assert followed.problem == "is no regular file"


def test_frames(tmp_path: Path) -> None:
    path = tmp_path / "dns.tap"
    path.write_bytes(render_control(START, DNSTAP) + b"\0\0\0\3abc")
    followed = FollowedLog(str(path), frames=True, new=True)
    assert followed.poll(0) == [b"abc"]
    with open(path, "ab") as file:
        file.write(b"\0\0\0\2d")
    assert followed.poll(0) == []
    marks = followed.marks()
    followed.close()
    with open(path, "ab") as file:
        file.write(b"e\0\0\0\1f\xff\xff\xff\xff")
    followed = FollowedLog(str(path), marks, frames=True)
    assert followed.poll(0) == []
    assert followed.problem == "a data frame is too long"


def test_header_lines_are_there_wherever_reading_begins(tmp_path: Path) -> None:
    path = tmp_path / "dns.log"
    path.write_text("#separator \\x09\n#fields\tts\nrow\n#close\n")
    followed = FollowedLog(str(path))
    assert followed.poll(0) == []
    assert followed.header() == [b"#separator \\x09", b"#fields\tts"]


def test_what_is_written_right_behind_a_reading_was_written_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy program's lines were taken for old ones, and its clock was not known."""
    log = Log(tmp_path)
    pread = os.pread
    later = ["second\n"]

    def read(fd: int, size: int, at: int) -> bytes:
        octets = pread(fd, size, at)
        if size == READ_BYTES and octets and later:
            log.write(later.pop())
        return octets

    log.write("first\n")
    monkeypatch.setattr(os, "pread", read)
    assert (log.followed.poll(0), log.followed.caught_up) == ([b"first"], True)
    assert (log.followed.poll(0), log.followed.caught_up) == ([b"second"], True)


def test_what_one_reading_could_not_take_is_not_taken_for_new(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("a line of sixteen\n" * (READ_BYTES // 18 + 10))
    found = []
    while lines := log.followed.poll(0):
        found.append((len(lines), log.followed.caught_up))
    assert [one[1] for one in found] == [True, False]
    log.write("new\n")
    assert (log.followed.poll(0), log.followed.caught_up) == ([b"new"], True)
