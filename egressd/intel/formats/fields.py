"""Pieces of lines that several formats share: times, shares of a hundred, hosts with a port, CSV columns."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from typing import Final

from egressd.intel.entries import Entry, parse_entry
from egressd.intel.formats.judgement import tidy, word_of
from egressd.intel.lines import MAX_LINE, Word, Wrong, show
from egressd.plural import count

_MOMENT: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?: ?UTC|Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_ANY_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:\[:\]|:)//|hxxps?\[://\]|https?\[://\]", re.I | re.ASCII)
_NO_VALUE: Final = frozenset({"", "-", "none", "null", "n/a"})
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/\s\[\]]+(?:\[\.\][^:/\s\[\]]+)*):([0-9]{1,5})")


def parse_moment(text: str, column: int, what: str) -> int:
    """Epoch seconds of a time as feeds write them, UTC where no offset stands; 0 when it is left empty. `what` is the
    field's name. Raises Wrong."""
    bare = text.strip()
    if bare.lower() in _NO_VALUE:
        return 0
    epoch_s = 0
    if _MOMENT.fullmatch(bare) is not None:
        try:
            moment = datetime.fromisoformat(bare.removesuffix("UTC").rstrip())
            epoch_s = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            epoch_s = 0
    if epoch_s <= 0:
        raise Wrong(column, f'{what} is no date or time: "{show(text)}"', "write it as 2030-01-31 12:00:00")
    return epoch_s


def parse_percent(text: str, column: int, what: str, default: int) -> int:
    """A confidence of 0 to 100, `default` when it is left empty. Raises Wrong."""
    bare = text.strip()
    if bare.lower() in _NO_VALUE:
        return default
    if not (bare.isascii() and bare.isdigit()) or len(bare) > 3 or int(bare) > 100:
        raise Wrong(column, f'{what} is not a whole number of 0 to 100: "{show(text)}"', "write it as 75")
    return int(bare)


def parse_host_port(word: Word) -> tuple[Entry, str]:
    """An entry of which a port may follow the host, and that port in words ("port 443"), else "". Raises Wrong.

    What runs on one port of a host is reached through that host, so the whole host is what is listed."""
    found = _HOST_PORT.fullmatch(word.text)
    if found is None:
        return parse_entry(word), ""
    if not 0 < int(found[2]) < 65536:
        raise Wrong(word.column, f'no such port: "{show(word.text)}"', "ports are 1 to 65535")
    return parse_entry(Word(found[1].strip("[]") if found[1][0] == "[" else found[1], word.column)), f"port {found[2]}"


def parse_url(word: Word) -> Entry:
    """A URL, which may be written without its scheme: what a feed calls a URL never becomes its host. Raises Wrong."""
    bare = _ANY_SCHEME.match(word.text) is None
    return parse_entry(Word("http://" + word.text if bare else word.text, word.column))


def join_ref(*parts: str) -> str:
    """Those of the parts that say something, as one reference."""
    return tidy(", ".join(part for part in parts if part))


def parse_columns(line: str) -> list[str]:
    """The columns of one line of CSV, white space around them taken off. Raises Wrong."""
    if len(line) > MAX_LINE * 4:
        raise Wrong(1, f"the line is longer than {MAX_LINE * 4} characters", "put one record on a line")
    try:
        return [one.strip() for one in next(csv.reader([line.strip()], skipinitialspace=True, strict=True), [])]
    except csv.Error as error:
        raise Wrong(1, f"not a line of CSV: {error}", "close the quotes; a record ends with its line") from None


def parse_header(line: str) -> dict[str, int]:
    """Column numbers by lower-case name. Raises Wrong when the line is no CSV or gives a name twice."""
    names = [name.lower() for name in parse_columns(line)]
    header = {name: at for at, name in enumerate(names)}
    if len(header) != len(names):
        raise Wrong(1, "a header with the same name twice", "each column has a name of its own")
    return header


class Columns:
    """A CSV line's values by the names of its header, and the place where each stands."""

    def __init__(self, line: str, header: dict[str, int]) -> None:
        """Raises Wrong when the line is none, or has another number of columns than the header."""
        self._line = line
        self._header = header
        self._values = parse_columns(line)
        if len(self._values) != len(header):
            what = f"{count(len(self._values), 'column')}, where the header has {len(header)}"
            raise Wrong(1, what, "write every column, empty ones too")

    def get(self, name: str) -> str:
        """The value of a column, "" when the header has none of that name."""
        at = self._header.get(name)
        return "" if at is None else self._values[at]

    def word(self, name: str) -> Word:
        """The value with the column of text that it starts in."""
        value = self.get(name)
        return word_of(value, max(0, self._line.find(value)) + 1)
