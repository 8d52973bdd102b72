"""What an index of a million or ten million names costs: `python bench/index.py [--names N] [--compiled FOLDER]`.

A list of N made-up names is built by the child process that the daemon starts, found again as at the next start, and
asked; then a list of ten lines beside it changes, and the engine of a packet process is told, with as much
history as can wait.
Everything that a packet process does is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
if "EGRESSD_TREE" not in os.environ:
    sys.path.insert(0, str(ROOT))

from egressd.config.load import LoadedIntel, default_config, load_intel
from egressd.config.settings import policy_settings
from egressd.detect.gathering import MAX_GATHERED
from egressd.detect.intel import Intel
from egressd.detect.live import LiveEngine
from egressd.intel.formats import parse_list
from egressd.intel.index_format import SALT_BYTES
from egressd.intel.layered import LayeredIndex
from egressd.intel.mapped_build import IndexBuilder
from egressd.model import DNS_QUERY, Event, FlowKey, Indicator
from egressd.runtime.index_build import builder_in
from egressd.store.index_files import ScratchFile, open_index

MISSES: Final = 1_000_000
HITS: Final = 10_000
NOW_US: Final = 1_800_000_000_000_000
WORK: Final = ROOT / "bench" / "work"
MIB: Final = 1 << 20
SLICE: Final = 1_000_000  # names of one list file: longer files are not read


def name_of(number: int) -> str:
    """A listed name; one of five shares its registered domain with others."""
    domain = f"n{number}-{number * 2_654_435_761 & 0xFFFFFF:x}.example"
    return domain if number % 5 else f"h{number}.shared{number % 50_000}.example"


def write_lists(folder: Path, names: int) -> list[Path]:
    """List files, and a short one beside them."""
    paths = []
    for start in range(0, names, SLICE):
        path = folder / f"feed-{start // SLICE}.txt"
        with path.open("w", encoding="ascii") as file:
            file.writelines(f"{name_of(number)}\n" for number in range(start, min(names, start + SLICE)))
        paths.append(path)
    short = folder / "ours.txt"
    short.write_text("".join(f"ours{number}.example\n" for number in range(10)), encoding="ascii")
    return [*paths, short]


def load(folder: Path, lists: list[Path]) -> LoadedIntel:
    """As the daemon loads."""
    loaded = load_intel(default_config(), lists, base_dir=folder, build=builder_in(folder / "indexes"))
    loaded.check()
    return loaded


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    began_s = clock()
    result = call()
    return clock() - began_s, result


def spent(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, and what came of it."""
    return timed(call, time.process_time)


# -- in a process of its own


def resident() -> tuple[int, int]:
    """(all, private) bytes of this process that are in memory (proc(5), smaps_rollup)."""
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        word, number = line.split()[:2]
        sizes[word.rstrip(":")] = int(number) * 1024
    return sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


def ask(folder: Path, path: str, names: int, misses: int) -> dict[str, float]:
    """Look-ups, in processor time each, and memory that comes with them."""
    suffixes = load_intel(default_config(), base_dir=folder).intel.suffixes
    rng = random.Random(1)
    missing = [f"m{number}-{rng.getrandbits(40):x}.example" for number in range(misses)]
    listed = ["www." + name_of(rng.randrange(names)) for _ in range(HITS)]
    count = sum(suffixes.split(name)[0] != "" for name in missing)  # what it remembers is there already
    split_s, _ = spent(lambda: sum(suffixes.split(name)[0] != "" for name in missing))
    gc.collect()
    before = resident()
    open_s, index = timed(lambda: open_index(path, b"", suffixes))
    miss_s, missed = spent(lambda: sum(index.match_name(name, 0) is None for name in missing))
    known_s, _ = spent(lambda: sum(index.match_split(name, name, "", 0) is None for name in missing))
    hit_s, hits = spent(lambda: sum(index.match_name(name, 0) is not None for name in listed))
    again_s, _ = spent(lambda: sum(index.match_name(name, 0) is not None for name in listed))
    after = resident()
    if missed != misses or count != misses or hits != HITS:
        raise SystemExit(f"wrong answers: {misses - missed} found that are not there, {HITS - hits} not found")
    return {
        "open_ms": open_s * 1e3, "split_ns": split_s / misses * 1e9, "miss_ns": miss_s / misses * 1e9,
        "miss_known_ns": known_s / misses * 1e9, "hit_first_us": hit_s / HITS * 1e6, "hit_us": again_s / HITS * 1e6,
        "rss_mib": (after[0] - before[0]) / MIB, "private_mib": (after[1] - before[1]) / MIB,
    }  # fmt: skip


def stall(old: Path, new: Path) -> dict[str, float]:
    """How long a packet process that is told of new lists reads no packet: taking the order in, the swap, and the
    longest of the steps that follow it between packets."""
    events: list[Event] = []
    intel = pickle.loads(old.read_bytes())
    settings = policy_settings(default_config())
    engine = LiveEngine(intel, settings, events.append, enforced=False)
    for number in range(MAX_GATHERED):
        name = f"c{number}.example" if number % 1_000 else f"c{number}.ours-new.example"
        flow = FlowKey(17, bytes((10, 0, number >> 8 & 255, number & 255)), 40_000, b"\xc0\x00\x02\x35", 53)
        engine.history.record(flow, name, NOW_US, 0, DNS_QUERY)
    gc.collect()
    gc.freeze()
    gc.disable()
    body = new.read_bytes()
    take_s, arrived = timed(lambda: pickle.loads(body))
    swap_s, _ = timed(lambda: engine.swap(arrived, settings, False, NOW_US + 1_000_000))
    steps = []
    while engine.is_busy:
        steps.append(timed(lambda: engine.carry_on(1))[0])
    longest_s = max(steps, default=0.0)
    told = sum(getattr(event, "retro", False) for event in events)
    return {
        "order_bytes": len(body), "take_ms": take_s * 1e3, "swap_ms": swap_s * 1e3, "step_ms": longest_s * 1e3,
        "stall_ms": max(take_s + swap_s, longest_s) * 1e3, "steps": len(steps), "hunt_s": sum(steps), "told": told,
    }  # fmt: skip


# -- all of it


def made(names: int) -> Iterator[Indicator]:
    """Indicators as if read."""
    for number in range(names):
        name = name_of(number)
        domain = name[name.index(".") + 1 :] if number % 5 == 0 else name
        yield Indicator(
            "domain", name, "registered", "", domain, "* (unlisted)", "f", number, "", 100, 0, 0, "", ""
        )  # fmt: skip


def build_alone(names: int, folder: Path) -> dict[str, float]:
    """The builder without reading: with making the indicators, and how long making them takes by itself."""
    gc.disable()
    make_s, _ = timed(lambda: sum(1 for _ in made(names)))
    builder = IndexBuilder(os.urandom(SALT_BYTES), bytes(16), 0, partial(ScratchFile, folder))
    take_s, _ = timed(lambda: builder.extend(made(names)))
    with (folder / "alone.idx").open("w+b") as file:
        write_s, head = timed(lambda: builder.write(file))
    (folder / "alone.idx").unlink()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "make_s": make_s, "build_s": take_s + write_s, "bytes_a_name": head.file_bytes / names,
        "build_peak_mib": int(peak.split()[1]) / 1024,
    }  # fmt: skip


def parse_alone(path: Path, loaded: LoadedIntel) -> float:
    """Seconds for a million lines."""
    text = path.read_text(encoding="ascii")
    took_s, (found, _) = timed(
        lambda: parse_list(text, "f", loaded.intel.suffixes, loaded.guard, protected=loaded.intel.protected)
    )
    return took_s / len(found) * 1e6


def child(tree: Path, *words: str) -> dict[str, float]:
    """Run a part of this in a process of its own, with the code of `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "EGRESSD_TREE": str(tree)}
    done = subprocess.run(
        [sys.executable, __file__, "--part", *words], env=environment, stdout=subprocess.PIPE, check=True, cwd="/"
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(names: int, misses: int, folder: Path, tree: Path) -> dict[str, float]:
    """Everything with the code of one tree. The folder is empty."""
    lists = write_lists(folder, names)
    os.environ["PYTHONPATH"] = str(tree)  # of the child that builds
    os.chdir(folder)  # where there is no other egressd
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    first_s, loaded = timed(lambda: load(folder, lists))
    total = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = total.ru_utime + total.ru_stime - used.ru_utime - used.ru_stime
    start_s, loaded = timed(lambda: load(folder, lists))
    index = loaded.intel.index
    if not isinstance(index, LayeredIndex) or index.lowers[0].reopen is None:
        raise SystemExit("the lists were not built")
    (folder / "old").write_bytes(pickle.dumps(loaded.intel, pickle.HIGHEST_PROTOCOL))
    lists[-1].write_text("ours-new.example\n", encoding="ascii")
    ten_s, changed = timed(lambda: load(folder, lists))
    (folder / "new").write_bytes(pickle.dumps(changed.intel, pickle.HIGHEST_PROTOCOL))
    result = {
        "load_s": first_s,
        "load_cpu_s": cpu_s,
        "start_s": start_s,
        "ten_lines_s": ten_s,
        "parse_us": parse_alone(lists[0], loaded),
    }
    result |= child(tree, "build", str(folder), str(names))
    result |= child(tree, "ask", str(folder), index.lowers[0].reopen[1][0], str(names), str(misses))
    result |= child(tree, "stall", str(folder / "old"), str(folder / "new"))
    # All of it is new to who had only the short list.
    empty = Intel(changed.intel.index.upper, *intel_rest(changed.intel))  # type: ignore[union-attr]
    (folder / "old").write_bytes(pickle.dumps(empty, pickle.HIGHEST_PROTOCOL))
    anew = child(tree, "stall", str(folder / "old"), str(folder / "new"))
    return result | {"all_" + key: value for key, value in anew.items()}


def intel_rest(intel: Intel) -> tuple[Any, ...]:
    """All but the index."""
    return intel.suffixes, intel.allowances, intel.protected, intel.resolvers, intel.shared


ROWS: Final = (
    ("load_s", "lists to index, by the child, whole: parse, build, write, open", "s"),
    ("load_cpu_s", "of that, processor time of the child", "s"),
    ("parse_us", "of that, parsing", "us a name"),
    ("build_s", "builder alone, indicators made on the way", "s"),
    ("make_s", "of that, making them", "s"),
    ("build_peak_mib", "builder's most memory", "MiB"),
    ("bytes_a_name", "file", "bytes a name"),
    ("start_s", "load with a built index", "s"),
    ("ten_lines_s", "load when ten lines beside it changed", "s"),
    ("open_ms", "open the file", "ms"),
    ("miss_ns", "miss, random names", "ns"),
    ("split_ns", "of that, splitting at the suffix", "ns"),
    ("miss_known_ns", "miss of a name that was split already", "ns"),
    ("hit_first_us", "hit, first time", "us"),
    ("hit_us", "hit, again", "us"),
    ("rss_mib", "memory that a process sees after a million misses and 20,000 hits", "MiB"),
    ("private_mib", "of that, nobody else sees", "MiB"),
    ("order_bytes", "order to a packet process", "bytes"),
    ("take_ms", "packet process: take the order in", "ms"),
    ("swap_ms", "packet process: swap, with all the history that can wait", "ms"),
    ("step_ms", "packet process: longest step afterwards", "ms"),
    ("stall_ms", "packet process: longest time without reading", "ms"),
    ("hunt_s", "packet process: all steps of the hunt", "s"),
    ("all_stall_ms", "the same when every name is new", "ms"),
    ("all_step_ms", "the same: longest step", "ms"),
)


def main(argv: list[str]) -> int:
    """Command line."""
    if argv[:1] == ["--part"]:
        part, *words = argv[1:]
        if part == "build":
            result = build_alone(int(words[1]), Path(words[0]))
        elif part == "ask":
            result = ask(Path(words[0]), words[1], int(words[2]), int(words[3]))
        else:
            result = stall(Path(words[0]), Path(words[1]))
        print(json.dumps(result))
        return 0
    parser = argparse.ArgumentParser(description="Measure the index of long lists.")
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--misses", type=int, default=MISSES, help="how many names that are not listed are asked for")
    parser.add_argument("--compiled", type=Path, help="measure this compiled copy of the package too")
    args = parser.parse_args(argv)
    from bench.measure import machine

    trees = {"pure": ROOT} | ({"compiled": args.compiled.resolve()} if args.compiled else {})
    WORK.mkdir(exist_ok=True)
    results = {}
    for what, tree in trees.items():
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            results[what] = measure(args.names, args.misses, Path(folder), tree)
            os.chdir(ROOT)
    found = machine()
    print(f"{found['processor']}, {found['cores']} cores, {found['system']}, load {found['load'][0]}")
    print(f"{args.names:,} names".ljust(76) + "".join(what.rjust(12) for what in results))
    for key, title, unit in ROWS:
        cells = "".join(f"{result[key]:12,.2f}" for result in results.values())
        print(f"{title}, {unit}".ljust(76) + cells)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
