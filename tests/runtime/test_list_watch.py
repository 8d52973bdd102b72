"""When somebody has saved a list, and when they are only about to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from egressd.runtime.list_watch import GONE_S, STILL_S, ListWatch, Signs, read_signs

A, B = Path("a.txt"), Path("b.txt")
FIRST = {A: (1, 10, 100, 5), B: (1, 11, 100, 5)}


class Watching:
    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.watch = ListWatch(lambda: self.now_s)
        self.watch.took(FIRST)

    def look(self, signs: Signs, after_s: float = STILL_S) -> tuple[str, ...]:
        self.now_s += after_s
        return self.watch.look(signs)


def changed(size: int = 120, time: int = 6, inode: int = 10) -> Signs:
    return FIRST | {A: (1, inode, size, time)}


@pytest.mark.parametrize("signs", [changed(), changed(inode=99), changed(size=100)])
def test_a_change_counts_when_nothing_moves_any_more(signs: Signs) -> None:
    watching = Watching()
    assert watching.look(FIRST) == ()
    assert watching.look(signs) == ()
    assert watching.look(signs, STILL_S / 2) == ()
    assert watching.look(signs, STILL_S / 2) == ("a.txt changed",)
    watching.watch.took(signs)
    assert watching.look(signs) == ()


def test_a_file_that_is_written_in_parts_is_waited_for() -> None:
    watching = Watching()
    for size in range(1, 20):
        assert watching.look(changed(size, size)) == ()
    assert watching.look(changed(19, 19)) == ("a.txt changed",)


@pytest.mark.parametrize("signs", [{B: FIRST[B]}, changed(size=0)])
def test_what_is_gone_or_empty_may_come_back(signs: Signs) -> None:
    watching = Watching()
    assert watching.look(signs) == ()
    assert watching.look(signs, GONE_S - 0.1) == ()
    assert watching.look(changed(inode=77)) == ()
    assert watching.look(changed(inode=77)) == ("a.txt changed",)


def test_what_stays_away_is_gone() -> None:
    watching = Watching()
    assert watching.look({B: FIRST[B]}) == ()
    assert watching.look({B: FIRST[B]}, GONE_S) == ("a.txt is gone",)


def test_new_files_and_what_is_undone_in_time() -> None:
    watching = Watching()
    more = FIRST | {Path("c.txt"): (1, 12, 1, 1)}
    assert watching.look(more) == ()
    assert watching.look(more) == ("c.txt is new",)
    assert watching.look(FIRST) == ()
    assert watching.look(FIRST) == ()


def test_signs_follow_links_and_leave_out_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("bad.example\n")
    (tmp_path / "link.txt").symlink_to("a.txt")
    (tmp_path / "lost.txt").symlink_to("nowhere")
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    signs = read_signs(tmp_path / name for name in ("a.txt", "link.txt", "lost.txt", "folder.txt", "pipe.txt", "no"))
    assert set(signs) == {tmp_path / "a.txt", tmp_path / "link.txt"}
    assert len(set(signs.values())) == 1
    (tmp_path / "b.txt").write_text("worse.example\n")
    (tmp_path / "link.txt").unlink()
    (tmp_path / "link.txt").symlink_to("b.txt")  # as package and configuration tools swap them
    assert read_signs([tmp_path / "link.txt"]) != {tmp_path / "link.txt": signs[tmp_path / "link.txt"]}


def test_signs_move_with_permissions_and_with_old_times(tmp_path: Path) -> None:
    """A file that could not be read, and now can, is read; so is one of the same size that was copied with its time."""
    path = tmp_path / "a.txt"
    path.write_text("bad.example\n")
    first = read_signs([path])
    until_moved(path, first, lambda: path.chmod(0o600))
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    second = read_signs([path])

    def rewrite() -> None:
        path.write_text("bax.example\n")
        os.utime(path, ns=times)

    until_moved(path, second, rewrite)


def until_moved(path: Path, before: Signs, change: Callable[[], None]) -> None:
    """Change it until it shows: file systems keep time by the kernel's tick of some milliseconds."""
    for _ in range(100_000):
        change()
        if read_signs([path]) != before:
            return
    raise AssertionError("it never showed")
