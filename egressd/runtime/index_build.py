"""The index of long lists: found on disk when nothing has changed, else built by a child process.

The child parses, sorts and writes, on another processor if there is one; the core and the packet processes go on with
the index they have until the new one is whole and on disk. `python -m egressd.runtime.index_build` is the child: it
takes an order as the core pickled it, in that direction alone.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final, NamedTuple

from egressd import __version__
from egressd.config.large_lists import Build, Built, ListFile, Order, size_of
from egressd.config.texts import MAX_LIST_BYTES, read_text
from egressd.errors import ConfigError, IndexDamaged, Problem
from egressd.intel.formats.judgement import Found, Rules
from egressd.intel.formats.ours import read_ours
from egressd.intel.index_format import SALT_BYTES, VERSION, suffix_digest
from egressd.intel.mapped import MappedIndex
from egressd.intel.mapped_build import Gathered, IndexBuilder
from egressd.model import Indicator
from egressd.plural import count
from egressd.runtime.child import ChildError, ask_child, serve_as_child
from egressd.runtime.side_by_side import processors, side_by_side
from egressd.store.index_files import IndexFolder, ScratchFile, load_story, open_index, warm

MAX_PROBLEMS_TOLD: Final = 1_000  # of each list
WORTH_SHARING_BYTES: Final = 8 << 20  # text of lists; half a second of work


class Job(NamedTuple):
    """What the child is told."""

    folder: str
    order: Order


def index_folder(state: Path) -> Path:
    """Where built indexes lie, in the directory of the state."""
    return state / "indexes"


def builder_in(folder: Path) -> Build:
    """What builds indexes in a folder, which is swept of old ones. It raises ConfigError when one cannot be built."""

    def build(order: Order) -> Built:
        return build_index(IndexFolder(folder), order)

    return build


def build_index(folder: IndexFolder, order: Order) -> Built:
    """The index of these lists, built in a child process where there is none yet. Raises ConfigError."""
    folder.sweep()
    found = folder.find(built_from(order), order.suffixes)
    if found is not None:
        return _told(*found)
    what = "the long lists could not be made an index"
    try:
        answer = ask_child("egressd.runtime.index_build", Job(str(folder.folder), order))
        path = Path(str(answer["path"]))
        index = open_index(str(path), bytes.fromhex(str(answer["digest"])), order.suffixes)
    except ChildError as error:
        raise ConfigError([Problem(str(folder.folder), 0, 0, what, str(error))]) from error
    except (ValueError, KeyError, IndexDamaged) as error:
        raise ConfigError([Problem(str(folder.folder), 0, 0, what, "see what was logged above")]) from error
    return _told(index, load_story(path.with_suffix(".json")))


def _told(index: MappedIndex, story: dict[str, Any]) -> Built:
    if index.reopen is not None:
        warm(str(index.reopen[1][0]))
    lists = {str(name): (int(found), int(problems)) for name, found, problems in story.get("lists", [])}
    unread = {str(name): Problem(*problem) for name, problem in story.get("unread", [])}
    return Built(index, lists, [Problem(*one) for one in story.get("problems", [])], unread)


def built_from(order: Order) -> str:
    """A digest of all that the built index depends on: the lists' bytes and names, the context, this program."""
    digest = blake2b(f"{__version__} {VERSION} {order.context}".encode(), digest_size=32)
    for one in order.files:
        digest.update(json.dumps(one.name).encode() + _digest(one.path))
    return digest.hexdigest()


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file_digest(file, "blake2b").digest()
    except OSError as error:
        return str(error.errno).encode()


class _ReadList(NamedTuple):
    """How many indicators and problems a list has, the first of those, and why it could not be read at all."""

    name: str
    indicators: int
    wrong: int
    problems: list[Problem]
    unread: Problem | None = None


class _Read(NamedTuple):
    """What a process read, beside what is in its builder's scratch file."""

    gathered: Gathered
    lists: list[_ReadList]


def run_job(job: Job) -> dict[str, str]:
    """Build and write; where the file is and the digest of its head. Raises OSError."""
    order = job.order
    shares = share_out(order.files, processors())
    now_s, salt = int(time.time()), secrets.token_bytes(SALT_BYTES)
    suffixes, scratch = suffix_digest(order.context), partial(ScratchFile, Path(job.folder))
    builder = IndexBuilder(salt, suffixes, now_s, scratch)
    readers = [IndexBuilder(salt, suffixes, now_s, scratch, lane, len(shares)) for lane in range(len(shares))]
    for reader in readers:
        reader.part()
    work = [partial(_read_lists, share, order, reader) for share, reader in zip(shares, readers, strict=True)]
    of_list: dict[str, _ReadList] = {}
    for reader, read in zip(readers, side_by_side(work), strict=True):
        builder.join(reader, read.gathered)
        of_list.update((one.name, one) for one in read.lists)
    story: dict[str, Any] = {"built_from": built_from(order), "lists": [], "problems": [], "unread": []}
    for file in order.files:
        _tell(story, of_list[file.name])
    write = partial(builder.write, run=side_by_side, stretches=len(shares))
    path = IndexFolder(Path(job.folder)).write(write, story)
    return {"path": str(path), "digest": str(load_story(path.with_suffix(".json"))["digest"])}


def share_out(files: tuple[ListFile, ...], most: int) -> list[list[ListFile]]:
    """The lists, in up to so many shares of about the same length; one where parting is not worth it."""
    sized = sorted(((size_of(one.path), number, one) for number, one in enumerate(files)), reverse=True)
    if sum(row[0] for row in sized) < WORTH_SHARING_BYTES:
        return [list(files)]
    shares: list[list[ListFile]] = [[] for _ in range(min(most, len(files)))]
    lengths = [0] * len(shares)
    for length, _, one in sized:
        least = lengths.index(min(lengths))
        shares[least].append(one)
        lengths[least] += length
    return shares


def _read_lists(share: list[ListFile], order: Order, builder: IndexBuilder) -> _Read:
    lists = [_read_list(one, order, builder) for one in share]
    return _Read(builder.told(), lists)


def _read_list(one: ListFile, order: Order, builder: IndexBuilder) -> _ReadList:
    text = read_text(one.path, one.name, MAX_LIST_BYTES)
    if isinstance(text, Problem):
        return _ReadList(one.name, 0, 0, [], text)
    problems: list[Problem] = []
    before = builder.count
    rules = Rules(order.suffixes, order.guard, order.protected)
    builder.extend(_indicators(read_ours(text, one.name, rules), problems))
    return _ReadList(one.name, builder.count - before, len(problems), problems[:MAX_PROBLEMS_TOLD])


def _indicators(found: Iterable[Found], problems: list[Problem]) -> Iterator[Indicator]:
    """One at a time: a million at once are 300 MB."""
    for one in found:
        if type(one) is Indicator:
            yield one
        elif type(one) is Problem:
            problems.append(one)


def _tell(story: dict[str, Any], read: _ReadList) -> None:
    if read.unread is not None:
        story["unread"].append([read.name, read.unread])
        return
    story["lists"].append([read.name, read.indicators, read.wrong])
    story["problems"] += read.problems
    if read.wrong > len(read.problems):
        more = f"and {count(read.wrong - len(read.problems), 'line')} more that cannot be used"
        story["problems"].append(Problem(read.name, 0, 0, more, "mend these first"))


if __name__ == "__main__":
    sys.exit(serve_as_child(run_job))
