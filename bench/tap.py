"""What the kernel's tap costs and how much passes it: `python bench/tap.py [--compiled FOLDER]`. Needs root.

Over a veth pair in a network namespace, questions of DNS, and bulk of full-size segments beside some of them, are sent
at growing rates. The highest rate at which nothing is lost is told twice: for a reader that only counts, which is the
floor (ring, filter, system calls), and for the dissector. What a rate could not be sent at is told as what it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
if "EGRESSD_TREE" not in os.environ:
    sys.path.insert(0, str(ROOT))

from egressd.capture.prefilter import COMPILED
from tests.netns import test_afpacket_rates as rates
from tests.netns.spaces import Spaces, missing

RATES: Final = (20_000, 50_000, 100_000, 150_000, 200_000, 300_000, 500_000)
BULK_RATES: Final = (100_000, 300_000, 500_000, 1_000_000)
NAMES_BESIDE: Final = 20_000


def tell(what: str, kind: str, names: tuple[int, ...], bulk: tuple[int, ...]) -> None:
    """Go up the rates until something is lost."""
    best = "none"
    for at in range(max(len(names), len(bulk))):
        loads = [(rates.questions(), names[at % len(names)])]
        if bulk:
            loads.append((rates.bulk(), bulk[at]))
        spaces = Spaces()
        try:
            space = spaces.make("tap")
            space.call(rates.make_pair)
            counts, _, reached = rates.measure(space, kind, loads)
        finally:
            spaces.close()
        lost = counts["kernel_drops"]
        cost_us = counts["cpu_s"] / max(1, counts["packets"]) * 1e6
        if lost:
            print(f"{what:44}{best:>12}/s without loss; at {reached:,.0f}/s lost {lost:,} of {counts['arrived']:,}")
            return
        best = f"{reached:,.0f}"
        told = f"{cost_us:.2f} us of CPU a packet that passed"
    print(f"{what:44}{best:>12}/s without loss (all that could be sent); {told}")


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
    print(f"live over veth, {'compiled' if COMPILED else 'pure'}, one process")
    tell("names, counted only", "count", RATES, ())
    tell("names, dissected", "dissect", RATES, ())
    tell(f"bulk and {NAMES_BESIDE:,} names, dissected", "dissect", (NAMES_BESIDE,), BULK_RATES)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
