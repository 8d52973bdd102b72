"""The one text that the answers to several requests are gathered into, and what was gathered before, out of it again.

MISP: a line for each event, with what the manifest said of it. The event is put there as it came, without a look at it:
what is broken spoils its own line, and the child that judges the version finds that out. STIX: a bundle with an object
a line, and in its first line from when on to ask for more. Line ends mean nothing between the tokens of JSON, and
inside of them there are none, so they are spaces here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from egressd.intel.feeds.reading import decode
from egressd.intel.formats.stix import StixObject, parse_page

_EVENT: Final = re.compile(rb'\{"uuid":"([0-9a-f-]{36})","timestamp":([0-9]{1,11}),"response":')
_BUNDLE: Final = re.compile(
    rb'\{"type":"bundle","collected_s":([0-9]{1,15}),"added_after":"([0-9TZ:.-]*)","objects":\['
)
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")
_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """An event that was gathered: when it was changed, as the manifest of then said, and its line."""

    timestamp_s: int
    line: bytes


class BundleHead(NamedTuple):
    """When a collection was asked for whole, epoch seconds, and when the last object of it was added there."""

    collected_s: int
    added_after: str


def is_closed(event: bytes) -> bool:
    """Whether it begins and ends as JSON does: a web page, or what was cut off, is asked for again. Whether it is JSON
    is not looked at here."""
    text = event.removeprefix(_BOM).strip()
    return text[:1] + text[-1:] in (b"{}", b"[]")


def render_event(uuid: str, timestamp_s: int, event: bytes) -> bytes:
    """The line of an event that has just come."""
    said = f'{{"uuid":"{uuid}","timestamp":{timestamp_s},"response":'.encode("ascii")
    return said + event.removeprefix(_BOM).translate(_LINE_ENDS) + b"}\n"


def parse_events(text: bytes) -> dict[str, Event]:
    """Events by uuid; lines of another form, as of a text that was had by one request, give none."""
    events = {}
    for line in text.splitlines(keepends=True):
        found = _EVENT.match(line)
        if found is not None and line.endswith(b"\n"):
            events[found[1].decode("ascii")] = Event(int(found[2]), line)
    return events


def parse_bundle_head(text: bytes) -> BundleHead | None:
    """None when the text was not gathered here."""
    found = _BUNDLE.match(text)
    return BundleHead(int(found[1]), found[2].decode("ascii")) if found is not None else None


def merge_objects(objects: dict[str, StixObject], more: Iterable[StixObject]) -> None:
    """Put those in that are new, or not older than what is there."""
    for one in more:
        before = objects.get(one.key)
        if before is None or one.modified >= before.modified:  # times of one form sort as text
            objects[one.key] = one


def render_bundle(head: BundleHead, objects: dict[str, StixObject], before: bytes = b"") -> bytes:
    """A bundle of these, added to those of an earlier one."""
    merged: dict[str, StixObject] = {}
    merge_objects(merged, parse_page(decode(before)).objects)
    merge_objects(merged, objects.values())
    said = f'{{"type":"bundle","collected_s":{head.collected_s},"added_after":"{head.added_after}","objects":[\n'
    lines = ",\n".join(one.text for one in merged.values())
    return f"{said}{lines}\n]}}\n".encode("utf-8", "surrogateescape")
