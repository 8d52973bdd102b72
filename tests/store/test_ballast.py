"""A full disk: what must be recorded still is, nothing acknowledged is lost, and it mends itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from egressd.store import decision_rows, decisions
from egressd.store.ballast import Ballast
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.errors import FULL, StoreError
from egressd.store.history import Contact, History
from egressd.store.ledger import open_ledger
from egressd.store.migrations import LEDGER
from tests.loops import in_loop
from tests.store.scene import ANNA, T0, A, about, put, verdict, verify

BALLAST = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs: sudo -E make test")
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(mount)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {made.stderr.decode(errors='replace').strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(folder: Path) -> Path:
    """Somebody else uses up the disk."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


@in_loop
async def test_a_folder_that_was_closed_is_no_trouble_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes the permissions of a folder above away: it ended the daemon with the next checkpoint."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    ledger = open_ledger(tmp_path / "ledger.db", T0, BALLAST)
    put(ledger)
    with monkeypatch.context() as closed:
        for owner, name in ((Path, "stat"), (Path, "unlink"), (os, "statvfs"), (os, "open")):
            closed.setattr(owner, name, refused)
        assert (await ledger.checkpoint()).log_pages > 0
        assert not Ballast(tmp_path / "ledger.db.ballast", BALLAST).free()
    assert not ledger.low_on_space
    ledger.close()


@pytest.mark.root
def test_a_disk_without_room_for_the_ballast(disk: Path) -> None:
    ledger = open_ledger(disk / "ledger.db", T0)
    try:
        assert ledger.low_on_space and not (disk / "ledger.db.ballast").exists()
        put(ledger)
    finally:
        ledger.close()


async def commit_until_full(ledger: Database, acknowledged: list[str]) -> StoreError:
    for number in range(100_000):
        domain = f"x{number}.example"
        try:
            made = await ledger.run(decisions.commit, verdict(domain), [NewTarget(about(domain))], "x")
        except StoreError as error:
            return error
        acknowledged.append(made)
    raise AssertionError("the disk never got full")


@pytest.mark.root
@in_loop
async def test_a_full_disk(disk: Path) -> None:
    ledger = open_ledger(disk / "ledger.db", T0, BALLAST)
    first = await ledger.run(decisions.commit, verdict(), [NewTarget(about())], "x")
    acknowledged = [first]
    filler = fill(disk)
    assert (disk / "ledger.db.ballast").stat().st_size == BALLAST
    error = await commit_until_full(ledger, acknowledged)
    assert error.kind == FULL and "free space on it" in str(error)
    assert len(acknowledged) > 200, "the ballast took so many decisions with their audit rows"
    assert ledger.low_on_space and not (disk / "ledger.db.ballast").exists()
    with pytest.raises(StoreError, match="full"):  # still; nothing is half done
        await ledger.run(decisions.commit, verdict("y.example"), [NewTarget(about("y.example"))], "x")
    with pytest.raises(StoreError, match="full"):
        await ledger.checkpoint()
    assert ledger.low_on_space
    found = {row.id for row in await ledger.read(decision_rows.load_open)}
    assert found == set(acknowledged)
    filler.unlink()
    again = await ledger.run(decisions.commit, verdict("y.example"), [NewTarget(about("y.example"))], "x")
    await ledger.checkpoint()
    assert not ledger.low_on_space and (disk / "ledger.db.ballast").stat().st_size == BALLAST
    ledger.close()
    ledger = open_ledger(disk / "ledger.db", T0, BALLAST)
    assert {row.id for row in ledger.call(decision_rows.load_open)} == {*acknowledged, again}
    assert ledger.call(verify).ok
    ledger.close()


@pytest.mark.root
@in_loop
async def test_of_a_group_what_fits_is_committed(disk: Path) -> None:
    """One call that needs more than there is must not take those beside it down."""
    ledger = open_ledger(disk / "ledger.db", T0, BALLAST)
    fill(disk)
    much = [NewTarget(about(f"{number}.{'x' * 60}.example")) for number in range(30_000)]
    results = await asyncio.gather(
        ledger.run(decisions.commit, verdict("a.example"), [NewTarget(about("a.example"))], "x"),
        ledger.run(decisions.commit, verdict("b.example"), much, "x"),
        ledger.run(decisions.commit, verdict("c.example"), [NewTarget(about("c.example"))], "x"),
        return_exceptions=True,
    )
    assert isinstance(results[1], StoreError) and results[1].kind == FULL
    assert [row.match.registered_domain for row in await ledger.read(decision_rows.load_open)] == [
        "a.example",
        "c.example",
    ]
    assert (await ledger.read(verify)).ok
    ledger.close()


@pytest.mark.root
@in_loop
async def test_history_leaves_the_rest_of_the_disk_to_the_ledger(disk: Path) -> None:
    history = History(disk / "history.db", reserve_bytes=4 << 20)
    history.open(T0)
    rows = [Contact(A, "a.example", f"{number}.a.example", b"", T0, T0, 1) for number in range(500)]
    assert await history.record(rows) == [] and history.stats.dropped == 0
    filler = fill(disk)
    assert await history.record(rows) == []
    assert (history.stats.recorded, history.stats.dropped) == (500, 500)
    filler.unlink()
    await history.record(rows)
    assert history.stats.recorded == 1000
    history.close()


def test_ballast(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "x.ballast", BALLAST)
    assert not ballast.held() and not ballast.free()
    assert ballast.refill() and ballast.held() and ballast.refill()
    assert (tmp_path / "x.ballast").stat().st_blocks * 512 >= BALLAST  # real blocks, not a hole
    assert ballast.free() and not ballast.held()
    none = Ballast(tmp_path / "y.ballast", 0)
    assert none.refill() and not none.held() and not none.free()
    assert not Ballast(tmp_path / "no" / "z", BALLAST).refill()


def test_a_ledger_without_ballast_says_so_at_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger.db", T0, 0)
    put(ledger)
    assert not (tmp_path / "ledger.db.ballast").exists()
    ledger.call(decisions.end, "D1", "undone", T0, "uid:anna", "", ANNA)
    ledger.close()


@pytest.mark.root
def test_a_ledger_of_an_earlier_version_on_a_full_disk(disk: Path) -> None:
    """The update is what the administrator does first when the disk is full, and the gateway was without its watch."""
    old = Database(disk / "ledger.db", steps=LEDGER[:3], ballast_bytes=BALLAST)
    old.open(T0)
    old.close()
    filler = fill(disk)
    new = open_ledger(disk / "ledger.db", T0, BALLAST)
    try:
        assert new.low_on_space and "NO COPY" in new.upgraded
        put(new)
        filler.unlink()
    finally:
        new.close()
