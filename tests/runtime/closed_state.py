"""What the daemon does with its state folder, part by part, before it is closed, while it is, and after."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from egressd.capture.logfollow import Mark
from egressd.config.feed_options import FeedOptions
from egressd.config.large_lists import SMALL_BYTES
from egressd.errors import ConfigError
from egressd.intel.feeds.fetch import Validators
from egressd.intel.feeds.kept import Kept, KeptError, adopt_candidate, confirm_kept, load_kept, save_candidate
from egressd.intel.feeds.state import FeedState
from egressd.notify.evelog import EveLog
from egressd.runtime import log_process
from egressd.runtime.keeping import Keeping
from egressd.runtime.knowledge import files_lost
from egressd.store import audit
from tests.runtime.core_scene import Site, site_at
from tests.runtime.scene import T0, A, Hands, X
from tests.store.scene import ANNA


class Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def run(folder: Path, mode: int) -> dict[str, Any]:
    (folder / "state").mkdir(mode=0o700)
    return asyncio.run(_run(folder, mode))


async def _run(folder: Path, mode: int) -> dict[str, Any]:
    told = Told()
    logging.getLogger("egressd").addHandler(told)
    state = folder / "state"
    hands = Hands()
    seconds = [0.0]
    events = EveLog(str(state / "eve.json"), retry_s=0.01, clock_s=lambda: seconds[0])
    events.start()
    found: dict[str, Any] = {}
    long_list = "".join(f"n{number}.listed.example\n" for number in range(SMALL_BYTES // 16))
    async with site_at(folder, hands=hands, lists=long_list) as site:
        keeping = Keeping(state, site.core.config, state / "heads", site.core.clock)
        await keeping.open(T0)
        feed = FeedState("feed", FeedOptions(url="https://feed.example/"))
        (feed.index,) = site.core.knowledge.intel.index.lowers  # type: ignore[union-attr]
        for name, bits in (("whole", 0o700), ("shut", mode), ("open", 0o700)):
            state.chmod(bits)
            told.lines.clear()
            failed: list[str] = []
            for part in (0, 1):
                hands.pass_s(2 * 86_400)
                seconds[0] += 60
                for what, does in parts(site, keeping, events, feed, part):
                    try:
                        if await does() is False:
                            failed.append(what)
                    except Exception as error:  # noqa: BLE001 - what comes out of a part ends the daemon
                        failed.append(f"{what}: {error!r}")
            found[name] = {"failed": failed, "told": list(told.lines), "shown": keeping.warnings()}
        found["history"] = keeping.history.stats.recorded
        keeping.close()
    events.close()
    found["events"] = len((state / "eve.json").read_text().splitlines())
    found["errors"] = events.stats.errors
    found["marks"] = sorted(log_process.load_marks(state / "sensors.json"))
    return found


def parts(
    site: Site, keeping: Keeping, events: EveLog, feed: FeedState, number: int
) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    """What the daemon does with its state, by name; what is False has failed."""
    core, state = site.core, site.path.parent / "state"
    core.learning.keep([(A, "bad.example", "c2.bad.example", X, T0, T0, 1)])
    mark = {"proxy": {"access.log": [Mark(1, 2, 3, "x")]}}

    async def write_event() -> bool:
        events.write({"event_type": "sighting", "n": 1})
        return await asyncio.to_thread(events.flush, 2.0)

    async def follow_feed() -> bool:
        """A feed's version is fetched: kept, or told why not."""
        kept = Kept(b"bad.example\n", Validators("", ""), T0, T0, "", "egressd")
        try:
            save_candidate(state / "feeds", "feed", kept)
            adopt_candidate(state / "feeds", "feed")
            confirm_kept(state / "feeds", "feed", T0)
            return load_kept(state / "feeds", "feed") is not None
        except KeptError:
            return True

    async def save_marks() -> None:
        log_process.save_marks(state / "sensors.json", mark)

    async def files_there() -> bool:
        return not files_lost(core.knowledge.intel.index) and feed.is_on_disk

    async def reload() -> bool:
        if not number:  # each time that somebody asks for one it is told what is in the way
            with suppress(ConfigError):  # then all stays
                await core.reload(only_lists=True)
        return core.knowledge.intel.index.size > SMALL_BYTES // 20

    return [
        ("audit", lambda: core.ledger.run(audit.append, ANNA, T0)),
        ("history", lambda: keeping.flush(core)),
        ("audit head", lambda: keeping._try(keeping.write_head, core)),
        ("upkeep", lambda: keeping.upkeep(core)),
        ("tick", core.tick),
        ("feed", follow_feed),
        ("marks of logs", save_marks),
        ("index", files_there),
        ("reload", reload),
        ("event", write_event),
    ]


if __name__ == "__main__":
    logging.getLogger("egressd").setLevel(logging.WARNING)
    json.dump(run(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
