"""What behaviour says of captures: `python bench/benign.py FILE...`. Of benign ones, everything it says is false.

Each capture is judged by itself, so that it has learned nothing. Twice: as set by default, and with learning_h 0, where
all is new from the first packet on (as when looking through a single capture).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.office import intel_of
from egressd.detect.behaviour.settings import BehaviourSettings
from egressd.detect.policy_settings import PolicySettings
from egressd.errors import CaptureError
from egressd.intel.networks import render_address
from egressd.model import Event, Sighting
from egressd.runtime.replay import ReplayRun


def judge(path: Path, settings: BehaviourSettings) -> tuple[list[str], float]:
    """(what was said, client-hours) of a capture. Raises CaptureError."""
    said: list[str] = []

    def take(event: Event, _: int) -> None:
        if isinstance(event, Sighting) and event.match.level == "behaviour":
            parts = ", ".join(f"{part.detector} {part.score}" for part in event.parts)
            client, value = render_address(event.flow.client), event.match.indicator.value
            said.append(f"{client} {value} {event.match.indicator.confidence}: {parts}")

    run = ReplayRun(
        [path], intel_of(settings), PolicySettings(), on_event=take, conversations=32_768, history=65_536
    )  # fmt: skip
    run.run()
    one = run.files[0]
    return said, len(run.engine.clients) * max(0, one.last_us - one.first_us) / 3.6e9


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="What behaviour says of captures.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    for title, settings in (("default", BehaviourSettings()), ("learning_h 0", BehaviourSettings(learning_s=0))):
        pairs: set[str] = set()
        hours, read = 0.0, 0
        for path in args.files:
            try:
                said, more = judge(path, settings)
            except CaptureError as error:
                print(f"{path}: {error}", file=sys.stderr)
                continue
            hours += more
            read += 1
            pairs |= {f"{path.name} {' '.join(line.split()[:2])}" for line in said}
            for line in said:
                print(f"  {title}: {path.name}: {line}")
        print(f"{title}: {read} captures, {hours:.1f} client-hours, {len(pairs)} pairs told")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
