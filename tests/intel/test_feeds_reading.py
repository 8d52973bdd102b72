"""The seam to the readers: slices read as one, early ends, bytes that are no text."""

from __future__ import annotations

from itertools import islice

from egressd.config.feed_options import FeedOptions
from egressd.errors import Problem
from egressd.intel.feeds import reading
from egressd.intel.feeds.reading import decode, read
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse("example\n")
GUARD, _ = Guard.parse("", SUFFIXES)
FEED = FeedOptions(scope="host", threat="c2", confidence=60)


def test_slices_read_as_one() -> None:
    lines = [f"h{number % 15_000}.x.example" for number in range(reading.SLICE_LINES * 2 + 5)]
    lines[19_000] = lines[reading.SLICE_LINES + 3] = "no name!"
    text = "\n".join(lines)
    wanted, problems = parse_list(
        text, "f", SUFFIXES, GUARD, default_scope="host", default_threat="c2", default_confidence=60, force=True
    )
    found = list(read(text, "f", FEED, SUFFIXES, GUARD))
    assert [one for one in found if not isinstance(one, Problem)] == wanted and len(wanted) == 14_999
    assert [one for one in found if isinstance(one, Problem)] == problems and len(problems) == 2


def test_who_has_seen_enough_can_stop() -> None:
    text = "no name!\n" * 5_000_000
    assert len(list(islice(read(text, "f", FEED, SUFFIXES, GUARD), 50))) == 50


def test_bytes_that_are_no_text_spoil_their_line_only() -> None:
    text = decode(b"\xef\xbb\xbfa.x.example\n\xff\xfe.x.example\n# \xe9t\xe9\nb.x.example\r\n")
    found = list(read(text, "f", FEED, SUFFIXES, GUARD))
    assert [getattr(one, "value", "") for one in found] == ["a.x.example", "b.x.example", ""]
    assert isinstance(found[2], Problem) and found[2].line == 2 and found[2].what.isprintable()
