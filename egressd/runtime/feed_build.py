"""Judges a version of a feed in a child process, which builds its index while it reads: a feed has millions of lines,
and none of them is ever held by the core or a packet process.

`python -m egressd.runtime.feed_build` is the child: it takes a job as the core pickled it, in that direction alone, and
answers in JSON. What was built before from the same text under the same rules is found again.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from egressd import __version__
from egressd.errors import IndexDamaged
from egressd.intel.feeds.judging import Job, Judge, Judged, JudgeError, Rules
from egressd.intel.feeds.kept import MAX_HEAD_BYTES, parse_fetched_s
from egressd.intel.feeds.reading import EITHER_FORMATS, JSON_FORMATS, decode, read
from egressd.intel.formats.jsontext import begins_as_json
from egressd.intel.index_format import SALT_BYTES, VERSION, suffix_digest
from egressd.intel.mapped_build import IndexBuilder
from egressd.intel.poison import Bounds, Counts, Quarantined, judge, sift
from egressd.model import Indicator
from egressd.runtime.child import ChildError, ask_child, serve_as_child
from egressd.store.index_files import IndexFolder, ScratchFile, load_story, open_index, warm

TOLD: Final = 1_000  # lines that are kept out that are shown
READING: Final = 2  # versions are read or judged in another way, another number: what was built so is built anew
BATCH: Final = 5_000  # indicators that go to the builder at once


class ChildJob(NamedTuple):
    """What the child is told."""

    folder: str
    job: Job
    rules: Rules


def judge_in(folder: Path) -> Judge:
    """A judge whose indexes lie in a folder of that folder for each feed."""

    async def decide(job: Job, rules: Rules) -> Judged:
        return await asyncio.to_thread(judge_job, IndexFolder(folder / job.name), job, rules)

    return decide


def judge_job(folder: IndexFolder, job: Job, rules: Rules) -> Judged:
    """See `judging.Judge`; waits. Raises JudgeError."""
    try:
        folder.sweep()
        if not job.anew:
            found = folder.find(built_from(job, rules), rules.suffixes)
            if found is not None:
                return _judged(found[1], found[0])
        answer = ask_child("egressd.runtime.feed_build", ChildJob(str(folder.folder), job, rules))
        if answer["refused"]:
            return _judged(answer, None)
        path = str(answer["path"])
        index = open_index(path, bytes.fromhex(str(answer["digest"])), rules.suffixes)
        warm(path)
        return _judged(load_story(Path(path).with_suffix(".json")), index)
    except (ChildError, ValueError, KeyError, TypeError, IndexDamaged) as error:
        raise JudgeError(f"it could not be judged: {error}") from error
    except OSError as error:  # of the kept version
        raise JudgeError(f"it could not be judged: {error.strerror}") from error


def _judged(told: dict[str, Any], index: Any) -> Judged:
    counts = told["counts"]
    lines = tuple(Quarantined(int(line), str(value), str(kind), str(why)) for line, value, kind, why in told["lines"])
    return Judged(
        str(told["refused"]), str(told["reason"]), lines, int(told["poisoned"]), int(told["bad_lines"]),
        int(told["ignored"]), Counts(int(counts[0]), bool(counts[1])), int(told["added"]), int(told["removed"]), index,
    )  # fmt: skip


def built_from(job: Job, rules: Rules) -> str:
    """A digest of all that an index of this version depends on: its text, how it is read, this program. What people
    allow is not in it: that is looked at when something matches."""
    options = job.options
    said = (
        __version__,
        VERSION,
        READING,
        rules.context,
        options.format,
        options.scope,
        options.threat,
        options.confidence,
    )
    digest = blake2b(repr(said).encode(), digest_size=32)
    with job.path.open("rb") as file:
        file.readline(MAX_HEAD_BYTES)
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


# -- the child


class _Sink:
    """Takes what is good of a version, in parts, and remembers what it says by hashes: 2 million take 130 MB."""

    def __init__(self, builder: IndexBuilder) -> None:
        self.said: set[int] = set()
        self._builder = builder
        self._waiting: list[Indicator] = []

    def take(self, one: Indicator) -> None:
        self._waiting.append(one)
        self.said.add(hash(one.value))
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        self._builder.extend(self._waiting)
        self._waiting.clear()


def run_job(folder: IndexFolder, job: Job, rules: Rules) -> dict[str, Any]:
    """Read, judge, build; what became of it, and where the index is. Raises OSError."""
    with job.path.open("rb") as file:
        fetched_s = parse_fetched_s(file.readline(MAX_HEAD_BYTES))
        text = decode(file.read())
    options = job.options
    builder = IndexBuilder(
        secrets.token_bytes(SALT_BYTES),
        suffix_digest(rules.context),
        int(time.time()),
        partial(ScratchFile, folder.folder),
    )
    sink = _Sink(builder)
    # What is judged anew, perhaps days later, says "four hours" as it did when it was fetched.
    now_s = min(fetched_s, rules.now_s) if fetched_s else rules.now_s
    found = read(text, job.name, options, rules.suffixes, rules.guard, now_s)
    if job.is_new:
        bounds = Bounds(options.allow_empty, options.shrink_percent, options.grow_times, options.quarantine_most)
        is_json = options.format in JSON_FORMATS or (options.format in EITHER_FORMATS and begins_as_json(text))
        verdict = judge(text, found, rules.poison, job.before, bounds, json_expected=is_json, keep=sink.take)
    else:
        verdict = sift(text, found, rules.poison, sink.take)
    sink.flush()
    then = _standing(job, rules)
    told = {
        "refused": verdict.refused, "reason": verdict.reason, "poisoned": verdict.poisoned,
        "bad_lines": verdict.bad_lines, "ignored": verdict.ignored, "counts": list(verdict.counts),
        "lines": [list(one) for one in verdict.quarantined[:TOLD]],
        "added": len(sink.said - then), "removed": len(then - sink.said),
    }  # fmt: skip
    if verdict.refused:
        return told
    path = folder.write(builder.write, told | {"built_from": built_from(job, rules)})
    return told | {"path": str(path), "digest": str(load_story(path.with_suffix(".json"))["digest"])}


def _standing(job: Job, rules: Rules) -> set[int]:
    """Hashes of what is in force; nothing when that cannot be told."""
    if job.standing is None:
        return set()
    path, digest = job.standing
    try:
        return {hash(one.value) for one in open_index(path, bytes.fromhex(digest), rules.suffixes).listed()}
    except (IndexDamaged, ValueError):
        return set()


def run_in_child(told: ChildJob) -> dict[str, Any]:
    """What the child makes of what it is told. Raises OSError."""
    return run_job(IndexFolder(Path(told.folder)), told.job, told.rules)


if __name__ == "__main__":
    sys.exit(serve_as_child(run_in_child))
