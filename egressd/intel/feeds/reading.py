"""The seam between feeds and the readers of list formats: one function, the only one here that knows the readers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from egressd.config.feed_options import FeedOptions
from egressd.errors import Problem
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.lines import split_lines
from egressd.model import Indicator
from egressd.names import Suffixes

JSON_FORMATS: Final[frozenset[str]] = frozenset()  # formats whose text is JSON: there it is no sign of an error message
SLICE_LINES: Final = 10_000


def read(
    text: str, source: str, feed: FeedOptions, suffixes: Suffixes, guard: Guard
) -> Iterator[Indicator | Problem | object]:
    """What a feed's text says, with what cannot be read. Everything that a list may say with force=yes is let through
    here: intel.poison judges it, and it has words and counts for each kind, where a reader has only a Problem.

    Read in slices, so that who has seen enough can stop: 64 MB of rubbish would be two million problems, 2 GB of them.
    A line that says again what an earlier one says is left out, as in a list.
    """
    lines = split_lines(text)
    seen: set[int] = set()
    for start in range(0, len(lines), SLICE_LINES):
        found, problems = parse_list(
            "\n".join(lines[start : start + SLICE_LINES]),
            source,
            suffixes,
            guard,
            default_scope=feed.scope,
            default_threat=feed.threat,
            default_confidence=feed.confidence,
            force=True,
        )
        for one in found:
            said = hash((*one[:7], *one[8:]))
            if said not in seen:
                seen.add(said)
                yield one._replace(line=one.line + start) if start else one
        for problem in problems:
            yield problem._replace(line=problem.line + start)


def decode(body: bytes) -> str:
    """The text of a feed's bytes. A byte that is no UTF-8 makes its line a bad one, not the whole feed."""
    return body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
