"""The captures of the benchmark: made once (bench/traffic.py), and again when what makes them has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
WORK: Final = ROOT / "bench" / "work"
MAKERS: Final = ("bench/traffic.py", "bench/messages.py", "pcaps/hellos.py")
SLICE_PACKETS: Final = 100_000  # of the bulk capture that slow programs read: all of it would take minutes


class Capture(NamedTuple):
    """A capture of the benchmark. `part` is its beginning, for slow programs."""

    kind: str
    file: Path
    packets: int
    octets: int
    name_packets: int
    planted: dict[str, tuple[str, int]]
    part: Path
    part_packets: int

    @property
    def blocklist(self) -> Path:
        """The blocklist that belongs to it."""
        return self.file.with_name(self.file.name + ".list")

    def early(self) -> set[str]:
        """The planted names that `part` holds."""
        return {name for name, (_, number) in self.planted.items() if number <= self.part_packets}


def prepare(kind: str, packets: int, python: str) -> Capture:
    """Make a capture, unless it is there already. In a process of its own, so that this one stays small."""
    WORK.mkdir(parents=True, exist_ok=True)
    file = WORK / f"{kind}-{packets}.pcap"
    described = file.with_name(file.name + ".json")
    stamp = file.with_name(file.name + ".made-by")
    made_by = sha256(b"".join((ROOT / maker).read_bytes() for maker in MAKERS)).hexdigest()
    if not (file.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == made_by):
        print(f"writing {file.name} ...", file=sys.stderr, flush=True)
        maker = str(ROOT / "bench" / "traffic.py")
        subprocess.run(
            [python, maker, kind, str(file), "--packets", str(packets)], check=True, stdout=subprocess.DEVNULL
        )
        stamp.write_text(made_by, encoding="ascii")
    told = json.loads(described.read_text(encoding="ascii"))
    part_packets = min(packets, SLICE_PACKETS)
    part = file
    if part_packets < packets:
        part = file.with_name(f"{kind}-{packets}-first-{part_packets}.pcap")
        cut(file, part, part_packets)
    planted = {name: tuple(where) for name, where in told["planted"].items()}
    return Capture(kind, file, packets, told["octets"], told["name_packets"], planted, part, part_packets)


def cut(file: Path, part: Path, packets: int) -> None:
    """The first packets of a capture as a capture."""
    with file.open("rb") as source, part.open("wb") as out:
        out.write(source.read(24))
        for _ in range(packets):
            head = source.read(16)
            out.write(head)
            out.write(source.read(int.from_bytes(head[8:12], "little")))
