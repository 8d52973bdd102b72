"""What goes to the terminal: text for people, escaped and fitted to its width, objects for programs, progress."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

WIDTH: Final = 80
_EVERY_S: Final = 0.1


def printable(text: str, limit: int = 0) -> str:
    """`text` with everything but printable ASCII as `\\xNN` or `\\uNNNN`, cut to `limit` characters when given.

    For what came from the wire or a file name: no escape sequence may reach the terminal."""
    safe = "".join(c if " " <= c <= "~" else c.encode("unicode_escape", "replace").decode("ascii") for c in text)
    return fit(safe, limit) if limit else safe


def fit(text: str, width: int) -> str:
    """`text` in at most `width` columns; a cut leaves `..` in the middle, for both ends of a name tell something."""
    if len(text) <= width:
        return text
    tail = (width - 2) // 2
    return text[: width - 2 - tail] + ".." + text[len(text) - tail :]


def cut(text: str, width: int = 0) -> str:
    """`text` in at most `width` columns, `room` when not given; a cut leaves `..` at the end."""
    width = width or room()
    return text if len(text) <= width else text[: width - 2] + ".."


def moment(ts_us: int) -> datetime:
    """Microseconds of epoch as a datetime in UTC."""
    try:
        return datetime.fromtimestamp(ts_us / 1_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime(9999, 12, 31, tzinfo=UTC)


def span(us: int) -> str:
    """A length of time in at most two units: `27d4h`, `4h12m`, `3m20s`, `12s`."""
    seconds = max(0, us) // 1_000_000
    for unit, size, less, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size}{unit}{rest}{less}" if rest else f"{seconds // size}{unit}"
    return f"{seconds}s"


def print_json(record: Mapping[str, Any]) -> None:
    """An object on one line, for programs: ASCII, so that it needs no escaping."""
    print(json.dumps(record, separators=(",", ":")))


def columns_of(stream: TextIO) -> int:
    """How wide the terminal is that a stream goes to; WIDTH when it is none, or does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):  # no terminal, or no file at all
        return WIDTH


def room() -> int:
    """The columns for a line on standard output: the terminal's, WIDTH at least, which tables need; in a file or a
    pipe always WIDTH, so that what stands there is the same wherever it was made."""
    return max(WIDTH, columns_of(sys.stdout))


class Progress:
    """A bar on standard error, on a terminal only."""

    def __init__(self) -> None:
        self._last_s = 0.0
        self._shown = False
        self._width = max(1, min(WIDTH, columns_of(sys.stderr)) - 2)  # a line that is broken cannot be written over

    @staticmethod
    def wanted() -> bool:
        """Whether there is somebody to look at it."""
        return sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s < _EVERY_S:
            return
        self._last_s = now_s
        self._shown = True
        if total:
            share = min(1.0, done / total)
            bar = "#" * int(share * 40)
            line = f"[{bar:<40}] {share:4.0%}  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        else:
            line = f"{done / 1e6:,.0f} MB read"
        print(f"\r{line[: self._width]:<{self._width}}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._shown:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
