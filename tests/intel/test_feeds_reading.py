"""The seam to the readers: slices read as one, early ends, bytes that are no text."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from egressd.config.feed_options import FeedOptions
from egressd.detect.sharing import chose_address
from egressd.errors import Problem
from egressd.intel.feeds.reading import decode, read
from egressd.intel.formats import FORMATS, parse_list
from egressd.intel.guard import Guard
from egressd.model import Indicator
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse("example\n")
GUARD, _ = Guard.parse("", SUFFIXES)
FEED = FeedOptions(scope="host", threat="c2", confidence=60)


def test_it_reads_as_a_list_with_the_feeds_defaults() -> None:
    text = "h1.x.example\nno name!\nh2.x.example\nh1.x.example\n"
    wanted, problems = parse_list(
        text, "f", SUFFIXES, GUARD, default_scope="host", default_threat="c2", default_confidence=60, force=True
    )
    found = list(read(text, "f", FEED, SUFFIXES, GUARD))
    assert [one for one in found if isinstance(one, Indicator)] == wanted and len(wanted) == 2
    assert [one for one in found if isinstance(one, Problem)] == problems and len(problems) == 1


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("egressd", "203.0.113.7\n203.0.112.0/24\n"),
        ("egressd", "203.0.113.7 force=yes\n203.0.112.0/24 force=yes\n"),
        ("feodo", "dst_ip,c2_status\n203.0.113.7,online\n203.0.112.0/24,online\n"),
        ("egressd", "shared.example force=yes\n*.other.example\n"),
    ],
)
def test_no_line_of_a_feed_is_a_persons_decision(form: str, text: str) -> None:
    """All addresses of all feeds passed for such, and none was too wide or shared by too many to be blocked."""
    guard, _ = Guard.parse("shared.example category=hosting # many\nother.example category=cdn # many", SUFFIXES)
    found = [one for one in read(text, "f", replace(FEED, format=form), SUFFIXES, guard) if isinstance(one, Indicator)]
    assert len(found) == 2 and not any(chose_address(one) for one in found)
    assert all(one.narrowed == guard.why(one.registered_domain) for one in found)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_a_feeds(name: str) -> None:
    assert [
        one for one in read("", "f", replace(FEED, format=name), SUFFIXES, GUARD) if isinstance(one, Indicator)
    ] == []


def test_who_has_seen_enough_can_stop() -> None:
    text = "no name!\n" * 5_000_000
    assert len(list(islice(read(text, "f", FEED, SUFFIXES, GUARD), 50))) == 50


def test_bytes_that_are_no_text_spoil_their_line_only() -> None:
    text = decode(b"\xef\xbb\xbfa.x.example\n\xff\xfe.x.example\n# \xe9t\xe9\nb.x.example\r\n")
    found = list(read(text, "f", FEED, SUFFIXES, GUARD))
    assert [getattr(one, "value", "") for one in found] == ["a.x.example", "", "b.x.example"]
    assert isinstance(found[1], Problem) and found[1].line == 2 and found[1].what.isprintable()
