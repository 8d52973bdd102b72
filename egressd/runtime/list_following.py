"""Takes lists when somebody has saved them; list_watch.py knows when that is."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from egressd.config.load import list_paths
from egressd.errors import ConfigError
from egressd.runtime.core import Core
from egressd.runtime.list_watch import LOOK_S, ListWatch, read_signs
from egressd.store import audit
from egressd.store.audit import Act
from egressd.web.requests import MAX_TEXT

MAX_CHANGES: Final = 20  # that are told one by one

log = logging.getLogger("egressd")


async def follow_lists(core: Core) -> None:
    """Until cancelled."""
    watch = ListWatch(asyncio.get_running_loop().time)
    taken = None
    while True:
        if core.loaded.signs is not taken:
            taken = core.loaded.signs
            watch.took(taken)
        await asyncio.sleep(LOOK_S)
        now = await asyncio.to_thread(read_signs, list_paths(core.config, core.path.parent))
        changes = watch.look(now)
        if changes:
            await _take(core, "; ".join(changes[:MAX_CHANGES]))
            watch.took(now)


async def _take(core: Core, what: str) -> None:
    act = Act("egressd", "files", "lists", what[:MAX_TEXT], "files were saved")
    core.scribe.put(audit.append, act, core.clock.now_us())
    try:
        lines = await core.reload(only_lists=True)
    except ConfigError as error:
        for problem in error.problems[:MAX_CHANGES]:
            log.error("%s", problem)
        log.error("lists: %s; %d problem(s): everything stays as it was", what, len(error.problems))
    else:
        log.info("lists: %s; %s", what, "; ".join(lines))
