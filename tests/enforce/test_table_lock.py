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
import os, sys
from egressd.enforce.table_lock import TableLock
lock = TableLock(bytes.fromhex(sys.argv[1]))
if len(sys.argv) > 2:
    os.setuid(int(sys.argv[2]))
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
    assert child.stdout is not None and child.stdout.readline() == "True\n"
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
