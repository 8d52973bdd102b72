"""JSON whose values know their line: containers are walked by their text, what they hold is decoded piece by piece.

So a feed is never in memory as a whole tree, and what is wrong with one record is told at its place. Only Wrong leaves
this file; nesting is as deep as the standard decoder allows, and what lies deeper is Wrong, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from json import JSONDecoder
from typing import Any, Final

from egressd.intel.lines import Word, Wrong

_SPACE: Final = re.compile(r"[ \t\n\r]*")
BROKEN: Final = "not JSON: "  # how what is wrong with the text itself begins: a reader that says so reads no further
_LOOKED_AT: Final = 4_096  # characters
_DECODER: Final = JSONDecoder()


class _Uncounted(str):
    """A text in which the decoder finds no lines. For each mistake it would count them from the beginning on to say
    where it is (json.JSONDecodeError), which we know; a text of nothing but mistakes took hours."""

    __slots__ = ()

    def count(self, *_: Any) -> int:
        """None."""
        return 0

    def rfind(self, *_: Any) -> int:
        """Nowhere."""
        return -1


class Record:
    """An object of the text, with the place where it begins. `word` and `get` give scalars as text, "" for others."""

    __slots__ = ("column", "line", "members")

    def __init__(self, members: dict[str, Any], line: int, column: int) -> None:
        self.members = members
        self.line = line
        self.column = column

    def get(self, name: str) -> str:
        """A scalar member as text: "" when it is absent, null or no scalar."""
        return as_text(self.members.get(name))

    def word(self, name: str) -> Word:
        """The same as a word that stands where the record begins."""
        return Word(self.get(name).strip(), self.column)

    def wrong(self, wrong: Wrong) -> Wrong:
        """What is wrong with a member, told where the record begins."""
        return Wrong(self.column, wrong.what, wrong.advice)


class JsonText:
    """A pull parser. `line` and `column` are the place of what was reached last, 1-based."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.line = 1
        self._at = 1 if text.startswith("\ufeff") else 0
        self._counted = 0  # up to here `line` is right
        self._line_start = 0
        self._resumed = 0
        self._forked_from: JsonText | None = None

    @property
    def column(self) -> int:
        """The column of what was reached last."""
        return self._counted - self._line_start + 1

    def peek(self) -> str:
        """The character that the next value begins with, "" at the end. Its place is the place now."""
        self._skip_space()
        self._mark()
        return self.text[self._at : self._at + 1]

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next. Each value is decoded by `value` or walked before the next key is
        asked for; else it is skipped. Raises Wrong."""
        yield from self._inside("{", "}")

    def elements(self) -> Iterator[str]:
        """The elements of the array that comes next, as `members` ("" each). Raises Wrong."""
        yield from self._inside("[", "]")

    def value(self) -> Any:
        """Decode the value that comes next. Raises Wrong."""
        self._skip_space()
        self._mark()
        try:
            found, self._at = _DECODER.raw_decode(self.text, self._at)
        except RecursionError:
            raise Wrong(self.column, "nested too deeply", "this is no feed") from None
        except ValueError as error:
            self._at = min(getattr(error, "pos", self._at), len(self.text))
            self._mark()
            self._leave_uncounted()
            what = f"{BROKEN}{getattr(error, 'msg', 'a number that is too long')}"
            raise Wrong(self.column, what, "fetch it again, it may be cut off") from None
        return found

    def fork(self) -> JsonText:
        """A second reader at the same place, to look ahead with."""
        other = JsonText(self.text)
        other._forked_from = self
        other.line, other._at, other._counted, other._line_start = self.line, self._at, self._counted, self._line_start
        return other

    def written(self) -> tuple[Any, str]:
        """`value`, and how it is written. Raises Wrong."""
        self._skip_space()
        start = self._at
        found = self.value()
        return found, self.text[start : self._at]

    def is_next(self, beginning: re.Pattern[str]) -> bool:
        """Whether what comes next begins so."""
        self._skip_space()
        return beginning.match(self.text, self._at) is not None

    def resume(self, opening: str) -> bool:
        """After a Wrong: go on at the next line that begins with `opening`; False when there is none. What is wrong may
        be that character itself, which has been reached then: no line is looked at twice."""
        at = self.text.find("\n" + opening, max(self._at - 2, self._resumed))
        if at < 0:
            return False
        self._at = self._resumed = at + 1
        return True

    def end(self) -> None:
        """Raises Wrong unless the text ends here."""
        if self.peek():
            raise Wrong(self.column, f"{BROKEN}something follows its end", "put one document into a file")

    def records(self, levels: int) -> Iterator[Record]:
        """What stands in arrays that are at most `levels` containers deep, one after the other; members on the way that
        are no containers are left out. Raises Wrong."""
        while self.peek():
            yield from self.walk(levels)

    def record(self) -> Record:
        """The object that comes next; without members when it is something else. Raises Wrong."""
        self.peek()
        line, column = self.line, self.column
        found = self.value()
        return Record(found if isinstance(found, dict) else {}, line, column)

    def walk(self, levels: int, in_array: bool = False) -> Iterator[Record]:
        """`records` of the one value that comes next."""
        first = self.peek()
        if first == "[" and levels:
            for _ in self.elements():
                yield from self.walk(levels - 1, True)
        elif first == "{" and levels and not in_array:
            for _ in self.members():
                yield from self.walk(levels - 1)
        elif in_array:
            yield self.record()
        else:
            self.value()

    def _inside(self, opening: str, closing: str) -> Iterator[str]:
        if self.peek() != opening:
            raise Wrong(self.column, f"{BROKEN}{opening} expected", "fetch it again, it may be cut off")
        self._at += 1
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            key = ""
            if opening == "{":
                key = self.value() if self.peek() == '"' else ""
                if self.peek() != ":":
                    raise Wrong(self.column, f"{BROKEN}a key and a colon expected", "fetch it again")
                self._at += 1
            self.peek()
            before = self._at
            yield key
            if self._at == before:
                self.value()
            mark = self.peek()
            self._at += 1
            if mark == closing:
                return
            if mark != ",":
                raise Wrong(self.column, f"{BROKEN}a comma or {closing} expected", "fetch it again, it may be cut off")

    def _leave_uncounted(self) -> None:
        """From the first mistake on: the copy is one that a text without mistakes does not need."""
        if isinstance(self.text, _Uncounted):
            return
        text = _Uncounted(self.text)
        reader: JsonText | None = self
        while reader is not None:
            reader.text = text
            reader = reader._forked_from

    def _skip_space(self) -> None:
        found = _SPACE.match(self.text, self._at)
        self._at = found.end() if found is not None else self._at

    def _mark(self) -> None:
        """Make `line` and `column` those of the place now; every character is looked at once."""
        lines = str.count(self.text, "\n", self._counted, self._at)
        if lines:
            self.line += lines
            self._line_start = str.rfind(self.text, "\n", self._counted, self._at) + 1
        self._counted = max(self._counted, self._at)


def begins_as_json(text: str) -> bool:
    """Whether a text is meant as an object or an array, and not as the lines that some feeds have as well."""
    return text[:_LOOKED_AT].lstrip("\ufeff \t\r\n")[:1] in ("{", "[")


def is_lines(text: str) -> bool:
    """Whether a text is JSON lines: the first of them, or the second if that one is broken, is an object by itself."""
    for line in text.lstrip("\ufeff \t\r\n").split("\n", 2)[:2]:
        with suppress(ValueError, RecursionError):
            if isinstance(_DECODER.decode(line), dict):
                return True
    return False


def as_text(value: Any) -> str:
    """A decoded scalar as feeds mean it: "" for null and for what is no scalar."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, dict | list):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return str(value)
    except ValueError:  # an integer of thousands of digits
        return ""
