"""The seam between feeds and the readers of list formats: one function, the only one here that knows the readers."""

from __future__ import annotations

from collections.abc import Iterator

from egressd.config.feed_options import FeedOptions
from egressd.errors import Problem
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.model import Indicator
from egressd.names import Suffixes

JSON_FORMATS: frozenset[str] = frozenset()  # formats whose text is JSON: there it is no sign of an error message


def read(
    text: str, source: str, feed: FeedOptions, suffixes: Suffixes, guard: Guard
) -> Iterator[Indicator | Problem | object]:
    """What a feed's text says, with what cannot be read. Everything that a list may say with force=yes is let through
    here: intel.poison judges it, and it has words and counts for each kind, where a reader has only a Problem."""
    found, problems = parse_list(
        text,
        source,
        suffixes,
        guard,
        default_scope=feed.scope,
        default_threat=feed.threat,
        default_confidence=feed.confidence,
        force=True,
    )
    yield from found
    yield from problems


def decode(body: bytes) -> str:
    """The text of a feed's bytes. A byte that is no UTF-8 makes its line a bad one, not the whole feed."""
    return body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
