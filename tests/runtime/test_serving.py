"""What the daemon's own sockets count is a metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from egressd.config.schema import Config
from egressd.metrics.exposition import render
from egressd.runtime.canary import Canary
from egressd.runtime.feeding import Feeding
from egressd.runtime.keeping import Keeping
from egressd.runtime.serving import Serving
from egressd.runtime.vitals import Vitals
from tests.loops import in_loop
from tests.runtime.core_scene import CONFIG, site_at


@in_loop
async def test_who_was_turned_away_is_a_metric(tmp_path: Path) -> None:
    """It was counted, and nobody could see it."""
    async with site_at(tmp_path, config=CONFIG + "metrics: {port: 0}\n") as site:
        core = site.core
        adapters: Any = site.kernel
        adapters.adapters = list
        canary = Canary(core.clock, core.enforcement, core.sensing.canaries)
        keeping = Keeping(tmp_path, Config(), tmp_path / "heads", core.clock)
        serving = Serving(core, core.clock, canary, keeping, Feeding(core, tmp_path), Vitals(core.clock), ())
        control, metrics = serving.control(), await serving.metrics()
        assert metrics is not None
        try:
            control.stats.busy, control.stats.evicted, control.stats.expired = 1, 2, 4
            metrics.stats.refused, metrics.stats.cut_off = 8, 16
            told = render(serving._snapshot())[0].decode()
        finally:
            await metrics.close()
    assert 'egressd_turned_away_total{socket="control"} 7.0\n' in told
    assert 'egressd_turned_away_total{socket="metrics"} 24.0\n' in told
