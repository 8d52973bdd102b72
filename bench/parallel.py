"""What each process of a parallel replay costs: `python bench/parallel.py FILE LIST JOBS`, one JSON object.

Processor seconds of the process that judges, and on average of each that reads, its start included. What bounds the
speed where there are processors enough is the slower of the two; a machine that has fewer processors, or other work,
shows it in wall time only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from egressd.config.load import default_config, load_intel
from egressd.config.settings import policy_settings, volume_settings
from egressd.model import Event
from egressd.runtime import parallel_replay
from egressd.runtime.replay import ReplayRun


def measure(file: Path, blocklist: Path, jobs: int) -> dict[str, Any]:
    """One replay with so many processes (1: this one alone)."""
    parallel_replay.LEAST_BYTES = 0
    config = default_config()
    intel = load_intel(config, [blocklist], base_dir=Path()).intel
    events = 0

    def count(event: Event, at: int) -> None:
        nonlocal events
        events += 1

    run = ReplayRun(
        [file], intel, policy_settings(config), on_event=count, conversations=config.limits.conversations,
        history=config.limits.history, volume=volume_settings(config), jobs=jobs,
    )  # fmt: skip
    children = os.times()
    used_s, began_s = time.process_time(), time.perf_counter()
    run.run()
    wall_s = time.perf_counter() - began_s
    after = os.times()
    readers_s = after.children_user + after.children_system - children.children_user - children.children_system
    return {
        "jobs": jobs,
        "judging_s": round(time.process_time() - used_s, 3),
        "reader_s": round(readers_s / jobs, 3) if jobs > 1 else 0.0,
        "wall_s": round(wall_s, 3),
        "events": events,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
