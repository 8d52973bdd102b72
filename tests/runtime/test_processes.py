"""A packet process and its end, as the core sees them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from egressd.runtime.orders import Stop
from egressd.runtime.processes import PacketProcessHandle
from tests.loops import in_loop


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
