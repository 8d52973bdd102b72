"""One line of a text list as a person writes it: words with their columns, comments, `key=value` options, times.

    bad.example  threat="some family" confidence=90 expires=2030-01-31   # why it is here

A `#` at the start of a word begins a comment, and so does the `;` of Spamhaus's lists and of zone files. A value with
spaces stands in double quotes; there are no escapes, so a value holds no double quote. A date alone means 00:00 UTC of
that day; a time without an offset is UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from egressd.errors import EgressdError, Problem
from egressd.names import escape

COMMENT: Final = "#;"
MAX_LINE: Final = 4096  # characters; the longest honest line is a long URL with options
MAX_VALUE: Final = 512  # characters of an option's value; it travels into every event
_MAX_SHOWN: Final = 80  # characters of a person's text quoted in a problem

_WORD: Final = re.compile(r'[^\s="]+="[^"]*"(?=\s|$)|\S+')
_TIME: Final = re.compile(
    r"(?:19[7-9]\d|[2-9]\d{3})-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


class Word(NamedTuple):
    """A word and its 1-based column."""

    text: str
    column: int


class Wrong(EgressdError):
    """What is wrong with one line, and in which column. Readers of lists turn it into a Problem."""

    def __init__(self, column: int, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.column = column
        self.what = what
        self.advice = advice


def show(text: str) -> str:
    """A person's text, safe to print and not long."""
    cut = text[:_MAX_SHOWN]
    safe = cut if cut.isprintable() else escape(cut.encode("utf-8", "surrogatepass"))
    return safe if cut == text else safe + "..."


def problem_at(source: str, line: int, wrong: Wrong) -> Problem:
    """The problem of one line of a file."""
    return Problem(source, line, wrong.column, wrong.what, wrong.advice)


def split_lines(text: str) -> list[str]:
    """Lines as editors count them: LF or CRLF, a byte order mark taken off, no other control character ends a line."""
    return text.removeprefix("\ufeff").split("\n")


def split_comment(line: str) -> tuple[list[Word], str]:
    """The words of a line and its comment. Raises Wrong when the line is too long to be one."""
    if len(line) > MAX_LINE:
        raise Wrong(MAX_LINE + 1, f"the line is longer than {MAX_LINE} characters", "put one entry on a line")
    words: list[Word] = []
    for found in _WORD.finditer(line):
        text = found.group()
        if text[0] in COMMENT:
            return words, line[found.start() + 1 :].strip()
        words.append(Word(text, found.start() + 1))
    return words, ""


def find_comment(line: str) -> int:
    """Where the mark of a line's comment stands, -1 when it has none."""
    return next((found.start() for found in _WORD.finditer(line) if found.group()[0] in COMMENT), -1)


def parse_options(words: list[Word], known: tuple[str, ...]) -> dict[str, Word]:
    """Values of `key=value` words by key, each with its word's column. Raises Wrong at the first that is not one."""
    options: dict[str, Word] = {}
    for word in words:
        key, equals, value = word.text.partition("=")
        if not key:
            raise Wrong(word.column, "nothing before the =", "options are written key=value, no spaces")
        if not equals:
            raise Wrong(word.column, f'unexpected word "{show(word.text)}"', "options are written key=value, no spaces")
        if key not in known:
            from difflib import get_close_matches  # only mistakes need it

            near = get_close_matches(key[:_MAX_SHOWN].lower(), known, 1, 0.5)
            advice = f'did you mean "{near[0]}"?' if near else "known options are " + ", ".join(known)
            raise Wrong(word.column, f'unknown option "{show(key)}"', advice)
        if key in options:
            raise Wrong(word.column, f"{key}= is given twice", "keep one of them")
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if '"' in value:
            raise Wrong(word.column, f"the quotes of {key}= are not closed", f'write {key}="text with spaces"')
        if not value:
            raise Wrong(word.column, f"{key}= has no value", "give one or leave the option out")
        if len(value) > MAX_VALUE:
            raise Wrong(word.column, f"the value of {key}= is longer than {MAX_VALUE} characters", "shorten it")
        if not value.isprintable():
            raise Wrong(word.column, f"the value of {key}= holds characters that cannot be printed", "remove them")
        options[key] = Word(value, word.column)
    return options


def parse_time(key: str, word: Word | None) -> int:
    """Epoch seconds of an ISO 8601 date or date-time, 0 when the option is absent. Raises Wrong."""
    if word is None:
        return 0
    epoch_s = 0
    if _TIME.fullmatch(word.text) is not None:
        try:
            moment = datetime.fromisoformat(word.text)
            epoch_s = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            epoch_s = 0
    if epoch_s <= 0:
        what = f'{key}= is not a date or UTC date-time: "{show(word.text)}"'
        raise Wrong(word.column, what, f"write {key}=2030-01-31 or {key}=2030-01-31T12:00:00Z")
    return epoch_s


def render_time(epoch_s: int) -> str:
    """ISO 8601 UTC of epoch seconds."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def render_option(key: str, value: str) -> str:
    """`key=value`, quoted where it must be."""
    return f'{key}="{value}"' if any(map(str.isspace, value)) else f"{key}={value}"
