"""What each stage of the packet path costs by itself: `python -m bench.stages FILE LIST`, one JSON object.

- `read`: the reader alone, every packet handed to a sink that does nothing;
- `gate`: the reader and the gate, the sink's dictionaries being those that the dissector has filled by the file's end;
- `dissect`: reader, gate and dissector, observations going nowhere;
- `engine`: the engine alone, on the observations of the file.

The first three are nanoseconds a packet, the last is nanoseconds an observation; processor time. The garbage collector
is off, so that one stage does not pay for what another holds.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Final

from egressd.capture.merge import Replay
from egressd.capture.prefilter import Sink
from egressd.config.load import default_config, load_intel
from egressd.config.settings import policy_settings
from egressd.detect.engine import Engine
from egressd.model import Event, FlowKey, Observation
from egressd.wire.octets import COMPILED
from egressd.wire.quiet import Recent
from egressd.wire.shards import Shards

FOR_EVER_US: Final = 1 << 62


class Nowhere:
    """A sink that does nothing with packets."""

    def __init__(self, quiet: dict[bytes, int], quiet_udp: dict[bytes, int]) -> None:
        self.quiet = dict.fromkeys(quiet, FOR_EVER_US)
        self.quiet_udp = dict.fromkeys(quiet_udp, FOR_EVER_US)
        self.recent: Recent | None = Recent() if COMPILED else None

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        """Nothing."""


def ignore(_: Observation | Event) -> None:
    """Nothing."""


def carried(flow: FlowKey, ts_us: int, out_bytes: int, in_bytes: int) -> None:
    """Nothing."""


def read(path: Path, sink: Sink, prefilter: bool) -> tuple[float, int, int]:
    """Processor seconds, packets, and packets that the gate threw away."""
    replay = Replay([path], sink, prefilter=prefilter)
    started_s = time.process_time()
    replay.run()
    return time.process_time() - started_s, replay.files[0].packets, replay.files[0].gated


def measure(path: Path, blocklist: Path) -> dict[str, float]:
    """Nanoseconds of each stage, and the counts they were divided by."""
    gc.disable()
    read_s, packets, _ = read(path, Nowhere({}, {}), False)
    dissector = Shards(ignore, on_volume=carried)
    dissect_s, _, gated = read(path, dissector, True)
    gate_s, _, _ = read(path, Nowhere(dissector.quiet, dissector.quiet_udp), True)
    observations: list[Observation] = []
    collecting = Shards(observations.append, on_volume=carried)
    read(path, collecting, True)
    config = default_config()
    loaded = load_intel(config, [blocklist], base_dir=Path())
    engine = Engine(loaded.intel, policy_settings(config), ignore, history=config.limits.history)
    observe = engine.observe
    started_s = time.process_time()
    for seen in observations:
        observe(seen)
    engine_s = time.process_time() - started_s
    return {
        "packets": packets,
        "gated": gated,
        "observations": len(observations),
        "read_ns": round(read_s / packets * 1e9),
        "gate_ns": round(gate_s / packets * 1e9),
        "dissect_ns": round(dissect_s / packets * 1e9),
        "engine_ns": round(engine_s / max(len(observations), 1) * 1e9),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
