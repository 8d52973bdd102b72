"""The file and its writer: grouped commits, savepoints, one owner, refusals, back-up."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

from egressd.store.db import Database
from egressd.store.errors import CLOSED, CORRUPT, IO, LOCKED, REQUEST, StoreError
from tests.loops import HANG_S, in_loop
from tests.store.scene import T0


def numbers_table(connection: Connection) -> None:
    connection.execute("CREATE TABLE n(i INTEGER UNIQUE)")


def put(connection: Connection, number: int) -> int:
    connection.execute("INSERT INTO n VALUES(?)", (number,))
    return number


def held(connection: Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT i FROM n ORDER BY i")]


class Held:
    """A call that occupies the writer until `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self._begun = threading.Event()

    async def begin(self, database: Database) -> asyncio.Task[bool]:
        task = asyncio.create_task(database.run(self._wait))
        await asyncio.to_thread(self._begun.wait, 10)
        return task

    def _wait(self, _: Connection) -> bool:
        self._begun.set()
        return self.gate.wait(HANG_S)


async def queued() -> None:
    """Every task that was made has queued its call: each makes its first step before this one makes the next."""
    await asyncio.sleep(0)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "x.db", steps=(numbers_table,), ballast_bytes=0)


@in_loop
async def test_a_burst_is_committed_in_groups_and_each_call_gets_its_own_value(database: Database) -> None:
    database.open(T0)
    held_up = Held()
    first = await held_up.begin(database)
    rest = [asyncio.create_task(database.run(put, number)) for number in range(500)]
    await queued()
    assert database.waiting == 500
    held_up.gate.set()
    assert await asyncio.gather(first, *rest) == [True, *range(500)]
    assert database.stats.calls == 501
    assert database.stats.commits < 20  # by work done in 20 ms; one for all on a fast machine
    database.close()


@in_loop
async def test_nobody_is_told_before_the_commit(database: Database) -> None:
    """The second call of a group runs while the first one's caller still waits."""
    database.open(T0)
    told_early: list[bool] = []
    held_up = Held()
    holding = await held_up.begin(database)
    one = asyncio.create_task(database.run(put, 1))
    two = asyncio.create_task(database.run(lambda _: told_early.append(one.done())))
    await queued()
    held_up.gate.set()
    await asyncio.gather(holding, one, two)
    assert told_early == [False]
    database.close()


@in_loop
async def test_one_that_fails_takes_no_other_down(database: Database) -> None:
    database.open(T0)

    def half(connection: Connection) -> None:
        put(connection, 100)
        raise ValueError("mine")

    results = await asyncio.gather(
        *(database.run(put, number) for number in (1, 2, 1)), database.run(half), database.run(put, 3),
        return_exceptions=True,
    )  # fmt: skip
    assert results[:2] == [1, 2] and results[4] == 3
    assert isinstance(results[2], StoreError) and results[2].kind == REQUEST and "UNIQUE" in str(results[2])
    assert isinstance(results[2].__cause__, sqlite3.IntegrityError)
    assert isinstance(results[3], ValueError)
    assert await database.read(held) == [1, 2, 3]
    assert database.stats.failed == 2
    database.close()


@in_loop
@pytest.mark.parametrize("value", [1 << 64, "\ud800"])
async def test_a_value_that_no_column_holds_is_the_callers_trouble(database: Database, value: object) -> None:
    database.open(T0)
    with pytest.raises(StoreError, match="no column can hold") as caught:
        await database.run(lambda connection: connection.execute("INSERT INTO n VALUES(?)", (value,)))
    assert caught.value.kind == REQUEST
    assert await database.run(put, 1) == 1
    database.close()


@in_loop
async def test_a_large_call_that_fails_is_undone_and_waits_with_nobody(database: Database) -> None:
    database.open(T0)

    def many(connection: Connection) -> None:
        for number in (1, 2, 3, 2):
            put(connection, number)

    held_up = Held()
    calls = [await held_up.begin(database)]
    work = (database.run(put, 10), database.run_large(many), database.run_large(put, 20), database.run(put, 30))
    calls += [asyncio.create_task(one) for one in work]  # type: ignore[arg-type]
    await queued()
    commits = database.stats.commits
    held_up.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [one if isinstance(one, int) else type(one) for one in results] == [True, 10, StoreError, 20, 30]
    assert await database.read(held) == [10, 20, 30]
    assert database.stats.commits - commits == 4  # of five: the failed one has none
    database.close()


@in_loop
async def test_a_read_cannot_write(database: Database) -> None:
    database.open(T0)
    with pytest.raises(StoreError, match="readonly"):
        await database.read(put, 1)
    assert await database.run(put, 1) == 1
    assert await database.read(held) == [1]
    database.close()


@in_loop
async def test_a_cancelled_call_that_had_not_begun_is_not_run(database: Database) -> None:
    database.open(T0)
    held_up = Held()
    holding = await held_up.begin(database)
    doomed = asyncio.create_task(database.run(put, 1))
    await queued()
    doomed.cancel()
    await asyncio.gather(doomed, return_exceptions=True)
    held_up.gate.set()
    await holding
    assert await database.read(held) == []
    database.close()


def test_close_finishes_what_waits_and_then_refuses(database: Database) -> None:
    database.open(T0)
    assert database.call(put, 5) == 5
    database.close()
    database.close()
    with pytest.raises(StoreError) as caught:
        database.call(put, 6)
    assert caught.value.kind == CLOSED
    database.open(T0)
    assert database.call(held) == [5]
    database.close()


def test_settings_of_the_connection(database: Database, tmp_path: Path) -> None:
    database.open(T0)
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "locking_mode": "exclusive"}
    for name, value in wanted.items():
        assert database.call(lambda connection, n=name: connection.execute(f"PRAGMA {n}").fetchone()[0]) == value
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    with pytest.raises(sqlite3.OperationalError, match="locked"):  # nobody can get in beside it
        sqlite3.connect(tmp_path / "x.db", timeout=0).execute("SELECT * FROM n").fetchall()
    database.close()


def test_a_looser_mode_is_mended(database: Database, tmp_path: Path) -> None:
    (tmp_path / "x.db").touch(0o644)
    database.open(T0)
    assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o600
    database.close()


def test_the_second_owner_is_refused_and_told_whose_it_is(database: Database, tmp_path: Path) -> None:
    database.open(T0)
    other = Database(tmp_path / "x.db", steps=(numbers_table,))
    with pytest.raises(StoreError, match=f"process {os.getpid()}; stop it first") as caught:
        other.open(T0)
    assert caught.value.kind == LOCKED
    database.close()
    other.open(T0)
    other.close()


def test_a_forked_child_does_not_hold_the_lock_when_its_parent_is_gone(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from egressd.store.lockfile import LockFile\n"
        "LockFile(pathlib.Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    print('child', flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "sys.stdout.flush()\n"
        "os._exit(0)\n"
    )
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        assert parent.stdout.readline() == b"child\n"
        parent.wait(HANG_S)
        again = subprocess.run(
            [sys.executable, "-c", script.split("if os.fork")[0], str(lock)], check=False, timeout=HANG_S
        )
        parent.stdin.close()
    assert again.returncode == 0


@pytest.mark.parametrize("where", ["middle", "start"])
def test_a_damaged_file_is_refused_with_advice(database: Database, tmp_path: Path, where: str) -> None:
    database.open(T0)
    database.call(lambda connection: [put(connection, number) for number in range(20_000)])
    database.close()
    path = tmp_path / "x.db"
    raw = bytearray(path.read_bytes())
    at = 0 if where == "start" else len(raw) // 2
    raw[at : at + 8192] = os.urandom(8192)
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="backup") as caught:
        database.open(T0)
    assert caught.value.kind == CORRUPT
    with pytest.raises(StoreError):  # nor is the lock left held
        database.open(T0)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must be able to write") as caught:
        Database(tmp_path / "no" / "x.db", steps=(numbers_table,)).open(T0)
    assert caught.value.kind == IO


@in_loop
async def test_checkpoint_empties_the_log(database: Database, tmp_path: Path) -> None:
    database.open(T0)
    await database.run(lambda connection: [put(connection, number) for number in range(1000)])
    done = await database.checkpoint()
    assert done.log_pages == done.moved_pages > 0
    size = (tmp_path / "x.db-wal").stat().st_size
    for number in range(1000, 1020):
        await database.run(put, number)
        await database.checkpoint()
    assert (tmp_path / "x.db-wal").stat().st_size <= max(size, 200_000)  # written over, not grown
    database.close()


@in_loop
async def test_a_backup_is_a_whole_ledger_of_its_own(database: Database, tmp_path: Path) -> None:
    database.open(T0)
    await database.run(put, 1)
    copy = tmp_path / "copy.db"
    copy.write_bytes(b"the last one")
    assert await database.backup(copy) == copy.stat().st_size
    await database.run(put, 2)
    database.close()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    restored = Database(copy, steps=(numbers_table,))
    assert restored.open(T0) == []
    assert restored.call(held) == [1]
    restored.close()


@in_loop
async def test_a_backup_that_cannot_be_made_leaves_the_old_one(database: Database, tmp_path: Path) -> None:
    database.open(T0)
    with pytest.raises(StoreError, match="no backup"):
        await database.backup(tmp_path / "no" / "copy.db")
    assert await database.run(put, 1) == 1
    database.close()


@in_loop
async def test_a_backup_into_a_folder_that_was_closed_is_refused_and_no_more(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes the permissions of a folder above away, or the disk becomes read-only: upkeep goes on."""
    database.open(T0)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(StoreError, match="no backup: Permission denied"):
        await database.backup(tmp_path / "copy.db")
    monkeypatch.undo()
    assert await database.run(put, 1) == 1
    database.close()


def test_a_ledger_in_a_folder_that_was_closed_is_not_one_that_was_taken_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm's advice is to put the last copy in its place."""
    database.open(T0)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as closed:
        closed.setattr(Path, "stat", refused)
        assert not database.is_displaced()
    assert not database.is_displaced()
    database.path.unlink()
    assert database.is_displaced()
    database.close()


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A disk that can be written, or not. (Root, who may run this, is refused nothing by permissions.)"""
    real, state = os.open, {"read-only": False}

    def open_(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if state["read-only"] and flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", open_)
    return lambda now: state.update({"read-only": now})


def in_memory(path: Path) -> Database:
    return Database(path, steps=(numbers_table,), ballast_bytes=0, may_be_in_memory=True)


@pytest.mark.parametrize("crashed", [False, True])
def test_a_read_only_disk_is_no_reason_not_to_start(
    tmp_path: Path, read_only: Callable[[bool], None], crashed: bool
) -> None:
    path = tmp_path / "l.db"
    first = in_memory(path)
    first.open(T0)
    assert not first.in_memory
    first.call(put, 1)
    if crashed:  # what is in the log alone must not be lost
        for ending in ("", "-wal"):
            shutil.copy(tmp_path / f"l.db{ending}", tmp_path / f"kept{ending}")
    first.close()
    if crashed:
        for ending in ("", "-wal"):
            (tmp_path / f"kept{ending}").rename(tmp_path / f"l.db{ending}")
        assert (tmp_path / "l.db-wal").stat().st_size > 0
    read_only(True)
    with pytest.raises(StoreError, match="Read-only file system"):  # as history, which may be too large for memory
        Database(path, steps=(numbers_table,), ballast_bytes=0).open(T0)
    second = in_memory(path)
    second.open(T0)
    assert second.in_memory and not second.is_displaced()
    second.call(put, 2)
    assert second.call(held) == [1, 2]
    with pytest.raises(StoreError, match="Read-only file system"):
        asyncio.run(second.save())
    read_only(False)
    asyncio.run(second.save())
    second.call(put, 3)
    second.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["l.db", "l.db.lock"]
    third = in_memory(path)
    third.open(T0)
    assert (third.call(held), third.in_memory) == ([1, 2, 3], False)
    third.close()


def test_what_is_not_there_cannot_be_read_from_a_read_only_disk(
    tmp_path: Path, read_only: Callable[[bool], None]
) -> None:
    (tmp_path / "l.db.lock").touch()
    read_only(True)
    with pytest.raises(StoreError, match="egressd must be able to write it"):
        in_memory(tmp_path / "l.db").open(T0)
