"""Upkeep: trouble with history costs history only, and is told for as long as it lasts."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from egressd.config.schema import Config
from egressd.runtime import screens
from egressd.runtime.canary import Canary
from egressd.runtime.keeping import BACKUP, Keeping
from egressd.runtime.orders import Learn
from egressd.store import decision_rows
from egressd.store.history import Contact, History, Tenant
from egressd.store.past import Hit, hits_of_domains
from egressd.units import DAY_US
from tests.loops import in_loop
from tests.runtime.core_scene import site_at
from tests.runtime.scene import T0, A, B, Hands, X, sighting
from tests.runtime.test_core import LISTED


async def hits(keeping: Keeping, domain: str) -> list[Hit]:
    return await keeping.history.ask(hits_of_domains, [domain], 0, 9)


@in_loop
async def test_history_that_cannot_be_kept_is_an_alarm(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    keeping = Keeping(tmp_path, Config(), tmp_path / "heads", Hands().clock())
    assert keeping.warnings() == []
    assert await keeping.open(T0) == ()
    assert not keeping.history.is_open
    (told,) = keeping.warnings()
    assert told.startswith("HISTORY is not kept: ") and "history.db" in told
    keeping.close()


@in_loop
async def test_history_that_could_not_be_opened_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It took a restart: whoever was there meanwhile was not found by what is listed later."""
    before = History(tmp_path / "history.db")
    before.open(T0)
    contact = Contact(B, "here.example", "here.example", X, T0 - 9 * DAY_US, T0 - 9 * DAY_US, 1)
    await before.record([contact], [Tenant("lives.example", X, T0, T0, 1)])  # and has it open
    async with site_at(tmp_path) as site:
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", Hands().clock())
        hunted: list[object] = []
        site.core.on_news = hunted.append
        assert await keeping.open(T0) == ()
        for _ in range(2):
            site.core.learning.keep([(A, "bad.example", "c2.bad.example", X, T0, T0, 1)])
            await keeping.flush(site.core)
            await keeping.open_again(site.core)
        assert (keeping.dropped, len(keeping.warnings()), hunted) == (2, 1, [])
        assert [record.getMessage()[:19] for record in caplog.records] == ["history is not kept"], "once"
        before.close()
        await keeping.open_again(site.core)
        assert (keeping.warnings(), hunted) == ([], [None]), "what is listed is searched for"
        lives = (("lives.example", X, T0),)
        assert site.core.learning.tenants == lives and Learn(lives) in site.told
        knew = site.core.acquaintances.knew
        assert knew(B, B, T0) and not knew(A, A, T0), "who was here before the start"
        site.core.learning.keep([(A, "bad.example", "c2.bad.example", X, T0, T0, 1)])
        await keeping.flush(site.core)
        assert [one.name for one in await hits(keeping, "bad.example")] == ["c2.bad.example"]
        keeping.close()


@in_loop
async def test_damaged_history_that_cannot_be_moved_aside_ends_nothing(tmp_path: Path) -> None:
    """The daemon ended for it, and again after each start."""
    (tmp_path / "history.db.damaged" / "full").mkdir(parents=True)
    async with site_at(tmp_path) as site:
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", Hands().clock())
        await keeping.open(T0)
        row = (A, "bad.example", "c2.bad.example", X, T0, T0, 1)
        site.core.learning.keep([row] * 2_000)
        await keeping.flush(site.core)
        damage(tmp_path / "history.db", keeping)
        for _ in range(2):
            site.core.learning.keep([row] * 2_000)
            await keeping.flush(site.core)
            (told,) = keeping.warnings()
            assert told.startswith("HISTORY is not kept: ") and "cannot be moved aside" in told
            await keeping.open_again(site.core)
        assert keeping.dropped == 4_000
        (tmp_path / "history.db.damaged" / "full").rmdir()
        (tmp_path / "history.db.damaged").rmdir()
        await keeping.open_again(site.core)
        assert keeping.warnings() == [] and (tmp_path / "history.db.damaged").is_file()
        keeping.close()


def damage(path: Path, keeping: Keeping) -> None:
    """All pages but the first two are gone, as only shows when they are read."""
    keeping.history.close()
    raw = path.read_bytes()
    path.write_bytes(raw[:8192] + os.urandom(len(raw) - 8192))
    keeping.history._database.open(T0, check=False)


@in_loop
async def test_the_ledger_is_copied_once_a_day(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        hands = Hands()
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", hands.clock())
        copy = tmp_path / BACKUP
        now_s = hands.clock().now_us() // 1_000_000
        await site.do("block", what="first.example")
        await keeping.back_up(site.core)
        os.utime(copy, (now_s, now_s))
        await site.do("block", what="second.example")
        await keeping.back_up(site.core)  # a day is not over
        assert blocked_in(copy) == ["first.example"]
        for age_s in (86_400, -3_600):  # a day old; from before the clock was set back
            os.utime(copy, (now_s - age_s, now_s - age_s))
            await keeping.back_up(site.core)
            assert blocked_in(copy) == ["first.example", "second.example"]
            assert abs(copy.stat().st_mtime - time.time()) < 60


@in_loop
async def test_a_ledger_that_was_taken_away_is_an_alarm_and_saved(tmp_path: Path) -> None:
    """Everything went on into a file that nobody could find any more, without a word."""
    async with site_at(tmp_path) as site:
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", Hands().clock())
        await site.do("block", what="first.example")
        await keeping.save_displaced(site.core)
        assert keeping.warnings() == [] and not (tmp_path / BACKUP).exists()
        site.core.ledger.path.unlink()
        await keeping.save_displaced(site.core)
        (told,) = keeping.warnings()
        site.core.enforcement.adapters = list  # type: ignore[method-assign]
        canary = Canary(site.core.clock, site.core.enforcement, {})
        shown = await screens.status(site.core, canary, 0.0, False, 0.0, keeping.warnings(), ["more"])
        assert (shown["warnings"][0], shown["warnings"][-1]) == (told, "more"), "first, for few are shown"
        assert told.startswith("the LEDGER was removed or replaced")
        assert blocked_in(tmp_path / BACKUP) == ["first.example"]
        await site.do("block", what="second.example")
        site.core.ledger.path.touch()  # another file
        await keeping.save_displaced(site.core)
        assert blocked_in(tmp_path / BACKUP) == ["first.example", "second.example"]


@in_loop
async def test_a_clock_that_jumps_years_ahead_makes_nobody_forget(tmp_path: Path) -> None:
    """A dead battery, a mistyped year: five minutes later all history and every ended decision was deleted."""
    years_s = 70 * 365 * 86_400
    async with site_at(tmp_path) as site:
        hands = Hands()
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", hands.clock())
        await keeping.open(T0, T0)
        contact = Contact(A, "old.example", "old.example", b"", T0, T0, 1)
        await keeping.history.record([contact])
        await site.do("block", what="ended.example")
        await site.do("undo", id="D2")
        for set_s in (0, years_s, 0):
            keeping._clock = Hands(T0 + (3_600 + set_s) * 1_000_000).clock()
            await keeping.upkeep(site.core)
            assert len(await hits(keeping, "old.example")) == 1
            assert await site.ledger.read(decision_rows.load, "D2") is not None
        keeping.close()


@in_loop
async def test_the_event_log_hears_of_what_is_closed_because_it_is_quiet(tmp_path: Path) -> None:
    hands = Hands()
    async with site_at(tmp_path, hands=hands) as site:
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", hands.clock())
        await keeping.open(T0)
        site.sees(sighting(found=LISTED))
        await site.do("ack", incident="I1")
        keeping._ageing = SimpleNamespace(now_us=lambda clock_us, steady_s: clock_us)  # type: ignore[assignment]
        for _ in range(2):
            await keeping.upkeep(site.core)
            hands.pass_s(31 * 86_400)
        told = [one["egressd"] for one in site.ears.records if one["event_type"] == "incident"]
        assert [(one["incident"], one["state"]) for one in told] == [("I1", "opened"), ("I1", "closed")]
        assert told[1]["reason"] == "somebody had it in hand, and its host was quiet for 30 days"
        keeping.close()


@in_loop
async def test_who_lives_where_is_not_what_a_wrong_clock_saw(tmp_path: Path) -> None:
    """Minutes in 2099 made an address shared at every start from then on, and kept it from being blocked."""
    address = bytes([203, 0, 113, 9])
    times_us = {"now.example": T0, "old.example": T0 - 2 * DAY_US, "wrong.example": T0 + 70 * 365 * DAY_US}
    for now_us in (T0 + 5, 60_000_000):  # and by a clock that is not set yet
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", Hands().clock())
        await keeping.open(T0)
        await keeping.history.record([], [Tenant(name, address, at, at, 1) for name, at in times_us.items()])
        keeping.close()
        again = Keeping(tmp_path, Config(), tmp_path / "heads", Hands().clock())
        assert await again.open(now_us, T0) == (("now.example", address, T0),)
        again.close()


@in_loop
async def test_heads_that_cannot_be_read_hold_up_no_other_upkeep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of root's: history grew without end, nothing was moved out of the log, and no copy was made any more."""
    heads = tmp_path / "heads"
    heads.mkdir()
    async with site_at(tmp_path) as site:
        await site.do("block", what="first.example")
        keeping = Keeping(tmp_path, Config(), heads, Hands(T0 + 400 * 86_400 * 1_000_000).clock())
        await keeping.open(T0)
        await keeping.history.record([Contact(A, "old.example", "old.example", b"", T0, T0, 1)])
        await keeping.upkeep(site.core)
        assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == [
            f"upkeep: {heads}: Is a directory"
        ]
        assert await hits(keeping, "old.example") == []
        assert blocked_in(tmp_path / BACKUP) == ["first.example"]
        keeping.close()


def blocked_in(ledger: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [text for (text,) in connection.execute("SELECT value FROM targets ORDER BY value")]
