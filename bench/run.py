"""egressd against its aims and against what else reads captures, on this machine: `python bench/run.py`.

Captures are made once (bench/traffic.py) and read by each program in turn, several times over; what is compared is
processor time, user and system together. The table goes to standard output, the same as JSON to bench/work/result.json;
`--compare A B` shows what changed between two of those files. bench/README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import peers
from bench.captures import WORK, Capture, prepare
from bench.measure import Cost, calibrate, machine, run, summed, version_of
from bench.report import compare, render
from bench.traffic import KINDS, PACKETS

FLOODS: Final = ("subdomains", "syn", "hellos", "quic")
QUICK: Final = {"bulk": 5000, "names": 1000, "subdomains": 1000, "syn": 2000, "hellos": 1000, "quic": 1000}


class Case(NamedTuple):
    """A program on a capture. `tree` is the directory that egressd is imported from, None for other programs."""

    name: str
    command: list[str]
    packets: int
    tree: Path | None
    peer: peers.Peer | None = None


def environment(tree: Path) -> dict[str, str]:
    """Where egressd is imported from. Byte code is kept, as in an installation."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(WORK / "pycache")}


def replay(python: str, capture: Path, blocklist: Path, *options: str) -> list[str]:
    """The command that users give."""
    return [python, "-m", "egressd", "replay", "--list", str(blocklist), *options, str(capture)]


def cases(capture: Capture, trees: dict[str, Path], python: str, others: list[tuple[peers.Peer, str]]) -> list[Case]:
    """Every program on a capture; the reader without the gate where the gate has something to say."""
    file, packets = capture.file, capture.packets
    rows = []
    for note, options in (("", ()), (", --no-prefilter", ("--no-prefilter",))):
        if options and capture.kind not in ("bulk", "names"):
            continue
        for build, tree in trees.items():
            command = replay(python, file, capture.blocklist, *options)
            rows.append(Case(f"egressd {build}{note}", command, packets, tree))
    for peer, _ in others:
        part, count, _ = peers.target(peer, capture)
        rows.append(Case(peer.name, peer.command(part, peers.folder_of(peer)), count, None, peer))
    return rows


def measure(capture: Capture, rows: list[Case], runs: int) -> tuple[list[dict[str, Any]], list[float]]:
    """The costs of each row, and the machine's speed between them. Rows take turns, so that a busy minute of the
    machine meets all of them."""
    costs: list[list[Cost]] = [[] for _ in rows]
    found: list[set[str]] = [set() for _ in rows]
    steadiness: list[float] = []
    for _ in range(runs):
        for at, row in enumerate(rows):
            steadiness.append(calibrate())
            say(f"{capture.file.name}: {row.name} ...")
            where = environment(row.tree) if row.tree else None
            costs[at].append(run(row.command, WORK / "out", where, row.tree))
            if row.peer is not None and row.peer.tells:
                written = peers.folder_of(row.peer) / row.peer.writes if row.peer.writes else WORK / "out"
                found[at] = peers.names_in(written)
    turn_ns = median(steadiness)
    results = []
    for at, row in enumerate(rows):
        told = summed(costs[at])
        told.update(name=row.name, packets=row.packets, us=round(told["cpu_s"] / row.packets * 1e6, 3))
        told["best_us"] = round(told["cpu_best_s"] / row.packets * 1e6, 3)
        told["per_s"] = round(row.packets / told["cpu_s"])
        told["turns"] = round(told["us"] * 1e3 / turn_ns, 2)
        planted = peers.target(row.peer, capture)[2] if row.peer is not None else set(capture.planted)
        tells = row.peer is None or row.peer.tells
        told["planted"] = len(planted) if tells else -1
        told["found"] = len(found[at] & planted) if tells else -1
        results.append(told)
    for told in results:
        told["times"] = round(told["us"] / results[0]["us"], 2)
    return results, steadiness


def commands(python: str, trees: dict[str, Path], runs: int) -> dict[str, dict[str, float]]:
    """Processor seconds of the small commands of each build."""
    spent: dict[str, dict[str, float]] = {}
    for build, tree in trees.items():
        spent[build] = {}
        for word in ("--help", "version"):
            command = [python, "-m", "egressd", word]
            run(command, WORK / "out", environment(tree), tree)  # writes the byte code
            costs = [run(command, WORK / "out", environment(tree), tree) for _ in range(runs)]
            spent[build][word] = summed(costs)["cpu_s"]
    return spent


def start_up(python: str, capture: Capture, trees: dict[str, Path], runs: int) -> dict[str, float]:
    """Processor seconds of each build on a capture without packets: what a row pays before its first packet."""
    empty = WORK / "empty.pcap"
    empty.write_bytes(capture.file.open("rb").read(24))
    spent: dict[str, float] = {}
    for build, tree in trees.items():
        command = replay(python, empty, capture.blocklist)
        run(command, WORK / "out", environment(tree), tree)  # writes the byte code
        spent[build] = summed([run(command, WORK / "out", environment(tree), tree) for _ in range(runs)])["cpu_s"]
    return spent


def recall(capture: Capture, trees: dict[str, Path], python: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Note in egressd's rows how many of the planted names each finds; a digest of what each build says in each way,
    which must all be the same."""
    out = WORK / "found"
    digests: dict[str, str] = {}
    for build, tree in trees.items():
        for note, options in (
            ("", ()),
            (", --no-prefilter", ("--no-prefilter",)),
            (", --jobs 2", ("--jobs", "2")),
        ):
            say(f"{capture.file.name}: names that egressd {build}{note} finds ...")
            run(replay(python, capture.file, capture.blocklist, "--json", *options), out, environment(tree), tree)
            seen = set()
            for line in out.open(encoding="utf-8"):
                event = json.loads(line)
                if event["event_type"] == "sighting":
                    seen.add(event["egressd"]["name"])
            digests[build + note] = sha256(out.read_bytes()).hexdigest()
            for row in rows:
                if row["name"] == f"egressd {build}{note}":
                    row["found"] = len(seen & set(capture.planted))
    return digests


def told_by(script: str, words: list[str], python: str, tree: Path) -> dict[str, Any]:
    """What another program of the benchmark says in JSON, with egressd from `tree`; {} when it fails."""
    out = WORK / "told"
    cost = run([python, str(ROOT / "bench" / script), *words], out, environment(tree), tree)
    found: dict[str, Any] = json.loads(out.read_bytes()) if cost.code == 0 else {}
    return found


def compiled_tree(python: str, profile: bool) -> Path | None:
    """A compiled copy of the packet path, made by scripts/compile.py where that can be done. One that was made by a
    profile before is taken in any case."""
    tree = WORK / "compiled"
    words = ["--profile"] if profile else []
    say(f"compiling the packet path ({'six' if profile else 'two'} minutes on two cores when it has changed) ...")
    command = [python, str(ROOT / "scripts" / "compile.py"), "--into", str(tree), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not any(tree.rglob("*.so")):
        say(done.stdout.strip() or done.stderr.strip())
        return None
    return tree


def other_programs(args: argparse.Namespace, trees: dict[str, Path]) -> dict[str, list[str]]:
    """The tables of bench/index.py and, as root, of bench/live.py and bench/tap.py, as they print them."""
    tables: dict[str, list[str]] = {"index": [], "live": []}
    compiled = ["--compiled", str(trees["compiled"])] if "compiled" in trees else []
    for names in args.names:
        tables["index"].append(printed("index.py", ["--names", str(names), *compiled], args.python))
    if os.geteuid() == 0 and args.live:
        tables["live"].append(printed("tap.py", compiled, args.python))
        words = ["first", "queue", "load", "--scale", str(args.live), *compiled]
        tables["live"].append(printed("live.py", words, args.python))
    return tables


def printed(script: str, words: list[str], python: str) -> str:
    """What another program of the benchmark prints."""
    say(f"bench/{script} {' '.join(words)} ...")
    command = [python, str(ROOT / "bench" / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"bench/{script}: {done.stderr.strip()[-200:]}"


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Everything."""
    WORK.mkdir(parents=True, exist_ok=True)
    python = args.python
    others, lacking = peers.installed(args.without, args.nfstream_python)
    trees = {"pure": ROOT}
    compiled = None if "compiled" in args.without else compiled_tree(python, args.profile)
    if compiled is not None:
        trees = {"compiled": compiled, **trees}
    result: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "python": f"Python {version_of([python, '--version']).partition(' ')[2]}",
        "tools": {peer.name: version for peer, version in others},
        "lacking": lacking,
        "runs": args.runs,
        "filter": peers.FILTER,
        "builds": list(trees),
        "commands": commands(python, trees, args.runs),
        "captures": {},
    }
    steadiness: list[float] = []
    for kind, packets in args.packets.items():
        capture = prepare(kind, packets, python)
        spent = start_up(python, capture, trees, args.runs)
        rows, turns = measure(capture, cases(capture, trees, python, others), args.runs)
        steadiness += turns
        where = [str(capture.file), str(capture.blocklist)]
        told = {"kind": kind, "packets": packets, "octets": capture.octets, "name_packets": capture.name_packets}
        told.update(start_up_s=spent, rows=rows, digests=recall(capture, trees, python, rows))
        told["floor"] = told_by("floor.py", [str(capture.file), str(packets)], python, ROOT)
        told["stages"] = {build: told_by("stages.py", where, python, tree) for build, tree in trees.items()}
        if kind in ("bulk", "names"):
            told["parallel"] = {
                build: [told_by("parallel.py", [*where, jobs], python, tree) for jobs in ("1", "2", "3")]
                for build, tree in trees.items()
            }
        result["captures"][kind] = told
    result["loop_ns"] = [round(min(steadiness), 1), round(max(steadiness), 1)]
    result.update(other_programs(args, trees))
    result["load_after"] = machine()["load"]
    return result


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure egressd and its peers on generated captures.")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=["bulk", "names", *FLOODS])
    parser.add_argument("--runs", type=int, default=3, help="of which the median is taken (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small captures, one run, nothing compiled: does it work?")
    parser.add_argument("--names", nargs="*", type=int, default=[100_000, 1_000_000], help="lengths of lists to index")
    parser.add_argument("--live", type=float, default=0.2, help="scale of the live benches, as root; 0: none")
    parser.add_argument(
        "--profile", action="store_true", help="compiled as published wheels are: two or three minutes more"
    )
    parser.add_argument("--without", action="append", default=[], help="a program, or compiled; repeat")
    parser.add_argument("--python", default=sys.executable, help="interpreter that egressd runs with")
    parser.add_argument("--nfstream-python", default="", help="interpreter that has nfstream, if it is another one")
    parser.add_argument("--out", type=Path, default=WORK / "result.json", help="where the JSON goes")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="two results; exit 1 when B is slower"
    )
    args = parser.parse_args(argv)
    if args.compare:
        text, slower = compare(*args.compare)
        print(text)
        return int(slower > 0)
    args.packets = {kind: QUICK[kind] if args.quick else PACKETS[kind] for kind in args.kinds}
    if args.quick:
        args.runs, args.names, args.live = 1, [], 0.0
        args.without.append("compiled")
    result = bench(args)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(render(result))
    failed = [row["name"] for told in result["captures"].values() for row in told["rows"] if row["code"]]
    if failed:
        say(f"failed, so the figures mean nothing: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
