"""The least that each stage must cost on this machine: `python bench/floor.py FILE`, one JSON object.

Nanoseconds of processor time a packet of FILE, each the best of five turns, by the plainest program there is:

- `kernel_read`: the file through `read(2)`, a megabyte at a time, nothing looked at: what the kernel needs to copy it;
- `memory_copy`: the same octets once more from memory to memory, 64 KB at a time as a reader takes them;
- `touch`: one byte of every 64 (a cache line), as summing up a whole packet would at least;
- `call`: one call of an empty function a packet, as this Python makes it: what "no object a packet" spares.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

TURNS = 5
CHUNK_BYTES = 1 << 20
COPY_BYTES = 1 << 16
HEADER_BYTES = 24


def kernel_read(path: Path) -> None:
    """All of a file, into memory that is used again."""
    buffer = bytearray(CHUNK_BYTES)
    fd = os.open(path, os.O_RDONLY)
    try:
        while os.readv(fd, [buffer]):
            pass
    finally:
        os.close(fd)


def memory_copy(octets: int) -> None:
    """So many octets from one buffer to another."""
    source = memoryview(bytes(COPY_BYTES))
    target = memoryview(bytearray(COPY_BYTES))
    for _ in range(octets // COPY_BYTES):
        target[:] = source


def touch(octets: int) -> None:
    """A byte of every cache line."""
    lines = bytes(CHUNK_BYTES)
    for _ in range(octets // CHUNK_BYTES):
        lines[::64].count(1)


def call(packets: int) -> None:
    """An empty function for each packet."""
    for _ in range(packets):
        _nothing(0, 0, b"")


def _nothing(ts_us: int, number: int, buf: bytes) -> None:
    """Nothing."""


def count_packets(path: Path) -> int:
    """Packets of a pcap file that this machine's benchmark wrote (little-endian)."""
    packets = 0
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        while len(head := file.read(16)) == 16:
            file.seek(int.from_bytes(head[8:12], "little"), os.SEEK_CUR)
            packets += 1
    return packets


def best_s(work: Callable[[], None]) -> float:
    """Processor seconds of the best of several turns."""
    spent = []
    for _ in range(TURNS):
        began_s = time.process_time()
        work()
        spent.append(time.process_time() - began_s)
    return min(spent)


def measure(path: Path, packets: int = 0) -> dict[str, float]:
    """Nanoseconds a packet of each."""
    packets = packets or count_packets(path)
    octets = path.stat().st_size
    spent = {
        "kernel_read": best_s(lambda: kernel_read(path)),
        "memory_copy": best_s(lambda: memory_copy(octets)),
        "touch": best_s(lambda: touch(octets)),
        "call": best_s(lambda: call(packets)),
    }
    return {name: round(seconds / packets * 1e9, 1) for name, seconds in spent.items()}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
