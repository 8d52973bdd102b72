"""The process around the core, part by part: how it ends, what systemd hears. The whole is started in tests/netns."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from egressd.enforce.adapter import AdapterError
from egressd.notify.journal import Journal
from egressd.runtime.daemon import RUNTIME, Daemon
from egressd.runtime.knowledge import load_texts
from tests.loops import in_loop
from tests.runtime.core_scene import CONFIG


def daemon_at(folder: Path) -> Daemon:
    (folder / "csirt.txt").write_text("c2.listed.example\n")
    path = folder / "egressd.yaml"
    path.write_text(CONFIG)
    return Daemon(path, load_texts(path), Journal(environ={}))


@in_loop
async def test_a_part_that_fails_before_the_daemon_is_ready_fails_it(tmp_path: Path) -> None:
    """It ended all the same, and said with its exit code that all was well."""
    daemon = daemon_at(tmp_path)

    async def fails() -> None:
        raise RuntimeError("a fault of ours")

    daemon._watch(fails(), "clock")
    await asyncio.wait(daemon._tasks)
    await asyncio.sleep(0)
    assert await daemon._until_stopped() == RUNTIME


@in_loop
async def test_a_reload_that_the_kernel_refuses_is_told_and_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """systemd waited for its end, and nothing said what had become of it."""
    daemon = daemon_at(tmp_path)
    heard: list[str] = []

    async def reload() -> list[str]:
        raise AdapterError("another egressd has the table")

    daemon._core = SimpleNamespace(tellers=SimpleNamespace(events=None), reload=reload)  # type: ignore[assignment]
    daemon._serving = SimpleNamespace(line=lambda: "mode monitor")  # type: ignore[assignment]
    daemon._service.reloading = lambda status="": heard.append("reloading") is None  # type: ignore[method-assign]
    daemon._service.ready = lambda status="": heard.append(f"ready {status}") is None  # type: ignore[method-assign]
    daemon._hangup()
    await asyncio.wait(daemon._tasks)
    assert heard == ["reloading", "ready mode monitor"]
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert told == ["not all of what was read anew is in force: another egressd has the table"]


@in_loop
async def test_a_stop_while_packet_processes_begin_is_not_kept_waiting(tmp_path: Path) -> None:
    """It was, for 20 s, which is as long as systemd waits before it kills."""
    daemon = daemon_at(tmp_path)
    begun, for_ever = asyncio.Event(), asyncio.Event()

    async def ready() -> bool:
        begun.set()
        return await for_ever.wait()

    beginning = asyncio.get_running_loop().create_task(daemon._unless_stopped(ready()))
    await begun.wait()
    assert not beginning.done()
    daemon._stop.set()
    assert await beginning  # nothing went wrong
    for_ever.set()
    daemon._stop.clear()
    assert await daemon._unless_stopped(ready())
