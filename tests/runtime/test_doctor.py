"""What `egressd doctor` finds wrong is said with what to do."""

from __future__ import annotations

from pathlib import Path

from egressd.runtime.doctor import Findings, _lists
from tests.loops import in_loop
from tests.runtime.core_scene import site_at


@in_loop
async def test_empty_lists_are_said_to_be_empty(tmp_path: Path) -> None:
    """After `make install` it said `FAILED: 0`."""
    async with site_at(tmp_path) as site:
        (tmp_path / "csirt.txt").write_text("# none yet\n")
        await site.do("reload", force=True)
        found = Findings()
        _lists(site.core, found)
        (one,) = found.checks
        assert (one["ok"], one["detail"]) == (
            False,
            "nothing is listed, so nothing is found: put something into your lists",
        )
