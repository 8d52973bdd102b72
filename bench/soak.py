"""Half an hour of everything: `python bench/soak.py [--minutes 30] [--compiled FOLDER]`. Does anything grow, or pause?

Traffic without end (bench/traffic.py, `all`: names, floods, hellos, bulk, always new ones) goes through what a packet
process consists of, dissector and live engine in the loop of `egressd/runtime/packet_process.py`: 64 packets, then the
look for garbage, twenty times a second history and passive DNS. Measured are the processor time of every packet, look
and report (a neighbour on the same processor is no pause of ours), resident memory, and the length of every table
there is: tables are found by walking over what the objects hold, so that a new one is watched as well.

Tables have to fill before "flat" means anything: the second half of the run is judged. Exit code 1 when memory or a
table still grows in it, or a pause was over 5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
if "EGRESSD_TREE" not in os.environ:
    sys.path.insert(0, str(ROOT))

from bench.packet_path import PacketPath, write_planted
from egressd.capture.merge import NO_LIMIT_US
from egressd.capture.pcapfile import ByteSource, PcapReader
from egressd.wire.dissector import Dissector

BOUND_MS: Final = 5.0
SAMPLES: Final = 60  # of memory and tables, over the run
MAX_GROWTH: Final = 0.02  # of a table or of memory, between the third and the last quarter
LEAST_GROWTH: Final = 256  # entries; less is chance
LEAST_GROWTH_BYTES: Final = 4 << 20
MAX_DEPTH: Final = 6


class Pause(NamedTuple):
    """Something that took long: processor milliseconds, what, and at which packet."""

    ms: float
    what: str
    packet: int


class Timed(PacketPath):
    """Takes the processor time of every packet, look and report."""

    def __init__(self, blocklist: Path) -> None:
        super().__init__(blocklist)
        self.slowest = [Pause(0.0, "", 0)]
        self.over_ms = {1: 0, 2: 0, 5: 0}

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        """See PacketPath; the turn that may follow is noted by itself too."""
        began_s = time.thread_time()
        super().packet(ts_us, number, link, buf, start, end, orig_len)
        self._note(began_s, "packet")

    def look(self) -> bool:
        """See PacketPath."""
        began_s = time.thread_time()
        looked = super().look()
        if looked:
            self._note(began_s, "look for garbage")
        return looked

    def report(self, now_us: int) -> None:
        """See PacketPath."""
        began_s = time.thread_time()
        super().report(now_us)
        self._note(began_s, "report")

    def _note(self, began_s: float, what: str) -> None:
        took_ms = (time.thread_time() - began_s) * 1_000
        if took_ms < 1:
            return
        for bound in self.over_ms:
            self.over_ms[bound] += took_ms >= bound
        if took_ms > self.slowest[-1].ms or len(self.slowest) < 10:
            self.slowest = sorted([*self.slowest, Pause(round(took_ms, 2), what, self.packets)], reverse=True)[:10]


def tables(root: object, name: str = "", depth: int = 0, seen: set[int] | None = None) -> dict[str, int]:
    """The length of every collection that an object or what it consists of holds, by its path."""
    seen = set() if seen is None else seen
    found: dict[str, int] = {}
    if id(root) in seen or depth > MAX_DEPTH:
        return found
    seen.add(id(root))
    for attribute in dir(type(root)) + list(getattr(root, "__dict__", ())):
        if attribute.startswith("__"):
            continue
        described = getattr(type(root), attribute, None)
        if callable(described) or isinstance(described, property):
            continue
        value = getattr(root, attribute, None)
        path = f"{name}.{attribute}" if name else attribute
        if isinstance(value, dict | list | set | deque):
            if id(value) not in seen:
                seen.add(id(value))
                found[path] = len(value)
        elif type(value).__module__.startswith("egressd."):
            found.update(tables(value, path, depth + 1, seen))
    return found


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(minutes: float, seed: int, blocklist: Path) -> dict[str, Any]:
    """The run, in this process."""
    path = Timed(blocklist)
    samples: list[dict[str, Any]] = []
    maker = subprocess.Popen(
        [sys.executable, str(ROOT / "bench" / "traffic.py"), "all", "-", "--seed", str(seed)], stdout=subprocess.PIPE
    )
    assert maker.stdout is not None
    path.begin()
    try:
        source = ByteSource(maker.stdout.fileno(), 1 << 16, False)
        reader = PcapReader(source, source.refill(b"", 0, 24))
        began_s, used_s = time.monotonic(), time.process_time()
        while not reader.done:
            passed_s = time.monotonic() - began_s
            if passed_s >= minutes * 60 * len(samples) / SAMPLES:
                walked: set[int] = set()
                lengths = tables(path.dissector, "dissector", seen=walked)
                lengths.update(tables(path.engine, "engine", seen=walked))
                samples.append({"s": passed_s, "packets": reader.packets, "bytes": resident_bytes(), "tables": lengths})
            if passed_s >= minutes * 60:
                break
            reader.step(path, True, NO_LIMIT_US)
    finally:
        maker.kill()
        maker.wait()
        maker.stdout.close()
    return {
        "minutes": minutes,
        "seed": seed,
        "packets": reader.packets,
        "events": path.events,
        "cpu_s": round(time.process_time() - used_s, 1),
        "compiled": not (sys.modules[Dissector.__module__].__file__ or "").endswith(".py"),
        "over_ms": path.over_ms,
        "slowest": [pause._asdict() for pause in path.slowest if pause.ms],
        "samples": samples,
    }


def growing(samples: list[dict[str, Any]]) -> list[str]:
    """What was larger in the last quarter than ever in the third, by more than chance."""
    third = samples[len(samples) // 2 : len(samples) * 3 // 4]
    last = samples[len(samples) * 3 // 4 :]
    grown = []
    before, after = (max(one["bytes"] for one in part) for part in (third, last))
    if after - before > max(LEAST_GROWTH_BYTES, before * MAX_GROWTH):
        grown.append(f"memory: {before / 1e6:.0f} to {after / 1e6:.0f} MB")
    for name in samples[-1]["tables"]:
        before, after = (max(one["tables"].get(name, 0) for one in part) for part in (third, last))
        if after - before > max(LEAST_GROWTH, before * MAX_GROWTH):
            grown.append(f"{name}: {before:,} to {after:,}")
    return grown


def render(result: dict[str, Any]) -> str:
    """The figures as text."""
    samples = result["samples"]
    quarters = [samples[min(len(samples) - 1, len(samples) * part // 4)] for part in range(5)]
    slowest = result["slowest"][0] if result["slowest"] else {"ms": 0, "what": "nothing", "packet": 0}
    over = ", ".join(f"{count} of {bound} ms or more" for bound, count in result["over_ms"].items())
    lines = [
        f"{result['minutes']:g} minutes, {result['packets']:,} packets, {result['events']:,} events, "
        f"{'compiled' if result['compiled'] else 'pure'}, {result['cpu_s']:.0f} s of processor time",
        "memory, MB, from the start by quarters: " + ", ".join(f"{one['bytes'] / 1e6:.0f}" for one in quarters),
        f"slowest: {slowest['ms']} ms ({slowest['what']}, packet {slowest['packet']:,}); {over}",
        "largest tables, by quarters:",
    ]
    ends = quarters[-1]["tables"]
    for name in sorted(ends, key=lambda one: -int(ends[one]))[:14]:
        lines.append(f"  {name:48}" + " ".join(f"{one['tables'].get(name, 0):>9,}" for one in quarters))
    grown = growing(samples)
    lines.append("still growing: " + ("; ".join(grown) if grown else "nothing"))
    held = not grown and not result["over_ms"][5]
    lines.append(f"flat, and no pause of {BOUND_MS:g} ms: {'yes' if held else 'NO'}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Does anything grow, or pause, in half an hour of everything?")
    parser.add_argument("--minutes", type=float, default=30.0, help="default %(default)s; a day is 1440")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compiled", type=Path, metavar="FOLDER", help="the copy that scripts/compile.py made")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args(argv)
    if args.compiled:
        # Again with the compiled package in front of this one's.
        rest = [word for at, word in enumerate(argv) if "--compiled" not in (word, argv[at - 1] if at else "")]
        where = {**os.environ, "EGRESSD_TREE": "1", "PYTHONPATH": f"{args.compiled.resolve()}:{ROOT}"}
        return subprocess.run([sys.executable, __file__, *rest], env=where, check=False).returncode
    blocklist = write_planted(ROOT / "bench" / "work" / "soak.list")
    result = soak(args.minutes, args.seed, blocklist)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(render(result))
    return int(bool(growing(result["samples"])) or result["over_ms"][5] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
