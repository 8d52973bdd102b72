"""Tests that need an event loop."""

from __future__ import annotations

import asyncio
import faulthandler
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Final, ParamSpec

P = ParamSpec("P")
# What takes longer hangs. A machine that compiles beside the tests may stand still for half a minute while its disk
# writes, so no test waits less for what is certain to come.
HANG_S: Final = 300.0


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test in an event loop of its own. One that hangs fails, and says where each thread stood."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            say_where = asyncio.get_running_loop().call_later(HANG_S, faulthandler.dump_traceback, sys.__stderr__)
            try:
                await asyncio.wait_for(test(*args, **kwargs), HANG_S + 1)
            finally:
                say_where.cancel()

        asyncio.run(bounded())

    return run
