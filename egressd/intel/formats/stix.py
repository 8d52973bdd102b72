"""STIX 2.1 (docs.oasis-open.org/cti/stix/v2.1) bundles, and the envelopes in which TAXII 2.1 hands such objects out.

Taken are indicators whose pattern is one comparison or several joined by OR, each of which stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from egressd.intel.formats.fields import join_ref, parse_moment, parse_percent
from egressd.intel.formats.jsontext import JsonText, Record
from egressd.intel.formats.judgement import Found, Ignored, Judge, Rules, tidy
from egressd.intel.formats.stixpattern import OTHER_OBJECT, NotTaken, parse_pattern
from egressd.intel.lines import Wrong, problem_at

NO_INDICATOR: Final = "an object that is no indicator"
REVOKED: Final = "revoked"
OUTDATED: Final = "a later version of it follows"
OVER: Final = "its time is over"
BENIGN: Final = "an indicator of what is benign: feeds cannot allow"
OTHER_LANGUAGE: Final = "a pattern in another language (Snort, YARA, Sigma ...)"

_OF_ENVELOPES: Final = frozenset({"more", "next", "type", "id", "spec_version"})  # and bundles, which may be empty
_NAMING: Final = frozenset({"malware", "tool", "threat-actor", "intrusion-set", "campaign"})


class StixObject(NamedTuple):
    """An object as it is written, on one line. `key` is its id (or all of it, without one): of two with the same the
    one that was `modified` later is right."""

    key: str
    modified: str
    text: str


class Page(NamedTuple):
    """One answer of a TAXII server, its objects unread. While `more` is true ask again with `next` (a parameter of the
    request, at most 4096 printable characters), or, when that is empty, with `added_after` set to the answer's header
    X-TAXII-Date-Added-Last. `is_whole` is false when it could not be read to its end, or is something else."""

    objects: list[StixObject]
    more: bool
    next: str
    is_whole: bool


class _Context(NamedTuple):
    """What objects say of one another, wherever they stand: the names of threats, what indicates which, and the last
    version of each object."""

    names: dict[str, str]
    indicates: dict[str, str]
    versions: dict[str, str]


def read_stix(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of a bundle or an envelope."""
    document = JsonText(text)
    judge = Judge(source, rules)
    try:
        if not document.peek():
            return
        context = _parse_context(document.fork())
        keys = set()
        for key in document.members():
            keys.add(key)
            if key == "objects":
                for _ in document.elements():
                    record = document.record()
                    try:
                        yield from _object(record, judge, context)
                    except Wrong as wrong:
                        yield problem_at(source, record.line, record.wrong(wrong))
        document.end()
        if not keys <= _OF_ENVELOPES and "objects" not in keys:
            raise Wrong(document.column, "no objects in it", "look whether the server tells an error")
    except Wrong as wrong:
        yield problem_at(source, document.line, wrong)


def parse_page(text: str) -> Page:
    """Take an answer or a bundle apart without reading its objects. What is not whole asks for no more."""
    document = JsonText(text)
    objects: list[StixObject] = []
    more, following = False, ""
    keys = set()
    try:
        if document.peek():
            for key in document.members():
                keys.add(key)
                if key == "objects":
                    objects += _take_apart(document)
                elif key == "more":
                    more = document.value() is True
                elif key == "next":
                    value = document.value()
                    usable = isinstance(value, str) and value.isprintable() and len(value) <= 4096
                    following = value if usable else ""
            document.end()
    except Wrong:
        return Page(objects, False, following, False)
    return Page(objects, more, following, "objects" in keys or keys <= _OF_ENVELOPES)


def _take_apart(document: JsonText) -> Iterator[StixObject]:
    """Raises Wrong."""
    for _ in document.elements():
        value, written = document.written()
        # Between the tokens of JSON a line end is a space; inside of them there is none.
        line = written.replace("\r", " ").replace("\n", " ")
        record = Record(value if isinstance(value, dict) else {}, 0, 0)
        yield StixObject(record.get("id") or line, record.get("modified"), line)


def _parse_context(document: JsonText) -> _Context:
    """Raises Wrong."""
    context = _Context({}, {}, {})
    for key in document.members():
        if key != "objects":
            continue
        for _ in document.elements():
            record = document.record()
            kind, id_ = record.get("type"), record.get("id")
            if kind in _NAMING:
                context.names[id_] = record.get("name")
            elif kind == "relationship" and record.get("relationship_type") == "indicates":
                context.indicates.setdefault(record.get("source_ref"), record.get("target_ref"))
            elif kind == "indicator":
                # Times of one form sort as text (STIX 2.1 section 3.2 "timestamp": RFC 3339 with Z).
                context.versions[id_] = max(context.versions.get(id_, ""), record.get("modified"))
    return context


def _object(record: Record, judge: Judge, context: _Context) -> list[Found]:
    """Raises Wrong."""
    line = record.line
    if not record.get("type"):
        raise Wrong(1, "an object without a type", "fetch it again")
    if record.get("type") != "indicator":
        return [Ignored(line, NO_INDICATOR)]
    id_ = record.get("id")
    if record.get("modified") < context.versions.get(id_, ""):
        return [Ignored(line, OUTDATED)]
    if record.get("revoked") == "true":
        return [Ignored(line, REVOKED)]
    if "benign" in _texts(record, "indicator_types") or "benign" in _texts(record, "labels"):
        return [Ignored(line, BENIGN)]
    if record.get("pattern_type") not in ("stix", ""):
        return [Ignored(line, OTHER_LANGUAGE)]
    default = judge.default
    expires_s = parse_moment(record.get("valid_until"), 1, "valid_until")
    if expires_s and expires_s <= judge.rules.now_s:
        return [Ignored(line, OVER)]
    threat = context.names.get(context.indicates.get(id_, ""), "") or record.get("name")
    said = default._replace(
        threat=default.threat or tidy(threat),
        confidence=parse_percent(record.get("confidence"), 1, "confidence", default.confidence),
        expires_s=expires_s,
        ref=join_ref(id_),
        first_seen_s=parse_moment(record.get("valid_from"), 1, "valid_from"),
    )
    try:
        entries, others = parse_pattern(record.get("pattern"))
    except NotTaken as reason:
        return [Ignored(line, str(reason))]
    found = judge.take_all([(entry, record.column) for entry in entries], line, said) if entries else []
    return [*found, Ignored(line, OTHER_OBJECT)] if others else found


def _texts(record: Record, name: str) -> list[str]:
    values = record.members.get(name)
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
