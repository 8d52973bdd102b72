"""Upkeep: trouble with history costs history only, and is told for as long as it lasts."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from egressd.config.schema import Config
from egressd.runtime import screens
from egressd.runtime.canary import Canary
from egressd.runtime.keeping import BACKUP, Keeping
from tests.loops import in_loop
from tests.runtime.core_scene import site_at
from tests.runtime.scene import T0, Hands


@in_loop
async def test_history_that_cannot_be_kept_is_an_alarm(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    keeping = Keeping(tmp_path, Config(), tmp_path / "heads", Hands().clock())
    assert keeping.warnings() == []
    assert await keeping.open(T0) == ()
    assert keeping.history is None
    (told,) = keeping.warnings()
    assert told.startswith("HISTORY is not kept: ") and "history.db" in told
    keeping.close()


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


def blocked_in(ledger: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [text for (text,) in connection.execute("SELECT value FROM targets ORDER BY value")]
