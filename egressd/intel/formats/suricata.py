"""Suricata's datasets (docs.suricata.io, Datasets): strings as one base64 text a line, addresses as they are, a number
of datarep after a comma; from version 8 on also JSON and JSON lines, with the value under a key that rules name.
Spamhaus's DROP lists are such lines too (spamhaus.org/blocklists/do-not-route-or-peer)."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Final

from egressd.intel.entries import Entry, parse_entry
from egressd.intel.formats.fields import join_ref
from egressd.intel.formats.jsontext import JsonText, Record, begins_as_json, is_lines
from egressd.intel.formats.judgement import Found, Ignored, Judge, Rules, tidy, word_of
from egressd.intel.lines import MAX_LINE, Word, Wrong, problem_at, show, split_lines
from egressd.intel.networks import parse_network

FILE_HASH: Final = "a file's hash"
BARE_PATH: Final = "a path without a host"
METADATA: Final = "tells of the list itself"

VALUE_KEYS: Final = (
    "value",
    "indicator",
    "ioc",
    "domain",
    "hostname",
    "host",
    "fqdn",
    "dns",
    "sni",
    "ip",
    "cidr",
    "url",
)
_THREAT_KEYS: Final = ("threat", "malware", "family", "category")
_REF_KEYS: Final = ("reference", "ref", "link", "sblid")
_HASH: Final = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{64}")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_LEVELS: Final = 4  # of containers around the array that a rule's array_key may name


def read_suricata(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of datasets."""
    judge = Judge(source, rules)
    if begins_as_json(text):
        yield from _read_json(text, judge)
        return
    for number, line in enumerate(split_lines(text), 1):
        word = word_of(line.partition(",")[0], 1)
        if not line.strip() or word.text.startswith("#"):
            continue
        try:
            yield _read_line(judge, number, word)
        except Wrong as wrong:
            yield problem_at(source, number, wrong)


def _read_line(judge: Judge, number: int, word: Word) -> Found:
    """Raises Wrong."""
    if len(word.text) > MAX_LINE:
        raise Wrong(MAX_LINE + 1, f"the line is longer than {MAX_LINE} characters", "put one value on a line")
    if parse_network(word.text) is not None:
        return judge.take(parse_entry(word), word.column, number)
    if _HASH.fullmatch(word.text) is not None:
        return Ignored(number, FILE_HASH)
    if not word.text or _BASE64.fullmatch(word.text) is None:
        raise Wrong(word.column, f'not base64: "{show(word.text)}"', "strings of a dataset are base64, one a line")
    entry = _parse_value(Word(b64decode(word.text).decode("utf-8", "backslashreplace"), word.column))
    return Ignored(number, BARE_PATH) if entry is None else judge.take(entry, word.column, number)


def _read_json(text: str, judge: Judge) -> Iterator[Found]:
    """One document, or one a line: of those each that is broken spoils itself, but for a last one that is cut off."""
    document = JsonText(text)
    by_lines: bool | None = None
    while True:
        try:
            yield from _read_documents(document, judge)
            return
        except Wrong as wrong:
            line = document.line
            by_lines = is_lines(text) if by_lines is None else by_lines
            goes_on = by_lines and document.resume("{")
            if goes_on or (by_lines and text.endswith("\n")):
                wrong = Wrong(wrong.column, f"a line that is {wrong.what}", wrong.advice)
            yield problem_at(judge.source, line, wrong)
            if not goes_on:
                return


def _read_documents(document: JsonText, judge: Judge) -> Iterator[Found]:
    """Raises Wrong."""
    while document.peek():
        first = _look_ahead(document) if document.peek() == "{" else None
        if first is not None and (_value_key(first) or _is_metadata(first)):
            records: Iterator[Record] = iter((document.record(),))
        else:
            records = document.walk(_LEVELS)
        empty = document.peek() != "["
        column = document.column
        line = document.line
        for record in records:
            empty = False
            try:
                yield _read_record(judge, record)
            except Wrong as wrong:
                yield problem_at(judge.source, record.line, record.wrong(wrong))
        if empty:
            yield problem_at(judge.source, line, _no_value(column))


def _look_ahead(document: JsonText) -> Record:
    """The record that comes next, and will come again. Raises Wrong, at its place, for what is broken."""
    try:
        return document.fork().record()
    except Wrong:
        return document.record()


def _no_value(column: int) -> Wrong:
    return Wrong(column, "no value in it", "it stands under one of " + ", ".join(VALUE_KEYS))


def _read_record(judge: Judge, record: Record) -> Found:
    """Raises Wrong."""
    key = _value_key(record)
    if not key and _is_metadata(record):
        return Ignored(record.line, METADATA)
    if not key:
        raise _no_value(record.column)
    word = record.word(key)
    if _HASH.fullmatch(word.text) is not None:
        return Ignored(record.line, FILE_HASH)
    entry = _parse_value(word)
    if entry is None:
        return Ignored(record.line, BARE_PATH)
    said = judge.default._replace(
        threat=judge.default.threat or next((tidy(record.get(key)) for key in _THREAT_KEYS if record.get(key)), ""),
        ref=join_ref(next((record.get(key) for key in _REF_KEYS if record.get(key)), "")),
    )
    return judge.take(entry, record.column, record.line, said)


def _value_key(record: Record) -> str:
    return next((key for key in VALUE_KEYS if isinstance(record.members.get(key), str)), "")


def _is_metadata(record: Record) -> bool:
    """As the last line of a list of Spamhaus's has it."""
    return record.get("type") == "metadata"


def _parse_value(word: Word) -> Entry | None:
    """None for a path alone. Raises Wrong."""
    return None if word.text.startswith("/") else parse_entry(word)
