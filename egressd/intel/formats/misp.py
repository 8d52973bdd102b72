"""MISP events (misp-standard.org, misp-core-format) and the manifest of a MISP feed: attributes that are `to_ids`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from egressd.errors import Problem
from egressd.intel.entries import Entry, parse_entry
from egressd.intel.formats.fields import join_ref, parse_host_port, parse_moment, parse_url
from egressd.intel.formats.jsontext import JsonText, Record, as_text
from egressd.intel.formats.judgement import Found, Ignored, Judge, Rules, Said, tidy
from egressd.intel.lines import Word, Wrong, problem_at, show

NOT_FOR_IDS: Final = "not meant for detection (to_ids is not set)"
DELETED: Final = "deleted"
BARE_PATH: Final = "a path without a host"
SOURCE_ADDRESS: Final = "an address that attacks come from (ip-src)"
OTHER_TYPE: Final = "an attribute of another type (hashes, files, mail ...)"

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_GALAXY: Final = re.compile(r'misp-galaxy:[a-z0-9-]+="([^"]+)"', re.I)
_CONFIDENCE: Final = {  # taxonomy "misp", predicate confidence-level, as shares of a hundred
    'misp:confidence-level="completely-confident"': 100,
    'misp:confidence-level="usually-confident"': 75,
    'misp:confidence-level="fairly-confident"': 50,
    'misp:confidence-level="rarely-confident"': 25,
    'misp:confidence-level="unconfident"': 0,
}
BAD_ENTRY: Final = ("not a uuid", "not a timestamp")  # what one entry of a manifest may be; else it is broken itself
_ANSWER: Final = re.compile(r'\[|\{\s*"response"')  # as an answer that holds several events begins
_LEVELS: Final = 3  # of containers around an event: an answer, its list, the event's own


class ManifestEntry(NamedTuple):
    """An event of a feed, in the file `{uuid}.json`. `timestamp_s` is when it was changed last, epoch seconds."""

    uuid: str
    timestamp_s: int
    info: str


class _Event(NamedTuple):
    """What an event says of all its attributes."""

    said: Said
    uuid: str
    info: str


def parse_manifest(text: str, source: str = "manifest.json") -> tuple[list[ManifestEntry], list[Problem]]:
    """The events of a feed's `manifest.json` and what is wrong with it, in its order. A uuid is safe as a file name."""
    entries: list[ManifestEntry] = []
    problems: list[Problem] = []
    document = JsonText(text)
    try:
        for uuid in document.members():
            record = document.record()
            if _UUID.fullmatch(uuid) is None:
                wrong = Wrong(record.column, f'not a uuid: "{show(uuid)}"', "the keys are the uuids of events")
                problems.append(problem_at(source, record.line, wrong))
                continue
            stamp = record.get("timestamp")
            if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
                wrong = Wrong(record.column, f'not a timestamp: "{show(stamp)}"', "seconds since 1970")
                problems.append(problem_at(source, record.line, wrong))
                continue
            entries.append(ManifestEntry(uuid.lower(), int(stamp), tidy(record.get("info"))))
        document.end()
    except Wrong as wrong:
        problems.append(problem_at(source, document.line, wrong))
    return entries, problems


def read_misp(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of one event, of an answer that holds some, or of several of either, each from the beginning of a line on:
    one of them that is broken does not spoil the others. An answer that is cut off does, or a text in its last line."""
    document = JsonText(text)
    judge = Judge(source, rules)
    is_answer = False
    while True:
        try:
            while document.peek():
                is_answer = document.is_next(_ANSWER)
                yield from _events(document, judge, _LEVELS)
                if document.peek() and document.column > 1:
                    document.end()
            return
        except Wrong as wrong:
            line = document.line
            goes_on = document.resume("{")
            if goes_on or (not is_answer and "\n{" in text and text.endswith("\n")):
                wrong = Wrong(wrong.column, f"an event that is {wrong.what}", wrong.advice)  # and not all that is read
            yield problem_at(source, line, wrong)
            if not goes_on:
                return


def _events(document: JsonText, judge: Judge, levels: int) -> Iterator[Found]:
    """Raises Wrong."""
    first = document.peek()
    if first == "[" and levels:
        for _ in document.elements():
            yield from _events(document, judge, levels - 1)
    elif first == "{" and levels:
        known = False
        for key in document.members():
            if key == "Event":
                known = True
                yield from _event(document, judge)
            elif key == "response":
                known = True
                yield from _events(document, judge, levels - 1)
        if not known:
            raise Wrong(document.column, "no Event in it", "take an event's own file, not the manifest")
    elif not first:
        document.value()  # where the text is cut off
    else:
        raise Wrong(document.column, "not an event", "events are objects with the one key Event")


def _event(document: JsonText, judge: Judge) -> Iterator[Found]:
    """Raises Wrong."""
    event = _parse_head(document.fork(), judge)
    for key in document.members():
        if key == "Attribute":
            yield from _attributes(document, judge, event)
        elif key == "Object":
            for _ in document.elements():
                for inner in document.members():
                    if inner == "Attribute":
                        yield from _attributes(document, judge, event)


def _parse_head(document: JsonText, judge: Judge) -> _Event:
    """What stands beside the attributes, before or after them. Raises Wrong."""
    head = {key: document.value() for key in document.members() if key in ("info", "uuid", "Tag")}
    threat, confidence = _tagged(head.get("Tag"))
    uuid, info = as_text(head.get("uuid")), as_text(head.get("info"))
    said = judge.default._replace(
        threat=judge.default.threat or threat,
        confidence=judge.default.confidence if confidence is None else confidence,
        ref=join_ref(f"MISP event {uuid}" if uuid else "MISP event", info),
    )
    return _Event(said, uuid, info)


def _tagged(tags: Any) -> tuple[str, int | None]:
    """(threat, confidence) that tags tell."""
    threat = ""
    confidence = None
    for tag in tags if isinstance(tags, list) else []:
        name = as_text(tag.get("name")) if isinstance(tag, dict) else ""
        found = _GALAXY.fullmatch(name)
        threat = threat or (tidy(found[1]) if found is not None else "")
        confidence = _CONFIDENCE.get(name, confidence)
    return threat, confidence


def _attributes(document: JsonText, judge: Judge, event: _Event) -> Iterator[Found]:
    """Raises Wrong when the list of attributes is none."""
    for _ in document.elements():
        record = document.record()
        try:
            yield _attribute(record, judge, event)
        except Wrong as wrong:
            yield problem_at(judge.source, record.line, record.wrong(wrong))


def _attribute(record: Record, judge: Judge, event: _Event) -> Found:
    """Raises Wrong."""
    kind = record.get("type")
    if not kind:
        raise Wrong(1, "an attribute without a type", "fetch the event again")
    if record.get("deleted") in ("true", "1"):
        return Ignored(record.line, DELETED)
    if record.get("to_ids") not in ("true", "1"):
        return Ignored(record.line, NOT_FOR_IDS)
    if kind == "ip-src" or kind == "ip-src|port":
        return Ignored(record.line, SOURCE_ADDRESS)
    if kind == "uri":
        return Ignored(record.line, BARE_PATH)
    found = _parse_value(kind, record.word("value"))
    if found is None:
        return Ignored(record.line, OTHER_TYPE)
    entry, port = found
    threat, confidence = _tagged(record.members.get("Tag"))
    said = event.said._replace(
        threat=event.said.threat or threat,
        confidence=event.said.confidence if confidence is None else confidence,
        ref=join_ref(port, event.said.ref),
        first_seen_s=parse_moment(record.get("first_seen"), 1, "first_seen"),
    )
    return judge.take(entry, record.column, record.line, said)


def _parse_value(kind: str, word: Word) -> tuple[Entry, str] | None:
    """(entry, port in words) of an attribute's value; None for a type that names no destination. Raises Wrong."""
    if kind == "url":
        return parse_url(word), ""
    if kind in ("domain", "hostname", "ip-dst"):
        return parse_entry(word), ""
    value, _, second = word.text.partition("|")
    if kind == "domain|ip":  # the address is where the name once lived; egressd learns where it lives now
        return parse_entry(Word(value, word.column)), ""
    if kind in ("hostname|port", "ip-dst|port"):
        entry, _ = parse_host_port(Word(value, word.column))
        return entry, f"port {tidy(second)}" if second else ""
    return None
