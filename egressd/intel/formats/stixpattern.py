"""STIX patterns (STIX 2.1 section 9): the destinations of one that says "any of these"."""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import EgressdError
from egressd.intel.entries import ADDRESS, DOMAIN, NETWORK, Entry, parse_entry
from egressd.intel.formats.fields import parse_url
from egressd.intel.lines import Word, Wrong, show

CONJUNCTION: Final = "a pattern with AND: one part alone means nothing"
SEQUENCE: Final = "a pattern with FOLLOWEDBY: a sequence of events"
WINDOW: Final = "a pattern with a time or a number of times (WITHIN, REPEATS, START)"
COMPARISON: Final = "a pattern with another comparison than = (LIKE, MATCHES, != ...)"
OTHER_OBJECT: Final = "a pattern about other things (files, processes, mail ...)"

MAX_PATTERN: Final = 100_000  # characters; real ones with thousands of alternatives have some tens of thousands

# A word ends where no path could go on: else each of its pieces is looked at for a path that never comes, to the end.
_TOKEN: Final = re.compile(
    r"\s+|(?P<text>t?'(?:[^'\\]|\\.)*')|(?P<path>[a-zA-Z0-9-]+:(?:[\w.-]|\[(?:\*|\d+)\]|'(?:[^'\\]|\\.)*')+)"
    r"|(?P<mark>!=|<=|>=|[=<>()\[\],])|(?P<word>(?:[A-Za-z]+|-?\d+(?:\.\d+)?)(?![\w-]))",
    re.S,
)
_REASONS: Final = {
    "AND": CONJUNCTION,
    "FOLLOWEDBY": SEQUENCE,
    **dict.fromkeys(("WITHIN", "REPEATS", "START", "STOP"), WINDOW),
    **dict.fromkeys(("LIKE", "MATCHES", "NOT", "EXISTS", "ISSUPERSET", "!=", "<", ">", "<=", ">="), COMPARISON),
}
_DOMAINS: Final = frozenset({"domain-name:value"})
_ADDRESSES: Final = frozenset({"ipv4-addr:value", "ipv6-addr:value"})
_EITHER: Final = frozenset({"network-traffic:dst_ref.value"})
_URLS: Final = frozenset({"url:value"})
_ESCAPE: Final = re.compile(r"\\(.)", re.S)


class NotTaken(EgressdError):
    """A legal pattern that cannot be read as a list of destinations; the message is one of the reasons above."""


def parse_pattern(text: str) -> tuple[list[Entry], int]:
    """The destinations of a pattern, and how many of its alternatives are about other things.

    Raises NotTaken for what is more than alternatives, Wrong for what is no pattern or names no destination."""
    tokens = _tokens(text)
    for kind, token in tokens:
        if kind in ("word", "mark") and token in _REASONS:
            raise NotTaken(_REASONS[token])
    entries: list[Entry] = []
    others = 0
    open_marks: list[str] = []
    at = 0
    while True:
        while at < len(tokens) and tokens[at][1] in ("(", "["):
            open_marks.append(tokens[at][1])
            at += 1
        path, values, at = _comparison(tokens, at, text)
        if "[" not in open_marks:
            raise _no_pattern(text)
        for value in values:
            entry = _parse_value(path, value)
            if entry is None:
                others += 1
            else:
                entries.append(entry)
        while at < len(tokens) and tokens[at][1] in (")", "]"):
            if not open_marks or open_marks.pop() + tokens[at][1] not in ("()", "[]"):
                raise _no_pattern(text)
            at += 1
        if at == len(tokens):
            break
        if tokens[at] != ("word", "OR"):
            raise _no_pattern(text)
        at += 1
    if open_marks:
        raise _no_pattern(text)
    return entries, others


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each. Raises Wrong."""
    if len(text) > MAX_PATTERN:
        raise Wrong(1, f"the pattern is longer than {MAX_PATTERN} characters", "split it")
    tokens = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _no_pattern(text)
        at = found.end()
        if found.lastgroup is not None:
            tokens.append((found.lastgroup, found.group()))
    return tokens


def _comparison(tokens: list[tuple[str, str]], at: int, text: str) -> tuple[str, list[str], int]:
    """(path, values, where it ends) of `path = value`, `path IN (values)` or `path ISSUBSET network`. Raises Wrong."""
    piece = tokens[at : at + 3]
    if len(piece) < 3 or piece[0][0] != "path":
        raise _no_pattern(text)
    path, sign, value = piece[0][1], piece[1], piece[2]
    if sign in (("mark", "="), ("word", "ISSUBSET")):
        return path, [_constant(value, text)], at + 3
    if sign != ("word", "IN") or value != ("mark", "("):
        raise _no_pattern(text)
    values = []
    at += 3
    while at + 1 < len(tokens):
        values.append(_constant(tokens[at], text))
        if tokens[at + 1] == ("mark", ")"):
            return path, values, at + 2
        if tokens[at + 1] != ("mark", ","):
            break
        at += 2
    raise _no_pattern(text)


def _constant(token: tuple[str, str], text: str) -> str:
    kind, value = token
    if kind == "text":
        return _ESCAPE.sub(r"\1", value[value.index("'") + 1 : -1])
    if kind == "word":
        return value
    raise _no_pattern(text)


def _parse_value(path: str, value: str) -> Entry | None:
    """The destination, None when the path is about something else. Raises Wrong."""
    word = Word(value.strip(), 1)
    if path in _URLS:
        return parse_url(word)
    kinds: tuple[str, ...]
    if path in _DOMAINS:
        kinds = (DOMAIN,)
    elif path in _ADDRESSES:
        kinds = (ADDRESS, NETWORK)
    elif path in _EITHER:
        kinds = (DOMAIN, ADDRESS, NETWORK)
    else:
        return None
    entry = parse_entry(word)
    if entry.kind not in kinds:
        raise Wrong(1, f'{path} is not "{show(value)}"', "check the object's type")
    return entry


def _no_pattern(text: str) -> Wrong:
    return Wrong(1, f'not a STIX pattern: "{show(text)}"', "patterns are [domain-name:value = 'bad.example']")
