"""Configuration and lists read anew: what came of it, and what of the file a reload does not change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Final

from egressd.clock import Clock
from egressd.config.schema import Config
from egressd.errors import ConfigError
from egressd.runtime import knowledge as known
from egressd.runtime.knowledge import Loaded

MAX_PROBLEMS: Final = 20  # of lists that are told one by one
# Sections of the configuration that a reload does not change.
AT_START: Final = ("capture", "enforce", "control", "metrics", "state", "limits", "sensors")
PAIRS: Final = "volume.pairs"  # so is this option: a bound of tables that are there
log = logging.getLogger("egressd")


class Reloading:
    """`at_us` is when what is in force was read, `problems` what was wrong with it or with what was refused since."""

    def __init__(self, path: Path, loaded: Loaded, clock: Clock) -> None:
        self.counts = {"ok": 0, "refused": 0}
        self.problems = [str(one) for one in loaded.kept]
        self.at_us = clock.now_us()
        self._path = path
        self._clock = clock

    async def read(self, now: Config, in_force: Set[str], *, only_lists: bool) -> tuple[Loaded, list[str]]:
        """What the files say, and the sections of the configuration that are others in the file than in force. A list
        with a mistake in it keeps its last good content (`problems`). `in_force` names the files whose content is.
        Raises ConfigError, and all stays."""
        waiting: list[str] = []
        try:
            config = now
            if not only_lists:
                found = await asyncio.to_thread(known.load_own_config, self._path)
                config, waiting = _until_restart(now, found), _needs_restart(now, found)
            loaded = await asyncio.to_thread(known.load_texts, self._path, config, in_force=in_force)
        except ConfigError as error:
            self.counts["refused"] += 1
            self.problems = [str(one) for one in error.problems[:MAX_PROBLEMS]]
            raise
        self.counts["ok"] += 1
        self.problems = [str(one) for one in loaded.kept[:MAX_PROBLEMS]]
        for problem in self.problems:
            log.error("%s; only the last good content, if any, is in force", problem)
        if loaded.unkept:
            log.error("no last good copy of the lists is kept: %s", loaded.unkept)
        self.at_us = self._clock.now_us()
        return loaded, waiting


def _needs_restart(now: Config, found: Config) -> list[str]:
    bounds = [PAIRS] if now.volume.pairs != found.volume.pairs else []
    return [name for name in AT_START if getattr(now, name) != getattr(found, name)] + bounds


def _until_restart(now: Config, found: Config) -> Config:
    """The file's configuration with the sections as they are in force: who asks for an option of them must not be told
    what nothing here goes by yet."""
    volume = replace(found.volume, pairs=now.volume.pairs)
    return replace(found, volume=volume, **{name: getattr(now, name) for name in AT_START})
