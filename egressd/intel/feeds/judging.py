"""What is asked and answered when a version of a feed is judged. Who judges is somebody else: it takes a processor for
seconds and memory for what it reads, so the daemon lets a child process do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from egressd.config.feed_options import FeedOptions
from egressd.errors import EgressdError
from egressd.intel.guard import Guard
from egressd.intel.mapped import MappedIndex
from egressd.intel.poison import Counts, Poison, Quarantined
from egressd.names import Suffixes


class Rules(NamedTuple):
    """What versions are read and judged by, as of now. `context` is a digest of the texts that suffixes, guard and
    protected addresses were made of; `now_s` is when."""

    suffixes: Suffixes
    guard: Guard
    poison: Poison
    context: str
    now_s: int


class Job(NamedTuple):
    """A version to judge: `path` is a kept file (its text after a line about it). `before` are the counts of the
    version in force, None to take any size; `is_new` is false for one that was taken before, of which with `anew` false
    what was built of it earlier will do. `standing` is where the index in force lies, and its digest."""

    name: str
    options: FeedOptions
    path: Path
    before: Counts | None
    is_new: bool
    anew: bool
    standing: tuple[str, str] | None


class Judged(NamedTuple):
    """What became of it: as intel.poison.Verdict, with an index in place of indicators (None when it is refused), and
    how many values came and went."""

    refused: str
    reason: str
    quarantined: tuple[Quarantined, ...]
    poisoned: int
    bad_lines: int
    ignored: int
    counts: Counts
    added: int
    removed: int
    built: MappedIndex | None


class JudgeError(EgressdError):
    """A version could not be judged: no room, no memory, too long. The message is a sentence for people."""


Judge = Callable[[Job, Rules], Awaitable[Judged]]  # raises JudgeError
