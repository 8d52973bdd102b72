"""Upkeep: trouble with history costs history only, and is told for as long as it lasts."""

from __future__ import annotations

from pathlib import Path

from egressd.config.schema import Config
from egressd.runtime.keeping import Keeping
from tests.loops import in_loop
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
