"""Files of lists that many change at once: no change is lost, what else a file is stays, refusals leave it alone."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from egressd.store.list_files import FileRefused, edit_list, read_list
from tests.loops import HANG_S

ROOT = Path(__file__).resolve().parent.parent.parent


def _add(path: str, number: int) -> None:
    edit_list(Path(path), lambda text: text + f"{number}.example\n")


def test_a_hundred_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"# head\n")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(str(path), number)) for number in range(100)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(HANG_S)
    assert [one.exitcode for one in workers] == [0] * 100
    lines = path.read_text().splitlines()
    assert lines[0] == "# head"
    assert sorted(lines[1:]) == sorted(f"{number}.example" for number in range(100))
    assert [one.name for one in tmp_path.iterdir()] == ["list.txt"]


def test_a_hundred_threads_lose_nothing_and_make_one_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"

    def add(number: int) -> None:
        edit_list(path, lambda text: text + f"{number}.example\n", may_be_new=True)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(100)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(HANG_S)
    assert len(set(path.read_text().splitlines())) == 100


@pytest.mark.parametrize("in_place", [True, False])
def test_what_an_editor_saved_meanwhile_is_kept(tmp_path: Path, in_place: bool) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    calls = []

    def change(text: str) -> str:
        if not calls:  # an editor takes no lock
            other = path if in_place else tmp_path / "other"
            other.write_text("a.example\nb.example\n")
            other.rename(path)
        calls.append(text)
        return text + "c.example\n"

    assert edit_list(path, change).before == "a.example\nb.example\n"
    assert path.read_text() == "a.example\nb.example\nc.example\n"
    assert len(calls) == 2


def test_a_new_file_that_somebody_made_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"

    def change(text: str) -> str:
        if not path.exists():
            path.write_text("a.example\n")
        return text + "b.example\n"

    edit_list(path, change, may_be_new=True)
    assert path.read_text() == "a.example\nb.example\n"


def test_a_file_that_never_rests_is_left(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("")

    def change(text: str) -> str:
        path.write_text(text + "other\n")
        return text + "ours\n"

    with pytest.raises(FileRefused, match="changes all the time"):
        edit_list(path, change)
    assert "ours" not in path.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["list.txt"]


def test_an_empty_file_is_given_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that writes in place has emptied it, and writes now."""
    path = tmp_path / "list.txt"
    path.write_text("")
    monkeypatch.setattr("egressd.store.list_files.time.sleep", lambda _: path.write_text("a.example\n"))
    edit_list(path, lambda text: text + "b.example\n")
    assert path.read_text() == "a.example\nb.example\n"


def test_bytes_and_mode_stay(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa.example\r\n# caf\xc3\xa9")
    path.chmod(0o640)
    edit = edit_list(path, lambda text: text + "\r\nb.example\r\n")
    assert path.read_bytes() == b"\xef\xbb\xbfa.example\r\n# caf\xc3\xa9\r\nb.example\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (edit.path, edit.after) == (path, read_list(path))
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
        edit_list(path, lambda text: text + "# x\n")
        assert (path.stat().st_uid, path.stat().st_gid) == (12, 34)


def test_what_does_not_change_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n")
    before = path.stat()
    edit_list(path, lambda text: text)
    assert path.stat() == before


@pytest.mark.parametrize(("folder", "mode"), [(0o755, 0o644), (0o750, 0o640), (0o770, 0o660), (0o700, 0o600)])
def test_a_new_file_is_readable_for_whom_its_folder_is(tmp_path: Path, folder: int, mode: int) -> None:
    inside = tmp_path / "lists.d"
    inside.mkdir()
    inside.chmod(folder)
    path = inside / "local.txt"
    edit_list(path, lambda _: "a\n", may_be_new=True)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.stat().st_nlink == 1


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "git").mkdir()
    target = tmp_path / "git" / "list.txt"
    target.write_text("a\n")
    link = tmp_path / "list.txt"
    link.symlink_to("git/list.txt")
    assert edit_list(link, lambda text: text + "b\n").path == target
    assert link.is_symlink() and target.read_text() == "a\nb\n"


def test_what_change_raises_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n")

    def change(text: str) -> str:
        raise KeyError(text)

    with pytest.raises(KeyError):
        edit_list(path, change)
    assert path.read_text() == "a\n"
    edit_list(path, lambda text: text + "b\n", wait_s=0)  # the lock is free again


def test_what_is_refused(tmp_path: Path) -> None:
    for name in ("absent.txt", "absent/list.txt", "folder", "pipe", "latin.txt"):
        path = tmp_path / name
        if name == "folder":
            path.mkdir()
        elif name == "pipe":
            os.mkfifo(path)
        elif name == "latin.txt":
            path.write_bytes(b"caf\xe9\n")
        with pytest.raises(FileRefused) as refused:
            edit_list(path, lambda text: text + "a\n")
        assert name.split("/")[0] in str(refused.value)
    with pytest.raises(FileRefused) as refused:
        edit_list(tmp_path / "a\x1b[2J.txt", lambda text: text + "a\n")
    assert "\x1b" not in str(refused.value)


def test_a_lock_that_is_held_is_told(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n")
    number = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    with pytest.raises(FileRefused, match="is locked by another process"):
        edit_list(path, lambda text: text + "b\n", wait_s=0)
    os.close(number)
    assert path.read_text() == "a\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n")
    path.chmod(0o444)
    with pytest.raises(FileRefused, match="Permission denied; it is as it was"):
        edit_list(path, lambda text: text + "b\n")


def test_importing_it_opens_no_database() -> None:
    code = "import sys, egressd.store.list_files; print('sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"
