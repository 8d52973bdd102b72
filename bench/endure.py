"""The whole daemon for an hour: `python bench/endure.py [--minutes 60] [--rate 2000] [--compiled FOLDER]`. Needs root.

bench/soak.py watches what a packet process holds; this one watches what is around it. In network namespaces hosts look
up and visit listed and innocent names, other names come at a rate and none twice, and people do what they do: they look
at every screen, block, undo, allow for a minute, save lists, reload. Every part of the run is told in a line: resident
memory, open files and processor time of the core and of the packet process, the longest that the core's loop was late,
the slowest answer to a person, packets lost, and what lies on disk.

History is bounded to far fewer rows than by default, so that it is full, and trimmed, within minutes: what a gateway
does after weeks. Exit code 1 when a packet was lost, a process died, files are left open, or memory still grows in the
last quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.netns.daemon import TREE, Daemon, Refused
from tests.netns.ground import Ground
from tests.netns.scenarios import background
from tests.netns.spaces import missing

HOSTS: Final = ("april", "may")
LISTED: Final = 100  # of twice as many domains; the others are their neighbours on the same addresses
ADDRESSES: Final = tuple(f"203.0.113.{number}" for number in range(60, 160))
HISTORY_ROWS: Final = 300_000
SCREENS: Final = ("status", "incidents", "watch", "decisions")
PARTS: Final = 20  # of the run, a line each
VISIT_S: Final = 0.25  # between two visits
MAX_GROWTH: Final = 0.1  # of memory, between the third and the last quarter
MAX_MORE_FILES: Final = 4
OPTIONS: Final = {
    "policy": {"blocks_per_hour": 100_000, "rollback_clients": 0},
    "state": {"history_rows": HISTORY_ROWS},
}


class Person:
    """Looks at screens and gives orders; remembers how long each answer took."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.slowest_s: dict[str, float] = {}
        self._daemon = daemon
        self._draw = random.Random(seed)
        self._listed = daemon.list_file.read_text()

    def look(self) -> None:
        """At every screen."""
        for screen in SCREENS:
            self._ask(screen)

    def act(self) -> None:
        """Do one thing that people do."""
        draw = self._draw
        what = draw.randrange(5)
        if what == 0:
            self._ask("block", what=f"b{draw.randrange(50)}.other.example", reason="endure")
        elif what == 1:
            standing = [one["id"] for one in self._ask("decisions").get("decisions", []) if one["state"] == "active"]
            if standing:
                self._ask("undo", decision=draw.choice(standing), reason="endure")
        elif what == 2:
            self._ask("allow", what=f"evil{draw.randrange(2 * LISTED)}.example", for_s=60, reason="endure")
        elif what == 3:
            more = (f"more{draw.randrange(1_000)}.example\n" for _ in range(20))
            self._daemon.list_file.write_text(self._listed + "".join(more))
        else:
            self._ask("reload", reason="endure")

    def _ask(self, verb: str, **args: Any) -> dict[str, Any]:
        began_s = time.monotonic()
        try:
            answer = self._daemon.ask(verb, timeout_s=120.0, **args)
        except Refused:
            answer = {}
        self.slowest_s[verb] = max(self.slowest_s.get(verb, 0.0), time.monotonic() - began_s)
        return answer


def measure(daemon: Daemon) -> dict[str, Any]:
    """How everything stands."""
    status = daemon.ask("status", timeout_s=120.0)
    row: dict[str, Any] = {
        "packets": sum(one["packets"] for one in status["interfaces"]),
        "lost": sum(one["kernel_drops"] for one in status["interfaces"]),
        "restarts": sum(one["restarts"] for one in status["packet_processes"]),
        "lag_s": status["loop_lag_s"],
        "incidents": status["incidents"]["open"],
        "blocks": status["blocks"]["active"],
        "disk_mib": {one.name: one.stat().st_size >> 20 for one in (daemon.folder / "state").iterdir()},
    }
    for name, pid in zip(("core", "packet"), (daemon.pid, *daemon.packet_pids()), strict=False):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        row[name] = {
            "rss_mib": daemon.memory_bytes()[pid] >> 20,
            "files": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
            "cpu_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),  # proc(5): utime, stime
        }
    return row


def endure(daemon: Daemon, ground: Ground, minutes: float) -> list[dict[str, Any]]:
    """The run; a row a part."""
    person = Person(daemon, 5)
    draw = random.Random(6)
    rows: list[dict[str, Any]] = []
    began_s = time.monotonic()
    number = 0
    late_s = 0.0
    while time.monotonic() < began_s + minutes * 60:
        number += 1
        name = f"x{number}.evil{draw.randrange(2 * LISTED)}.example" if number % 3 else f"y{number}.fine.example"
        ground.visit(draw.choice(HOSTS), name)
        if number % 10 == 0:
            person.look()
            late_s = max(late_s, float(daemon.ask("status", timeout_s=120.0)["loop_lag_s"]))
        if number % 20 == 0:
            person.act()
        passed_s = time.monotonic() - began_s
        if passed_s >= (len(rows) + 1) * minutes * 60 / PARTS:
            row = {"at_s": round(passed_s), **measure(daemon), "late_s": late_s, "slowest_s": person.slowest_s}
            rows.append(row)
            person.slowest_s, late_s = {}, 0.0
            print(told(row), flush=True)
        time.sleep(VISIT_S)
    return rows


def told(row: dict[str, Any]) -> str:
    """A row as a line."""
    verb, slowest_s = max(row["slowest_s"].items(), key=lambda one: float(one[1]), default=("-", 0.0))
    parts = (
        f"{name} {row[name]['rss_mib']:4} MiB {row[name]['files']:3} files {row[name]['cpu_s']:6.1f} s"
        for name in ("core", "packet")
        if name in row
    )
    return (
        f"{row['at_s']:6} s  {'; '.join(parts)}; late {row['late_s']:.2f} s, {verb} {slowest_s:.2f} s;"
        f" lost {row['lost']} of {row['packets']:,}; history {row['disk_mib'].get('history.db', 0)} MiB"
        f" (log {row['disk_mib'].get('history.db-wal', 0)})"
    )


def wrong(rows: list[dict[str, Any]]) -> list[str]:
    """What must not be."""
    last, third = rows[-1], rows[max(0, len(rows) * 3 // 4 - 1)]
    found = []
    if last["lost"]:
        found.append(f"{last['lost']} packets lost")
    if last["restarts"]:
        found.append(f"packet processes died {last['restarts']} times")
    for name in ("core", "packet"):
        if last[name]["files"] > rows[0][name]["files"] + MAX_MORE_FILES:
            found.append(f"{name}: {last[name]['files']} open files, {rows[0][name]['files']} at first")
        if last[name]["rss_mib"] > third[name]["rss_mib"] * (1 + MAX_GROWTH):
            found.append(
                f"{name}: {third[name]['rss_mib']} MiB after three quarters, {last[name]['rss_mib']} at the end"
            )
    return found


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="The whole daemon for an hour: does anything grow, or stand still?")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default %(default)s)")
    parser.add_argument("--rate", type=int, default=2_000, help="new names a second beside it (default %(default)s)")
    parser.add_argument("--compiled", type=Path, metavar="FOLDER", help="the copy that scripts/compile.py made")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows as JSON")
    args = parser.parse_args(argv)
    reason = missing()
    if reason:
        print(f"bench/endure.py {reason}", file=sys.stderr)
        return 1
    domains = [f"evil{number}.example" for number in range(2 * LISTED)]
    zone = {f"*.{domain}": [ADDRESSES[number % len(ADDRESSES)]] for number, domain in enumerate(domains)}
    listed = "".join(f"{domain}\n" for domain in domains[:LISTED])
    code = args.compiled.resolve() if args.compiled else TREE
    with (
        Ground(HOSTS, {**zone, "*.fine.example": ["198.51.100.80"]}) as ground,
        ground.daemon(listed, OPTIONS, code=code) as daemon,
        background(ground, "named", args.rate, args.minutes * 60 + 60),
    ):
        rows = endure(daemon, ground, args.minutes)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    problems = wrong(rows)
    print("\n".join(problems) or "nothing grew, nothing was lost, nobody died")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
