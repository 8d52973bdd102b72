"""What the daemon's own sockets count is a metric, metrics hold up nothing, and nobody waits at the control socket."""

from __future__ import annotations

import asyncio
import errno
import logging
from pathlib import Path
from typing import Any

import pytest

from egressd.config.schema import Config
from egressd.metrics.exposition import render
from egressd.runtime import serving as serving_module
from egressd.runtime.canary import Canary
from egressd.runtime.feeding import Feeding
from egressd.runtime.keeping import Keeping
from egressd.runtime.serving import Serving
from egressd.runtime.vitals import Vitals
from tests.loops import HANG_S, in_loop
from tests.runtime.core_scene import ANNA, BERT, CONFIG, site_at


def serving_at(site: Any, folder: Path) -> Serving:
    """All that serves, over a core of a test."""
    site.kernel.adapters = list
    canary = Canary(site.core.clock, site.core.enforcement, site.core.sensing.canaries)
    keeping = Keeping(folder, Config(), folder / "heads", site.core.clock)
    return Serving(site.core, site.core.clock, canary, keeping, Feeding(site.core, folder), Vitals(site.core.clock), ())


@in_loop
async def test_who_was_turned_away_is_a_metric(tmp_path: Path) -> None:
    """It was counted, and nobody could see it."""
    async with site_at(tmp_path, config=CONFIG + "metrics: {port: 0}\n") as site:
        serving = serving_at(site, tmp_path)
        control, metrics = serving.control(), serving.metrics()
        assert metrics is not None
        try:
            control.stats.busy, control.stats.evicted, control.stats.expired = 1, 2, 4
            metrics.stats.refused, metrics.stats.cut_off = 8, 16
            told = render(serving._snapshot())[0].decode()
        finally:
            await metrics.close()
    assert 'egressd_turned_away_total{socket="control"} 7.0\n' in told
    assert 'egressd_turned_away_total{socket="metrics"} 24.0\n' in told


@in_loop
async def test_metrics_that_cannot_be_listened_on_hold_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At boot the daemon comes before the network, so an address of the network's is not there yet; the port may be
    another program's. The daemon ended then, and the gateway was without its watch for the sake of a page."""
    monkeypatch.setattr(serving_module, "METRICS_AGAIN_S", 0.0)
    tries = iter([errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EADDRINUSE])
    served = asyncio.Event()

    async def start() -> None:
        for number in tries:
            raise OSError(number, "could not bind on any address")
        served.set()

    async with site_at(tmp_path, config=CONFIG + "metrics: {port: 9990}\n") as site:
        serving = serving_at(site, tmp_path)
        metrics = serving.metrics()
        assert metrics is not None
        monkeypatch.setattr(metrics, "start", start)
        task = asyncio.create_task(serving.serve_metrics(metrics))

        async def alarms() -> list[str]:
            return [one for one in (await serving._screen())["warnings"] if one.startswith("METRICS")]

        await asyncio.sleep(0)  # it has tried once
        assert await alarms() == [
            "METRICS are not served: 127.0.0.1:9990: Cannot assign requested address; tried again every 0 s"
        ]
        await served.wait()
        assert await alarms() == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    said = [
        (one.levelname, one.getMessage().partition(";")[0]) for one in caplog.records if one.levelno >= logging.WARNING
    ]
    assert said == [
        ("ERROR", "METRICS are not served: 127.0.0.1:9990: Cannot assign requested address"),
        ("ERROR", "METRICS are not served: 127.0.0.1:9990: Address already in use"),
        ("WARNING", "metrics are served at 127.0.0.1:9990 now"),
    ]


@in_loop
async def test_nobody_waits_for_lists_that_are_read(tmp_path: Path) -> None:
    """An index of millions takes a minute, in which `panic` waited behind `reload`."""
    async with site_at(tmp_path, "monitor") as site:
        core = site.core
        control = serving_at(site, tmp_path).control()
        read, begun, goes_on = core.reloading.read, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any, **options: Any) -> Any:
            begun.set()
            await goes_on.wait()
            return await read(*args, **options)

        site.path.write_text(f"mode: enforce\n{CONFIG}")
        core.reloading.read = slow  # type: ignore[method-assign]
        asked = {"only": None, "force": False, "reason": "ticket 4711"}
        reload = asyncio.get_running_loop().create_task(control._handler(ANNA, "reload", asked))
        await begun.wait()
        async with asyncio.timeout(HANG_S):
            await control._handler(BERT, "panic", {"reason": "ticket 4712"})
        assert not reload.done()
        goes_on.set()
        assert "read anew" in (await reload)["text"]
        assert core.arming.mode == "monitor"  # of a file that was saved before `panic`, whenever it is read
