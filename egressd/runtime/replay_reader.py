"""One of several processes that read the same captures: it tells what it sees in its own shards (wire/shards.py).

Job (JSON) on standard input, messages on standard output: four bytes of length, then a value of `marshal`:
`(items, done)`, where an item is (place, file, values, sender) with the values of an observation or of what a
connection carried, and who sent the frame, if that was its client; `done` is how many bytes of the files were read; at
last `(items, done, results, counts)`. Places grow. Both ends are of one version: one starts the other.
"""

from __future__ import annotations

import json
import marshal
import signal
import sys
from dataclasses import asdict
from typing import Any, BinaryIO, Final, NamedTuple

from egressd.capture.merge import Replay
from egressd.model import FlowKey, Observation
from egressd.runtime.reading import rare_collections
from egressd.wire.shards import Shards
from egressd.wire.values import Values, values_of

ITEMS: Final = 512  # in a message
LENGTH_BYTES: Final = 4
MARSHAL_VERSION: Final = 2  # later ones look for values that occur twice, which takes longer than to write them twice
CARRIED: Final = "carried"  # first of the values that are no observation's
FLUSH: Final = 1 << 62  # place of what shard 0 tells at the end; every packet comes before

Item = tuple[int, int, Values, tuple[bytes, bool] | None]


class Job(NamedTuple):
    """What to read. The process is the `worker`-th of `workers`, from 0."""

    paths: list[str]
    worker: int
    workers: int
    conversations: int
    prefilter: bool


class ShardReader:
    """Reads a job's captures and writes what it sees to `out`."""

    def __init__(self, job: Job, out: BinaryIO) -> None:
        self._out = out
        self._items: list[Item] = []
        self._done = 0
        self._shards = Shards(self._take, job.conversations, job.worker, job.workers, self._carried)
        self._replay = Replay(
            job.paths, self._shards, prefilter=job.prefilter, progress=self._progress, others=self._shards.others
        )

    def run(self) -> None:
        """Read everything."""
        self._replay.run()
        self._shards.flush()
        results = [asdict(file) for file in self._replay.files]  # compiled, it has no __dict__
        self._write(self._items, self._done, results, self._shards.counts())

    def _take(self, seen: Observation) -> None:
        self._add(values_of(seen), seen.flow.client)

    def _carried(self, flow: FlowKey, ts_us: int, out_bytes: int, in_bytes: int) -> None:
        self._add((CARRIED, tuple(flow), ts_us, out_bytes, in_bytes), flow.client)

    def _add(self, values: Values, client: bytes) -> None:
        shards = self._shards
        place = self._replay.before + shards.number if shards.flushing < 0 else FLUSH + shards.flushing
        sender = shards.sender(client)
        told = (sender.mac, sender.is_attached) if sender is not None else None
        self._items.append((place, self._replay.current_file, values, told))
        if len(self._items) >= ITEMS:
            self._write(self._items, self._done)
            self._items = []

    def _progress(self, done: int, total: int) -> None:
        self._done = done

    def _write(self, *message: Any) -> None:
        octets = marshal.dumps(message, MARSHAL_VERSION)
        self._out.write(len(octets).to_bytes(LENGTH_BYTES, "big"))
        self._out.write(octets)
        self._out.flush()


def main() -> int:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it goes to all; who started this one will end it
    job = Job(**json.load(sys.stdin))
    try:
        with rare_collections():
            ShardReader(job, sys.stdout.buffer).run()
    except BrokenPipeError:
        return 1  # nobody wants to know any more
    return 0


if __name__ == "__main__":
    sys.exit(main())
