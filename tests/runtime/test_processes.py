"""Packet processes as the core sees them: started, renewed, started again when they die."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from egressd.runtime import processes
from egressd.runtime.orders import End, Order, Stop
from egressd.runtime.processes import PacketProcessHandle
from tests.loops import HANG_S, in_loop


class Core:
    """Counts the lives of a process."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.heard = asyncio.Event()
        self.handle = PacketProcessHandle(0, self._start, self._take, module="tests.runtime.parrot")

    def _start(self, number: int) -> tuple[Order, list[Order]]:
        return End(()), []

    async def _take(self, number: int, batch: dict[str, Any]) -> None:
        self.pids.append(batch["stats"]["pid"])
        self.heard.set()

    async def life(self, number: int) -> int:
        """Wait for another one; its process id."""
        while len(dict.fromkeys(self.pids)) < number:
            self.heard.clear()
            await self.heard.wait()
        return list(dict.fromkeys(self.pids))[number - 1]


@asynccontextmanager
async def running(core: Core) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(core.handle.run())
    try:
        yield
    finally:
        await core.handle.stop()
        await asyncio.wait((task,), timeout=HANG_S)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(processes, "LAST_PAUSE_S", 0.0)


@in_loop
async def test_who_is_renewed_is_not_ready_before_the_next_one_is() -> None:
    """It hears no order that comes behind the one to end: contacts of the past told to it were marked as told."""
    core = Core()
    async with running(core):
        first = await core.life(1)
        await core.handle.ready.wait()
        core.handle.renew()
        await core.handle.ready.wait()
        assert core.handle.pid != first
        assert core.handle.restarts == 0


@in_loop
async def test_the_death_of_a_process_that_nobody_renewed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """What was renewed while none lived was remembered, and the next one's death passed for that."""
    core = Core()
    core.handle.renew()
    async with running(core):
        await core.life(1)
        await core.handle.ready.wait()
        os.kill(core.handle.pid, signal.SIGKILL)
        await core.life(2)
        assert core.handle.restarts == 1
    assert "packet process 0 ended (SIGKILL)" in caplog.text


@in_loop
async def test_one_that_ends_with_orders_unread_is_no_fault_and_its_last_words_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kernel tells the other end of that by ECONNRESET, behind what was sent (net/unix/af_unix.c,
    unix_release_sock): at some stops it was an error in the journal, and counted as malformed."""
    told: list[int] = []

    async def take(number: int, batch: dict[str, Any]) -> None:
        told.append(batch["n"])

    one = PacketProcessHandle(0, lambda _: (Stop(), []), take, module="tests.runtime.leaving_process")
    assert await one._live() == "exit code 0"
    assert (told, one.malformed) == ([1], 0)
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]
