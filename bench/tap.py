"""What the kernel's tap costs and how much passes it: `python bench/tap.py [--compiled FOLDER]`. Needs root.

Over a veth pair in a network namespace, questions of DNS, and bulk of full-size segments beside some of them, are sent
at growing rates. The highest rate at which nothing is lost is told for a reader that only counts, which is the floor
(ring, filter, system calls), for the dissector, and for all that a packet process does (bench/packet_path.py), by one
process and by two that share out the clients. What a rate could not be sent at is told as what it was: senders and
readers share the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
if "EGRESSD_TREE" not in os.environ:
    sys.path.insert(0, str(ROOT))

from bench.packet_path import PacketPath, write_planted
from egressd.capture.prefilter import COMPILED, Sink
from tests.netns import test_afpacket_rates as rates
from tests.netns.spaces import Spaces, missing

RATES: Final = (20_000, 50_000, 100_000, 150_000, 200_000, 300_000, 500_000)
BULK_RATES: Final = (100_000, 300_000, 500_000, 1_000_000)
NAMES_BESIDE: Final = 20_000
RATE_EACH: Final = 50_000  # of names, for one process alone and for each of two
TURNS: Final = 5


def measure(make: Callable[[], Sink], loads: list[tuple[list[bytes], int]], processes: int = 1) -> dict[str, float]:
    """What readers counted of loads (frames in turn, how many a second), and `reached`, how many a second were sent."""
    spaces = Spaces()
    try:
        space = spaces.make("tap")
        space.call(rates.make_pair)
        counts, _, reached = rates.measure(space, make, loads, processes)
    finally:
        spaces.close()
    return {**counts, "reached": reached}


def tell(what: str, make: Callable[[], Sink], names: tuple[int, ...], bulk: tuple[int, ...]) -> None:
    """Go up the rates until something is lost."""
    best = "none"
    for at in range(max(len(names), len(bulk))):
        loads = [(rates.questions(), names[at % len(names)])]
        if bulk:
            loads.append((rates.bulk(), bulk[at]))
        counts = measure(make, loads)
        lost = counts["kernel_drops"]
        cost_us = counts["cpu_s"] / max(1, counts["packets"]) * 1e6
        if lost:
            print(
                f"{what:44}{best:>12}/s without loss; at {counts['reached']:,.0f}/s lost {lost:,.0f} of "
                f"{counts['arrived']:,.0f}"
            )
            return
        best = f"{counts['reached']:,.0f}"
        told = f"{cost_us:.2f} us of CPU a packet that passed"
    print(f"{what:44}{best:>12}/s without loss (all that could be sent); {told}")


def tell_sharing(make: Callable[[], Sink]) -> None:
    """What the busiest of two processes spends on twice as many packets as one alone has, in turns: the median. (At the
    same rate each of two would wake up for fewer packets at a time.)"""
    found = []
    for _ in range(TURNS):
        alone, shared = (measure(make, [(rates.questions(), RATE_EACH * count)], count) for count in (1, 2))
        costs = [one["most_s"] / max(1, one["packets"]) for one in (alone, shared)]
        found.append(costs[0] / costs[1])
    print(
        f"names, all of it, by one and by two at {RATE_EACH:,}/s each: {median(found):.2f} times as much can pass "
        f"(median of {', '.join(f'{one:.2f}' for one in sorted(found))})"
    )


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Packets a second through the kernel's tap without loss.")
    parser.add_argument("--compiled", type=Path, metavar="FOLDER", help="the copy that scripts/compile.py made")
    parser.add_argument("--seconds", type=float, default=2.0, help="at each rate (default %(default)s)")
    args = parser.parse_args(argv)
    reason = missing()
    if reason:
        print(f"bench/tap.py {reason}", file=sys.stderr)
        return 1
    if args.compiled and "EGRESSD_TREE" not in os.environ:
        where = {**os.environ, "EGRESSD_TREE": "1", "PYTHONPATH": f"{args.compiled.resolve()}:{ROOT}"}
        return subprocess.run([sys.executable, __file__, *argv], env=where, check=False).returncode
    rates.SECONDS = args.seconds
    blocklist = write_planted(ROOT / "bench" / "work" / "tap.list")

    def all_of_it() -> Sink:
        path = PacketPath(blocklist)
        path.begin()
        return path

    print(f"live over veth, {'compiled' if COMPILED else 'pure'}")
    tell("names, counted only", rates.Counter, RATES, ())
    tell("names, dissected", rates.dissecting, RATES, ())
    tell("names, all of it", all_of_it, RATES, ())
    tell(f"bulk and {NAMES_BESIDE:,} names, all of it", all_of_it, (NAMES_BESIDE,), BULK_RATES)
    tell_sharing(all_of_it)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
