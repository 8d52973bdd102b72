"""The index of long lists: found on disk when nothing has changed, else built by a child process.

The child parses, sorts and writes, on another processor if there is one; the core and the packet processes go on with
the index they have until the new one is whole and on disk. `python -m egressd.runtime.index_build` is the child: it
takes an order as the core pickled it, in that direction alone.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import time
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from egressd import __version__
from egressd.config.large_lists import Build, Built, ListFile, Order
from egressd.config.texts import MAX_LIST_BYTES, read_text
from egressd.errors import ConfigError, IndexDamaged, Problem
from egressd.intel.formats import parse_list
from egressd.intel.index_format import SALT_BYTES, VERSION, suffix_digest
from egressd.intel.mapped import MappedIndex
from egressd.intel.mapped_build import IndexBuilder
from egressd.runtime.child import ChildError, ask_child, serve_as_child
from egressd.store.index_files import IndexFolder, load_story, open_index, warm

MAX_PROBLEMS_TOLD: Final = 1_000  # of each list


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


def run_job(job: Job) -> dict[str, str]:
    """Build and write; where the file is and the digest of its head. Raises OSError."""
    order = job.order
    story: dict[str, Any] = {"built_from": built_from(order), "lists": [], "problems": [], "unread": []}
    suffixes = suffix_digest(order.context)
    builder = IndexBuilder(secrets.token_bytes(SALT_BYTES), suffixes, int(time.time()), scratch_in(job.folder))
    for one in order.files:
        _read_list(one, order, builder, story)
    path = IndexFolder(Path(job.folder)).write(builder.write, story)
    return {"path": str(path), "digest": str(load_story(path.with_suffix(".json"))["digest"])}


def _read_list(one: ListFile, order: Order, builder: IndexBuilder, story: dict[str, Any]) -> None:
    text = read_text(one.path, one.name, MAX_LIST_BYTES)
    if isinstance(text, Problem):
        story["unread"].append([one.name, text])
        return
    found, problems = parse_list(text, one.name, order.suffixes, order.guard, protected=order.protected)
    builder.extend(found)
    story["lists"].append([one.name, len(found), len(problems)])
    story["problems"] += problems[:MAX_PROBLEMS_TOLD]
    if len(problems) > MAX_PROBLEMS_TOLD:
        more = len(problems) - MAX_PROBLEMS_TOLD
        story["problems"].append(
            Problem(one.name, 0, 0, f"and {more} lines more that cannot be used", "mend these first")
        )


def scratch_in(folder: str) -> Any:
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)

    def scratch() -> IO[bytes]:
        return tempfile.TemporaryFile(dir=folder)  # not where /tmp is memory

    return scratch


if __name__ == "__main__":
    sys.exit(serve_as_child(run_job))
