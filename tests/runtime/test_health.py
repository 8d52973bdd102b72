"""Every number that /metrics shows is somebody's."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from egressd.config.schema import Config
from egressd.metrics.snapshot import Snapshot
from egressd.runtime import health
from egressd.runtime.canary import Canary
from egressd.runtime.keeping import Keeping
from egressd.runtime.vitals import Vitals
from tests.loops import in_loop
from tests.runtime.core_scene import site_at


def watched() -> Any:
    volume = SimpleNamespace(out_bytes=5_000, in_bytes=6_000, uncounted=4, evicted=7)
    return SimpleNamespace(problem="", unobserved=8, told=9, lost=1, untold=2, volume=volume)


@in_loop
async def test_no_metric_stays_at_zero_for_want_of_somebody_who_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the audit chain were 0 whatever stood in the ledger."""
    given: dict[str, Any] = {}

    def taken(**numbers: Any) -> Snapshot:
        given.update(numbers)
        return Snapshot(**numbers)

    monkeypatch.setattr(health, "Snapshot", taken)
    async with site_at(tmp_path) as site:
        core = site.core
        adapters: Any = site.kernel
        adapters.adapters = list
        core.volume = watched()
        canary = Canary(core.clock, core.enforcement, core.sensing.canaries)
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", core.clock)
        told = health.snapshot_of(core, canary, keeping, {}, Vitals(core.clock), {})
        core.volume = None
        none = health.snapshot_of(core, canary, keeping, {}, Vitals(core.clock), {})
    assert given.keys() == {one.name for one in fields(Snapshot)}
    assert (told.volume_observed, told.volume_not_observed, told.volume_alerts, told.volume_lost) == (1, 8, 9, 7)
    assert (told.volume_out_bytes, told.volume_in_bytes, told.table_evictions["volume"]) == (5_000, 6_000, 7)
    assert (none.volume_observed, none.volume_out_bytes, none.table_evictions["volume"]) == (0, 0, 0)
