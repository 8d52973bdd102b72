"""One egressd alone has the table of a network namespace; who only takes its name keeps none from its work."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from egressd.enforce import table_lock
from egressd.enforce.table_lock import TableHeld, TableLock

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import ctypes, os, sys
from egressd.enforce.table_lock import TableLock
lock = TableLock(bytes.fromhex(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
if "keep" in sys.argv:
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
if len(sys.argv) > 2:
    os.setuid(int(sys.argv[2]))
if "own" in sys.argv and libc.unshare(0x10000000):  # CLONE_NEWUSER
    print(os.strerror(ctypes.get_errno()), flush=True)
    sys.exit()
lock.take()
print(lock.is_held, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name() -> bytes:
    return b"\0egressd-test-" + secrets.token_hex(8).encode()


def holding(name: bytes, *user: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, name.hex(), *user], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    said = child.stdout.readline()
    if said != "True\n":
        child.wait()
        pytest.skip(said.strip())
    return child


def test_one_has_it_until_it_lets_go_or_dies(name: bytes) -> None:
    lock = TableLock(name)
    with holding(name) as child:
        with pytest.raises(TableHeld, match=rf"another egressd \(process {child.pid}\) has the table inet egressd"):
            lock.take()
        assert (lock.is_held, lock.fileno(), lock.problem) == (False, -1, "")
        child.kill()
        child.wait()
    lock.take()
    lock.take()  # it has it already
    other = TableLock(name)
    for _ in range(40):  # more than wait to be answered
        with pytest.raises(TableHeld):
            other.take()
        lock.answer()
    lock.release()
    lock.release()
    other.take()
    assert other.is_held
    other.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_somebody_who_takes_the_name_keeps_nobody_from_the_table(name: bytes) -> None:
    lock = TableLock(name)
    with holding(name, "54321") as child:
        lock.take()
        assert not lock.is_held
        told = f"another egressd would not be noticed: process {child.pid} of user 54321 has taken its name"
        assert lock.problem == told
        child.kill()
    lock.take()
    assert (lock.is_held, lock.problem) == (True, "")
    lock.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_egressd_of_any_user_is_known_by_its_right_to_change_the_table(name: bytes) -> None:
    with holding(name, "54321", "keep") as child:
        with pytest.raises(TableHeld, match=rf"another egressd \(process {child.pid}\)"):
            TableLock(name).take()
        child.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_the_rights_in_a_user_namespace_of_ones_own_are_none_here(name: bytes) -> None:
    lock = TableLock(name)
    with holding(name, "54321", "own") as child:
        assert "CapPrm:\t000001ff" in Path(f"/proc/{child.pid}/status").read_text()
        lock.take()
        assert not lock.is_held and "user 54321 has taken its name" in lock.problem
        child.kill()


def test_of_who_cannot_be_looked_at_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_lock, "_PROC", tmp_path)
    assert not table_lock._may_change_tables(7, 0)
    for one in ("7", "self"):
        (tmp_path / one).mkdir()
        (tmp_path / one / "uid_map").write_text("0 0 4294967295\n")
    for status, may in (
        ("Uid:\t5\t5\t5\t5\nCapPrm:\t0000000000001000\n", True),
        ("Uid:\t6\t6\t6\t6\nCapPrm:\t0000000000001000\n", False),
        ("Uid:\t5\t5\t5\t5\nCapPrm:\t0000000000000fff\n", False),
        ("Uid:\t5\n", False),
        ("Uid:\tx\tx\nCapPrm:\tx\n", False),
        ("Uid:\t5\t5\n", False),
    ):
        (tmp_path / "7" / "status").write_text(status)
        assert table_lock._may_change_tables(7, 5) is may, status


def test_a_name_that_nobody_answers_at(name: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(name)
        lock = TableLock(name)
        lock.take()
    assert not lock.is_held
    assert lock.problem == "another egressd would not be noticed: its name is taken (Connection refused)"


def test_the_user_of_the_unit_counts(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    monkeypatch.setattr(table_lock, "USER", "nobody")
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    with holding(name, "65534") as child:
        with pytest.raises(TableHeld):
            TableLock(name).take()
        child.kill()
