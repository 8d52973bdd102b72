"""The same mutated packets through the pure and the compiled packet path: `python scripts/differ.py --compiled FOLDER`.

Each build reads them in a process of its own, through shards, engine and rendering as a replay does, and tells for each
thousand packets a digest of all that came of them: every observation in every field, and every event as `replay --json`
writes it. The first digests that differ end the run, and what differs is shown. FOLDER is what scripts/compile.py made.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
if "EGRESSD_TREE" not in os.environ:
    sys.path.insert(0, str(ROOT))

from egressd.capture.merge import Replay
from egressd.detect.engine import Engine
from egressd.errors import CaptureError
from egressd.model import Decision, Event, FlowKey, Incident, Observation
from egressd.notify.eve import render_event, render_line
from egressd.wire import dissector
from egressd.wire.shards import Shards
from egressd.wire.values import values_of
from scripts.mutate import CONVERSATIONS, HISTORY, Mutator, load_corpus, load_lists

BLOCK: Final = 1_000  # packets to a digest
SHOWN: Final = 3  # lines of either side that differ


class Teller:
    """What a replay makes of packets, as lines."""

    def __init__(self) -> None:
        intel, settings = load_lists()
        self.lines: list[str] = []
        self._opened: set[str] = set()
        self.engine = Engine(intel, settings, self._event, history=HISTORY)
        self.shards = Shards(self._observation, CONVERSATIONS, on_volume=self._carried)

    def _event(self, event: Event) -> None:
        state = "opened"
        if isinstance(event, Incident):
            state = "totals" if event.id in self._opened else "opened"
            self._opened.add(event.id)
        client = event.client if isinstance(event, Decision | Incident) else event.flow.client
        self.lines.append(render_line(render_event(event, "", client.hex(), state)))

    def _observation(self, seen: Observation) -> None:
        self.lines.append(repr(values_of(seen)))
        self.engine.observe(seen)

    def _carried(self, flow: FlowKey, ts_us: int, out_bytes: int, in_bytes: int) -> None:
        self.lines.append(repr((tuple(flow), ts_us, out_bytes, in_bytes)))

    def finish(self) -> None:
        """The end of what there is to read."""
        self.shards.flush()
        self.engine.finish()
        self.lines.append(repr((self.shards.counts(), self.engine.counts())))


def captures_in(folders: list[Path]) -> list[Path]:
    """Every file below the folders that may be a capture, in order of name."""
    found = sorted(path for folder in folders for path in folder.rglob("*"))
    return [path for path in found if path.is_file() and ("cap" in path.suffix or path.suffix == ".gz")]


def capture_blocks(folders: list[Path]) -> Iterator[list[str]]:
    """Everything that comes of each capture as it is, one after the other."""
    for path in captures_in(folders):
        teller = Teller()
        teller.lines.append(path.name)
        try:
            Replay([path], teller.shards).run()
        except CaptureError as error:
            teller.lines.append(str(error))
        teller.finish()
        yield teller.lines


def blocks(packets: int, seed: int) -> Iterator[list[str]]:
    """Everything that comes of so many mutated packets, a block at a time; at last what comes of the end."""
    teller = Teller()
    mutator = Mutator(load_corpus([ROOT / "pcaps"]), seed)
    number = 0
    while number < packets:
        for ts_us, link, octets in mutator.run()[: packets - number]:
            number += 1
            teller.shards.packet(ts_us, number, link, octets, 0, len(octets), len(octets))
            if number % BLOCK == 0:
                yield teller.lines
                teller.lines.clear()
    teller.finish()
    yield teller.lines


def tell(packets: int, seed: int, folders: list[Path], show: int) -> None:
    """The process of one build: which it is, a digest a block, or with `show` the lines of that block."""
    print("pure" if dissector.__file__.endswith(".py") else "compiled")
    for at, lines in enumerate(capture_blocks(folders) if folders else blocks(packets, seed)):
        if show < 0:
            print(hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest())
        elif at == show:
            sys.stdout.buffer.write("\n".join(lines).encode("utf-8", "surrogatepass") + b"\n")
            return


def start(tree: Path, what: list[str], show: int = -1) -> subprocess.Popen[bytes]:
    """One build at work."""
    where = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where.update(EGRESSD_TREE="1", PYTHONPATH=f"{tree}:{ROOT}", PYTHONHASHSEED="0")
    return subprocess.Popen([sys.executable, __file__, "--tell", str(show), *what], stdout=subprocess.PIPE, env=where)


def differ(trees: dict[str, Path], what: list[str], count: int) -> str:
    """Read what the words say in each build, which makes `count` blocks; "" or what differs."""
    children = {build: start(tree, what) for build, tree in trees.items()}
    try:
        streams = [child.stdout for child in children.values()]
        assert all(stream is not None for stream in streams)
        builds = [stream.readline().decode().strip() for stream in streams if stream is not None]
        if builds != list(trees):
            return f"wanted {' and '.join(trees)}, found {' and '.join(builds)}"
        at = 0
        while True:
            told = [stream.readline() for stream in streams if stream is not None]
            if len(set(told)) > 1:
                return f"block {at}:\n" + shown(trees, what, at)
            if not told[0]:
                break
            at += 1
        if at != count or any(child.wait() for child in children.values()):
            return f"ended after {at} blocks"
        return ""
    finally:
        for child in children.values():
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


def shown(trees: dict[str, Path], what: list[str], at: int) -> str:
    """The first lines of a block that differ."""
    told = []
    for tree in trees.values():
        child = start(tree, what, at)
        told.append(child.communicate()[0].decode("utf-8", "backslashreplace").splitlines())
    places = [place for place in range(max(map(len, told))) if len({tuple(one[place : place + 1]) for one in told}) > 1]
    rows = []
    for place in places[:SHOWN]:
        rows += [f"{build}: {' '.join(one[place : place + 1])}" for build, one in zip(trees, told, strict=True)]
    return "\n".join(rows)


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="The same mutated packets through two builds.")
    parser.add_argument("--compiled", type=Path, default=ROOT / "build" / "compiled", metavar="FOLDER")
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--captures", type=Path, action="append", default=[], help="these as they are, none mutated")
    parser.add_argument("--tell", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.tell is not None:
        tell(options.packets, options.seed, options.captures, options.tell)
        return 0
    if not any(options.compiled.rglob("*.so")):
        print(f"nothing is compiled in {options.compiled}: there is nothing to compare", file=sys.stderr)
        return 0
    trees = {"pure": ROOT, "compiled": options.compiled.resolve()}
    if options.captures:
        what = [word for folder in options.captures for word in ("--captures", str(folder.resolve()))]
        count = len(captures_in(options.captures))
        told = f"{count} captures"
    else:
        what = ["--packets", str(options.packets), "--seed", str(options.seed)]
        count = options.packets // BLOCK + 1
        told = f"seed {options.seed}: {options.packets} packets"
    wrong = differ(trees, what, count)
    print(wrong or f"{told}: pure and compiled tell the same to the byte")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
