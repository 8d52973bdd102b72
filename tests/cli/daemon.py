"""A daemon for tests of the command line: the real control server with a handler that has fixed results."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egressd.web.control import ControlServer, Peer, Refused, Roles, Standing
from tests.loops import HANG_S

STANDING = Standing("enforce", 48_211_377, "2026-10-29T13:02:00.000000+0000")
Asked = list[tuple[Peer, str, dict[str, Any]]]


@contextmanager
def daemon(
    path: Path,
    results: dict[str, Any],
    standing: Standing = STANDING,
    **options: Any,
) -> Iterator[Asked]:
    """Serve `results` by verb, in a thread; a value that is Refused is raised, one that is callable gets the arguments.
    Yields what was asked."""
    asked: Asked = []

    async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        asked.append((peer, verb, args))
        result = results[verb]
        if isinstance(result, Refused):
            raise result
        return result(args) if callable(result) else result

    async def main(ready: Callable[[asyncio.AbstractEventLoop, asyncio.Task[None]], None]) -> None:
        server = ControlServer(path, handler, Roles(own_uid=os.geteuid()), lambda: standing, **options)
        await server.open()
        task = asyncio.ensure_future(server.serve())
        ready(asyncio.get_running_loop(), task)
        await asyncio.wait([task])

    began = threading.Event()
    held: list[Any] = []

    def ready(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        held.extend((loop, task))
        began.set()

    thread = threading.Thread(target=lambda: asyncio.run(main(ready)))
    thread.start()
    assert began.wait(HANG_S)
    try:
        yield asked
    finally:
        loop, task = held
        loop.call_soon_threadsafe(task.cancel)
        thread.join(HANG_S)
        assert not thread.is_alive()
