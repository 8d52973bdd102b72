"""Captures to observations, in several processes: each reads all captures and dissects its part of the conversations.

What they tell is put into the order of the packets again, so that it is what one process would tell. Judging stays in
this process. It pays where there is much to dissect, and files that can be read as often as one likes: not pipes, and
not gzip, which each process would have to unpack for itself.
"""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import stat
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Final

from egressd.capture.bytesource import GZIP_MAGIC
from egressd.capture.merge import FileResult, open_capture
from egressd.errors import CaptureError
from egressd.model import FlowKey, Observation
from egressd.runtime.replay_reader import CARRIED, LENGTH_BYTES, Item, Job
from egressd.wire.meter import OnVolume
from egressd.wire.sender import Sender
from egressd.wire.shards import SHARDS, add_counts
from egressd.wire.values import observation_of

LEAST_BYTES: Final = 64 << 20  # of all files together; less is read before other processes have started
PIPE_BYTES: Final = 1 << 20  # what a process may be ahead of the others
_PLACE: Final = itemgetter(0)


def processes_for(paths: Sequence[str | Path], jobs: int) -> int:
    """How many of `jobs` processes to read with (0: one for each processor); 1 where more do not pay."""
    wanted = min(jobs or len(os.sched_getaffinity(0)), SHARDS)
    if wanted < 2:
        return 1
    total = 0
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
                    return 1
        except OSError:
            return 1  # one process says best what is wrong
        total += status.st_size
    return wanted if total >= LEAST_BYTES else 1


class SeveralProcesses:
    """A `Reading` (runtime/reading.py) in other processes. `emit` and `on_volume` are called in this one, in packet
    order."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        emit: Callable[[Observation], None],
        on_volume: OnVolume,
        conversations: int,
        prefilter: bool,
        progress: Callable[[int, int], None] | None,
        processes: int,
    ) -> None:
        self.files = [FileResult(str(path)) for path in paths]
        self.current_file = 0
        self._emit = emit
        self._on_volume = on_volume
        self._progress = progress
        self._client = b""  # of what is told of, and who sent its frame, if that was the client
        self._sender: tuple[bytes, bool] | None = None
        self._counts: dict[str, int] = {}
        self._jobs = [
            Job([str(path) for path in paths], worker, processes, conversations, prefilter)
            for worker in range(processes)
        ]

    def sender(self, client: bytes) -> Sender | None:
        """See `Reading`."""
        return Sender(*self._sender) if self._sender is not None and client == self._client else None

    def counts(self) -> dict[str, int]:
        """See `Reading`."""
        return {name: count for name, count in sorted(self._counts.items()) if count}

    def run(self) -> None:
        """See `Reading`. Raises CaptureError, before any packet, when a file cannot be opened or is no capture, and
        when a reading process ends before its captures do."""
        total = 0
        for file in self.files:
            reader = open_capture(file.path)
            total += reader.source.size()
            reader.close()
        children: list[subprocess.Popen[bytes]] = []
        try:
            for job in self._jobs:
                children.append(_start(job))
            self._merge([_messages(child) for child in children], total)
        finally:
            for child in children:
                child.kill()
                child.wait()
                for pipe in (child.stdin, child.stdout):
                    if pipe is not None:
                        pipe.close()

    def _merge(self, messages: list[Iterator[tuple[Any, ...]]], total: int) -> None:
        """Take what every process has told up to the place that the slowest has come to, again and again."""
        waiting: list[list[Item]] = [[] for _ in messages]
        running = set(range(len(messages)))
        while running or any(waiting):
            for worker in sorted(running):
                while worker in running and not waiting[worker]:
                    message = next(messages[worker])
                    waiting[worker] = message[0]
                    if worker == 0 and self._progress is not None:
                        self._progress(message[1], total)
                    if len(message) > 2:
                        running.discard(worker)
                        self._end(worker, message[2], message[3])
            ready: list[Item] = []
            if running:
                limit = min(waiting[worker][-1][0] for worker in running)
                for worker, items in enumerate(waiting):
                    size = bisect_right(items, limit, key=_PLACE)
                    ready += items[:size]
                    waiting[worker] = items[size:]
            else:
                for items in waiting:
                    ready += items
                waiting = [[] for _ in messages]
            ready.sort(key=_PLACE)  # stable: what one packet tells stays in order
            emit, on_volume = self._emit, self._on_volume
            for _, self.current_file, values, self._sender in ready:
                if values[0] == CARRIED:
                    flow = FlowKey(*values[1])
                    self._client = flow.client
                    on_volume(flow, *values[2:])
                else:
                    seen = observation_of(values)
                    self._client = seen.flow.client
                    emit(seen)

    def _end(self, worker: int, results: list[dict[str, Any]], counts: dict[str, int]) -> None:
        add_counts(self._counts, counts)
        if worker == 0:  # the others have read the same
            self.files = [FileResult(**result) for result in results]


def _start(job: Job) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-m", "egressd.runtime.replay_reader"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None and child.stdout is not None
    with suppress(OSError):  # the default will do
        fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    child.stdin.write(json.dumps(job._asdict()).encode("ascii"))
    child.stdin.close()
    return child


def _messages(child: subprocess.Popen[bytes]) -> Iterator[tuple[Any, ...]]:
    """What a process sends. Raises CaptureError when it ends before its last message."""
    pipe = child.stdout
    assert pipe is not None
    while True:
        size = int.from_bytes(_exactly(pipe, LENGTH_BYTES), "big")
        message: tuple[Any, ...] = marshal.loads(_exactly(pipe, size))
        yield message


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    octets = pipe.read(size)
    if len(octets) < size:
        raise CaptureError("a reading process ended early; try again with --jobs 1")
    return octets
