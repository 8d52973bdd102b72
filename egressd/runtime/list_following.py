"""Takes lists when somebody has saved them; list_watch.py knows when that is. Built indexes that somebody has taken
away are built anew: who has them open goes on with them, but no packet process could be started."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from egressd.config.load import list_paths
from egressd.config.texts import escape_path
from egressd.errors import ConfigError, EgressdError
from egressd.plural import count
from egressd.runtime.core import Core
from egressd.runtime.knowledge import files_lost
from egressd.runtime.list_watch import LOOK_S, ListWatch, Signs, read_signs
from egressd.store import audit
from egressd.store.audit import Act
from egressd.web.requests import MAX_TEXT

AGAIN_S: Final = 30.0
REST: Final = 30  # times as long as it took to look
MOST_REST_S: Final = 10.0
MAX_CHANGES: Final = 20  # that are told one by one

NOT_ALL: Final = "not all of what was read anew is in force"

log = logging.getLogger("egressd")


async def follow_lists(core: Core) -> None:
    """Until cancelled."""
    now_s = asyncio.get_running_loop().time
    watch = ListWatch(now_s)
    taken = None
    build_from_s = took_s = 0.0
    while True:
        if core.loaded.signs is not taken:
            taken = core.loaded.signs
            watch.took(taken)
        await asyncio.sleep(rest_s(took_s))
        began_s = now_s()
        now = await asyncio.to_thread(_look, core)
        took_s = now_s() - began_s
        changes = watch.look(now)
        lost = files_lost(core.knowledge.intel.index) if now_s() >= build_from_s else []
        if lost:
            build_from_s = now_s() + AGAIN_S  # it may fail: the disk is full, perhaps
        if changes or lost:
            await _take(core, "; ".join([*changes[:MAX_CHANGES], *(f"{name} is gone from the state" for name in lost)]))
            watch.took(now)


def rest_s(took_s: float) -> float:
    """How long until files are looked at again: looking may cost 3 % of the time, however many there are."""
    return min(max(LOOK_S, took_s * REST), MOST_REST_S)


def _look(core: Core) -> Signs:
    return read_signs(list_paths(core.config, core.path.parent))


async def _take(core: Core, what: str) -> None:
    act = Act("egressd", "files", "lists", what[:MAX_TEXT], "files were saved")
    core.scribe.put(audit.append, act, core.clock.now_us())
    before = _with_entries(core)
    try:
        lines = await core.reload(only_lists=True)
    except ConfigError as error:
        for problem in error.problems[:MAX_CHANGES]:
            log.error("%s", problem)
        log.error("lists: %s; %s: everything stays as it was", what, count(len(error.problems), "problem"))
    except EgressdError as error:
        log.error("lists: %s; %s: %s", what, NOT_ALL, error)
    else:
        there = {one.name for one in core.loaded.texts.lists}
        emptied, gone = before & there - _with_entries(core), before - there
        lines += [f"{escape_path(name)} lists nothing any more" for name in sorted(emptied)[:MAX_CHANGES]]
        # Who takes a file away means it, more often than who empties one; but it lifts as many blocks.
        level = logging.ERROR if emptied else logging.WARNING if gone else logging.INFO
        log.log(level, "lists: %s; %s", what, "; ".join(lines))


def _with_entries(core: Core) -> set[str]:
    """The lists in which anything is listed."""
    return {one.name for one in core.loaded.texts.lists if one.indicators}
