"""What the detectors of behaviour cost: `python bench/behaviour_cost.py [BULK.pcap]`.

Memory: the resident size that 100,000 pairs of client and destination add, each with more contacts than are kept, in a
child process of its own. Time: processor time of a replay of a capture of bulk traffic (bench/traffic.py) with all
detectors and with none, in turns, by packet.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
if "EGRESSD_TREE" not in os.environ:  # a compiled copy, which PYTHONPATH names
    sys.path.insert(0, str(ROOT))
else:
    sys.path.append(str(ROOT))

PAIRS: Final = 100_000
CLIENTS: Final = 1_000
CONTACTS: Final = 30


def fill() -> tuple[int, int]:
    """(pairs held, bytes that they take) of a Behaviour that met PAIRS pairs, with CONTACTS contacts each."""
    from bench.office import intel_of
    from egressd.detect.behaviour.settings import BehaviourSettings
    from egressd.detect.behaviour.watching import Behaviour
    from egressd.detect.resolutions import Resolutions
    from egressd.model import HTTP_HOST, TCP, FlowKey, HttpRequest, Observation

    intel = intel_of(BehaviourSettings())
    behaviour = Behaviour(
        intel.behaviour, intel.suffixes, intel.guard, intel.protected, intel.resolvers, Resolutions(intel.suffixes)
    )
    names = [f"destination{number}.example" for number in range(PAIRS // CLIENTS)]
    clients = [bytes((10, 0, number >> 8, number & 255)) for number in range(CLIENTS)]
    flows = [FlowKey(TCP, client, 40_000, b"\xc0\0\2\1", 80) for client in clients]
    for name in names:  # what the suffix list remembers of names is there without us
        intel.suffixes.registered_domain(name)
    before = resident()
    for turn in range(CONTACTS):
        for number, flow in enumerate(flows):
            for at, name in enumerate(names):
                ts_us = 1_700_000_000_000_000 + turn * 600_000_000 + number * 100_000 + at * 7_000_000
                request = HttpRequest("GET", "/", name, name, 0, "", "", f"/a?id={turn:x}9fQz{number:x}kW{at:x}tYp0Lm")
                behaviour.contact(Observation(HTTP_HOST, ts_us, 0, flow, name, name, request), name, name, "")
    return len(behaviour.ground), resident() - before


def resident() -> int:
    """Bytes of this process that are in memory now."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * 4_096


def replay_s(path: Path, on: bool) -> tuple[float, int]:
    """(processor time, packets) of a replay with all detectors or none."""
    from bench.office import intel_of
    from egressd.detect.behaviour.settings import DETECTORS, OFF, BehaviourSettings, Switch
    from egressd.detect.behaviour.volume import VolumeSettings
    from egressd.detect.policy_settings import PolicySettings
    from egressd.runtime.replay import ReplayRun

    switches = () if on else tuple((name, Switch(OFF)) for name in DETECTORS)
    run = ReplayRun(
        [path], intel_of(BehaviourSettings(switches=switches)), PolicySettings(), on_event=lambda event, file: None,
        conversations=32_768, history=131_072, volume=VolumeSettings(),
    )  # fmt: skip
    started_s = time.process_time()
    run.run()
    return time.process_time() - started_s, run.files[0].packets


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="What the detectors of behaviour cost.")
    parser.add_argument("capture", nargs="?", type=Path, help="bulk traffic; without it 300,000 packets are made")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(argv)
    pairs, octets = fill()
    print(f"memory: {pairs:,} pairs held, {octets / 2**20:.1f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        path = args.capture
        if path is None:
            from bench.traffic import write

            path = Path(folder) / "bulk.pcap"
            write(path, "bulk", 300_000)
        spent: dict[bool, list[float]] = {True: [], False: []}
        packets = 1
        for _ in range(args.runs):
            for on in (False, True):
                took_s, packets = replay_s(path, on)
                spent[on].append(took_s)
    without, with_all = (1e9 * median(spent[on]) / packets for on in (False, True))
    least = 1e9 * (min(spent[True]) - min(spent[False])) / packets
    print(f"bulk: {packets:,} packets; {without:.0f} ns a packet without, {with_all:.0f} with all detectors")
    print(f"      they cost {with_all - without:.0f} ns a packet in the median, {least:.0f} of the best runs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
