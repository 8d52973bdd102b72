"""Questions about many values: SQLite takes so many variables in one statement, and each needs its mark there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

AT_ONCE: Final = 500  # SQLITE_MAX_VARIABLE_NUMBER was 999 before 3.32 (https://www.sqlite.org/limits.html)


def marks(values: Sequence[Any]) -> str:
    """`?,?,?` for so many values, to stand behind IN, between parentheses."""
    return ",".join("?" * len(values))


def chunks(values: Sequence[Value]) -> Iterator[tuple[Value, ...]]:
    """The values in order, at most AT_ONCE at a time."""
    return (tuple(values[at : at + AT_ONCE]) for at in range(0, len(values), AT_ONCE))
