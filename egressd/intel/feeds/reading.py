"""The seam between feeds and the readers of formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from egressd.config.feed_options import FeedOptions
from egressd.intel.formats import Found, Rules, read_feed
from egressd.intel.formats.judgement import FORCED
from egressd.intel.guard import Guard
from egressd.model import Indicator
from egressd.names import Suffixes

# Formats whose text is JSON, or may be: there it is no sign of an error message.
JSON_FORMATS: Final = frozenset({"misp", "stix"})
EITHER_FORMATS: Final = frozenset({"threatfox", "feodo", "suricata", "crowdsec"})


def read(
    text: str, source: str, feed: FeedOptions, suffixes: Suffixes, guard: Guard, now_s: int = 0
) -> Iterator[Found]:
    """What a feed's text says, with what cannot be read, as it was fetched at `now_s`. Everything that a list may say
    with force=yes is let through here: intel.poison judges it, and it has words and counts for each kind, where a
    reader has only a Problem. That a person decided on a line, which the same words say of a list, is true of none."""
    rules = Rules(suffixes, guard, None, feed.scope, feed.threat, feed.confidence, True, now_s)
    for found in read_feed(text, feed.format, source, rules):
        if isinstance(found, Indicator) and found.narrowed.startswith(FORCED):
            yield found._replace(narrowed=found.narrowed.removeprefix(FORCED).removeprefix("; "))
        else:
            yield found


def decode(body: bytes) -> str:
    """The text of a feed's bytes. A byte that is no UTF-8 makes its line a bad one, not the whole feed."""
    return body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
