"""egressd against its aims and against tcpdump and tshark, on this machine: `python bench/run.py`.

Two captures are made once (bench/traffic.py) and read by each program in turn, several times over; what is compared is
processor time, user and system together. The table goes to standard output, the same as JSON to bench/work/result.json;
`--compare A B` shows what changed between two of those files. bench/README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.measure import Cost, calibrate, machine, run, summed, version_of

AIM_BULK_PER_S: Final = 2_000_000
AIM_NAMES_US: Final = 15.0
AIM_PEAK_BYTES: Final = 200_000_000
WORK: Final = ROOT / "bench" / "work"
SLICE_PACKETS: Final = 100_000  # of the bulk capture that tshark reads: all of it would take a minute and 2 GB

_TCP: Final = "tcp[((tcp[12] & 0xf0) >> 2)"
_TCP6: Final = "ip6[40 + ((ip6[52] & 0xf0) >> 2)"
_HEADS: Final = ("2] = 0x1603", "4] = 0x47455420", "4] = 0x504f5354", "4] = 0x48454144", "4] = 0x50555420")
# What a capture filter can ask for to keep the packets that begin with a name: DNS, QUIC's long header toward 443,
# TCP's opening and closing, and payload that begins like TLS, GET, POST, HEAD or PUT. It cannot follow a ClientHello
# into its second segment.
FILTER: Final = " or ".join(
    (
        "port 53",
        "(udp dst port 443 and udp[8] & 0xc0 = 0xc0)",
        "(ip6[6] = 17 and ip6[42:2] = 443 and ip6[48] & 0xc0 = 0xc0)",
        "tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0",
        "(ip6[6] = 6 and ip6[53] & 7 != 0)",
        *(f"{_TCP}:{head}" for head in _HEADS),
        *(f"(ip6[6] = 6 and {_TCP6}:{head})" for head in _HEADS),
    )
)
NAME_FIELDS: Final = ("dns.qry.name", "http.host", "tls.handshake.extensions_server_name")


class Case(NamedTuple):
    """A program on a capture. `tree` is the directory that egressd is imported from, None for other programs."""

    name: str
    command: list[str]
    packets: int
    tree: Path | None
    capture: Path


class Capture(NamedTuple):
    """A capture of the benchmark. `part` is its beginning, for the slow program."""

    file: Path
    packets: int
    octets: int
    planted: dict[str, tuple[str, int]]
    part: Path
    part_packets: int

    @property
    def blocklist(self) -> Path:
        """The blocklist that belongs to it."""
        return self.file.with_name(self.file.name + ".list")


def prepare(kind: str, packets: int, python: str) -> Capture:
    """Make a capture, unless it is there already. In a process of its own, so that this one stays small."""
    file = WORK / f"{kind}-{packets}.pcap"
    described = file.with_name(file.name + ".json")
    maker = ROOT / "bench" / "traffic.py"
    stamp = file.with_name(file.name + ".made-by")
    made_by = sha256(maker.read_bytes() + (ROOT / "pcaps" / "hellos.py").read_bytes()).hexdigest()
    if not (file.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == made_by):
        say(f"writing {file.name} ...")
        subprocess.run(
            [python, str(maker), kind, str(file), "--packets", str(packets)], check=True, stdout=subprocess.DEVNULL
        )
        stamp.write_text(made_by, encoding="ascii")
    told = json.loads(described.read_text(encoding="ascii"))
    part_packets = min(packets, SLICE_PACKETS)
    part = file
    if part_packets < packets:
        part = file.with_name(f"{kind}-{packets}-first-{part_packets}.pcap")
        cut(file, part, part_packets)
    return Capture(file, packets, told["octets"], {k: tuple(v) for k, v in told["planted"].items()}, part, part_packets)


def cut(file: Path, part: Path, packets: int) -> None:
    """The first packets of a capture as a capture."""
    with file.open("rb") as source, part.open("wb") as out:
        out.write(source.read(24))
        for _ in range(packets):
            head = source.read(16)
            out.write(head)
            out.write(source.read(int.from_bytes(head[8:12], "little")))


def environment(tree: Path) -> dict[str, str]:
    """Where egressd is imported from. Byte code is kept, as in an installation."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(WORK / "pycache")}


def replay(python: str, capture: Path, blocklist: Path, *options: str) -> list[str]:
    """The command that users give."""
    return [python, "-m", "egressd", "replay", "--list", str(blocklist), *options, str(capture)]


def cases(capture: Capture, trees: dict[str, Path], python: str, tools: dict[str, str]) -> Iterator[Case]:
    """Every program on a capture."""
    file, packets = capture.file, capture.packets
    if "tcpdump" in tools:
        yield Case("tcpdump, filter", ["tcpdump", "-r", str(file), "-w", "/dev/null", FILTER], packets, None, file)
    for build, tree in trees.items():
        yield Case(f"egressd {build}", replay(python, file, capture.blocklist), packets, tree, file)
    for build, tree in trees.items():
        command = replay(python, file, capture.blocklist, "--no-prefilter")
        yield Case(f"egressd {build}, --no-prefilter", command, packets, tree, file)
    if "tshark" in tools:
        fields = [word for field in NAME_FIELDS for word in ("-e", field)]
        command = ["tshark", "-n", "-r", str(capture.part), "-T", "fields", *fields]
        yield Case("tshark -T fields", command, capture.part_packets, None, capture.part)


def measure(capture: Capture, rows: list[Case], runs: int) -> tuple[list[dict[str, Any]], list[float]]:
    """The costs of each row, and the machine's speed between them. Rows take turns, so that a busy minute of the
    machine meets all of them."""
    costs: list[list[Cost]] = [[] for _ in rows]
    steadiness: list[float] = []
    for _ in range(runs):
        for at, row in enumerate(rows):
            steadiness.append(calibrate())
            say(f"{capture.file.name}: {row.name} ...")
            where = environment(row.tree) if row.tree else None
            costs[at].append(run(row.command, WORK / "out", where, row.tree))
    results = []
    for row, spent in zip(rows, costs, strict=True):
        found = summed(spent)
        found.update(name=row.name, packets=row.packets, us=round(found["cpu_s"] / row.packets * 1e6, 3))
        found["best_us"] = round(found["cpu_best_s"] / row.packets * 1e6, 3)
        found["per_s"] = round(row.packets / found["cpu_s"])
        results.append(found)
    floor = next((row for row in results if row["name"].startswith("tcpdump")), None)
    for found in results:
        found["times_tcpdump"] = round(found["us"] / floor["us"], 1) if floor else None
    return results, steadiness


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


def recall(capture: Capture, trees: dict[str, Path], python: str, tools: dict[str, str]) -> dict[str, Any]:
    """How many of the planted names each program finds, and whether egressd's builds say the same to the byte."""
    planted = set(capture.planted)
    early = {name for name, (_, number) in capture.planted.items() if number <= capture.part_packets}
    found: dict[str, Any] = {"planted": len(planted), "planted_in_part": len(early), "digests": {}}
    out = WORK / "found"
    for build, tree in trees.items():
        for note, options in (("", ()), (", --no-prefilter", ("--no-prefilter",))):
            say(f"{capture.file.name}: names that egressd {build}{note} finds ...")
            run(replay(python, capture.file, capture.blocklist, "--json", *options), out, environment(tree), tree)
            seen = set()
            for line in out.open(encoding="utf-8"):
                event = json.loads(line)
                if event["event_type"] == "sighting":
                    seen.add(event["egressd"]["name"])
            found[f"egressd {build}{note}"] = len(seen & planted)
            found["digests"][build + note] = sha256(out.read_bytes()).hexdigest()
    if "tshark" in tools:
        say(f"{capture.file.name}: names that tshark finds ...")
        fields = [word for field in NAME_FIELDS for word in ("-e", field)]
        run(["tshark", "-n", "-r", str(capture.part), "-T", "fields", *fields], out)
        text = out.read_text(encoding="utf-8", errors="replace")
        found["tshark -T fields"] = len({name for name in text.replace(",", "\t").split() if name in early})
    return found


def stages(capture: Capture, trees: dict[str, Path], python: str) -> dict[str, Any]:
    """bench/stages.py for each build."""
    results = {}
    for build, tree in trees.items():
        say(f"{capture.file.name}: stages of egressd {build} ...")
        out = WORK / "stages"
        script = str(ROOT / "bench" / "stages.py")
        cost = run([python, script, str(capture.file), str(capture.blocklist)], out, environment(tree), tree)
        results[build] = json.loads(out.read_bytes()) if cost.code == 0 else {}
    return results


def compiled_tree(python: str) -> Path | None:
    """A compiled copy of the packet path, made by scripts/compile.py where that can be done."""
    tree = WORK / "compiled"
    script = ROOT / "scripts" / "compile.py"
    say("compiling the packet path (a few minutes when it has changed) ...")
    done = subprocess.run([python, str(script), "--into", str(tree)], capture_output=True, text=True, check=False)
    if not any(tree.rglob("*.so")):
        say(done.stdout.strip() or done.stderr.strip())
        return None
    return tree


# -- telling


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def render(result: dict[str, Any]) -> str:
    """The tables."""
    about = result["machine"]
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['system']}, load {about['load'][0]} to "
        f"{result['load_after'][0]}",
        f"{result['python']}; " + "; ".join(result["tools"].values()),
        f"fixed loop: {result['loop_ns'][0]:.0f} to {result['loop_ns'][1]:.0f} ns a turn "
        f"({result['loop_ns'][1] / result['loop_ns'][0]:.1f}x): no difference below that means anything",
        "",
    ]
    for kind, told in result["captures"].items():
        octets = told["octets"]
        lines.append(
            f"{kind}: {told['packets']:,} packets, {octets / 1e6:,.0f} MB, {told['name_packets']:,} with a name, "
            f"median of {result['runs']}"
        )
        lines.append(
            f"{'':34}{'CPU us/packet':>14}{'best':>9}{'packets/CPU s':>15}{'x tcpdump':>11}{'MB':>6}{'found':>13}"
        )
        names = told["recall"]
        for row in told["rows"]:
            planted = names["planted_in_part"] if row["name"].startswith("tshark") else names["planted"]
            found = f"{names[row['name']]}/{planted}" if row["name"] in names else ""
            times = f"{row['times_tcpdump']:.1f}" if row["times_tcpdump"] else ""
            note = "" if row["packets"] == told["packets"] else f" (first {row['packets']:,})"
            lines.append(
                f"{row['name'] + note:34}{row['us']:14.3f}{row['best_us']:9.3f}{row['per_s']:15,}{times:>11}"
                f"{row['peak_bytes'] / 1e6:6.0f}{found:>13}"
                + ("" if row["code"] == 0 else f"  exit code {row['code']}")
            )
        for build, one in told["stages"].items():
            spent_us = told["start_up_s"][build] / told["packets"] * 1e6
            lines.append(
                f"  {build}: start {told['start_up_s'][build]:.2f} s ({spent_us:.2f} us/packet); "
                + "; ".join(f"{name} {one[name + '_ns']:,} ns" for name in ("read", "gate", "dissect", "engine") if one)
            )
        same = len(set(names["digests"].values())) == 1
        lines += [f"  builds and gate agree to the byte: {'yes' if same else 'NO'}", ""]
    return "\n".join(lines + verdicts(result))


def verdicts(result: dict[str, Any]) -> list[str]:
    """The aims, and whether each is met."""
    lines = []
    for build in result["builds"]:
        rows = {kind: row_of(told["rows"], f"egressd {build}") for kind, told in result["captures"].items()}
        bulk, names = rows["bulk"], rows["names"]
        peak = max(bulk["peak_bytes"], names["peak_bytes"])
        lines += [
            f"{build}: bulk {bulk['per_s'] / 1e6:.2f} M packets/s (aim {AIM_BULK_PER_S / 1e6:g}): "
            + ("met" if bulk["per_s"] >= AIM_BULK_PER_S else "missed")
            + f"; names {names['us']:.1f} us/packet (aim {AIM_NAMES_US:g}): "
            + ("met" if names["us"] <= AIM_NAMES_US else "missed")
            + f"; memory {peak / 1e6:.0f} MB (aim {AIM_PEAK_BYTES / 1e6:g}): "
            + ("met" if peak <= AIM_PEAK_BYTES else "missed")
            + f"; planted names {'all found' if all_found(result, build) else 'NOT all found'}"
        ]
    return lines


def all_found(result: dict[str, Any], build: str) -> bool:
    """Whether a build finds every planted name, with the gate and without."""
    names = [told["recall"] for told in result["captures"].values()]
    found = (one[f"egressd {build}{note}"] == one["planted"] for one in names for note in ("", ", --no-prefilter"))
    return all(found)


def row_of(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The row of that name."""
    return next(row for row in rows if row["name"] == name)


def compare(first: Path, second: Path) -> str:
    """What changed from one result to the other."""
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (first, second))
    lines = [f"{'CPU us/packet':46}{'before':>10}{'after':>10}{'change':>9}"]
    for kind, told in after["captures"].items():
        old = {row["name"]: row for row in before["captures"].get(kind, {}).get("rows", [])}
        for row in told["rows"]:
            if row["name"] in old:
                was, now = old[row["name"]]["us"], row["us"]
                lines.append(f"{kind + ': ' + row['name']:46}{was:10.3f}{now:10.3f}{now / was - 1:+9.0%}")
    slower = after["loop_ns"][0] / before["loop_ns"][0] - 1
    lines.append(f"The machine itself (fixed loop, best): {slower:+.0%}")
    return "\n".join(lines)


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Everything."""
    WORK.mkdir(parents=True, exist_ok=True)
    python = args.python
    candidates = {"tcpdump": ["tcpdump", "--version"], "tshark": ["tshark", "--version"]}
    tools = {
        name: version_of(ask) for name, ask in candidates.items() if shutil.which(name) and name not in args.without
    }
    trees = {"pure": ROOT}
    compiled = None if "compiled" in args.without else compiled_tree(python)
    if compiled is not None:
        trees = {"compiled": compiled, **trees}
    result: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "python": f"Python {version_of([python, '--version']).partition(' ')[2]}",
        "tools": tools,
        "runs": args.runs,
        "filter": FILTER,
        "builds": list(trees),
        "captures": {},
    }
    steadiness: list[float] = []
    for kind, packets in (("bulk", args.packets), ("names", args.names_packets)):
        capture = prepare(kind, packets, python)
        described = json.loads(capture.file.with_name(capture.file.name + ".json").read_text(encoding="ascii"))
        spent = start_up(python, capture, trees, args.runs)
        rows, turns = measure(capture, list(cases(capture, trees, python, tools)), args.runs)
        steadiness += turns
        result["captures"][kind] = {
            "packets": packets,
            "octets": capture.octets,
            "name_packets": described["name_packets"],
            "start_up_s": spent,
            "rows": rows,
            "recall": recall(capture, trees, python, tools),
            "stages": stages(capture, trees, python),
        }
    result["loop_ns"] = [round(min(steadiness), 1), round(max(steadiness), 1)]
    result["load_after"] = machine()["load"]
    return result


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure egressd, tcpdump and tshark on generated captures.")
    parser.add_argument("--packets", type=int, default=2_100_000, help="of the bulk capture (default %(default)s)")
    parser.add_argument("--names-packets", type=int, default=100_000, help="of the other (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is taken (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small captures, one run, nothing compiled: does it work?")
    parser.add_argument("--without", action="append", default=[], choices=("tcpdump", "tshark", "compiled"))
    parser.add_argument("--python", default=sys.executable, help="interpreter that egressd runs with")
    parser.add_argument("--out", type=Path, default=WORK / "result.json", help="where the JSON goes")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two results; measures nothing")
    args = parser.parse_args(argv)
    if args.compare:
        print(compare(*args.compare))
        return 0
    if args.quick:
        args.packets, args.names_packets, args.runs = 5000, 1000, 1
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
