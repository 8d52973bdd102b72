"""Values of the ledger that a failing disk has changed: the rest of their rows still counts, and somebody is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from egressd.model import Indicator, Match, Target
from egressd.store.errors import StoreError
from egressd.store.records import is_count, is_given

Value = TypeVar("Value")


class Garbled(str):
    """A text of the ledger that is no UTF-8 any more, with its bytes escaped."""


def text_of(octets: bytes) -> str:
    """A text column, for `sqlite3.Connection.text_factory`: the default one gives up the whole question."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return Garbled(octets.decode("utf-8", "backslashreplace"))


class Unread:
    """Collects which rows could not be read whole, in words."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, row: str, what: str) -> None:
        """`what` of a row cannot be read, and what was done instead."""
        self.told.append(f"{row}: {what}")

    def garbled(self, row: str, columns: Sequence[object]) -> bool:
        """Whether a text among these is none any more; that is told."""
        found = any(isinstance(one, Garbled) for one in columns)
        if found:
            self.tell(row, "a text is damaged")
        return found

    def parsed(self, parse: Callable[[str], Value], text: str, instead: Value, row: str, column: str) -> Value:
        """What `parse` makes of a column, or `instead`, which is told."""
        try:
            return parse(text)
        except StoreError:
            self.tell(row, f"{column} cannot be read, and count as none")
            return instead

    def counted(self, value: int, row: str, column: str) -> int:
        """A count, or none where it is damaged, which is told."""
        if is_count(value):
            return value
        self.tell(row, f"{column} cannot be, and count as none")
        return 0

    def numbered(self, row: str, *numbers: int) -> bool:
        """Whether these are numbers that may have been given out; that one is not is told."""
        whole = all(map(is_given, numbers))
        if not whole:
            self.tell(row, "its number is damaged; it is left out")
        return whole


def is_address(client: bytes) -> bool:
    """Whether a column of a packed address, which may be empty, holds one."""
    return len(client) in (0, 4, 16)


def match_about(target: Target, registered_domain: str) -> Match:
    """What stands in for a match that cannot be read: it says what the decision is about, and of no list."""
    scopes = {"registered_domain": "registered", "host": "host", "exact": "exact"}
    kind = "domain" if target.kind in scopes else "url" if target.kind == "url" else "address"
    value = target.value.rpartition(">")[2]
    scope = scopes.get(target.kind, "")
    indicator = Indicator(kind, value, scope, "", registered_domain, "", "", 0, "", 0, 0, 0, "", "")
    return Match("host" if kind == "domain" else kind, indicator, registered_domain, "")
