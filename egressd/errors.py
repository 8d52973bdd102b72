"""The errors that egressd declares. Parsers of wire bytes let only `Malformed` out, loaders only `ConfigError`."""

from __future__ import annotations

from typing import NamedTuple


class EgressdError(Exception):
    """Base of every error that egressd raises on purpose."""


class Malformed(EgressdError):
    """Bytes from the wire that break their protocol's grammar or exceed a bound.

    The message is a short constant text: it never quotes the bytes, so it is safe in any sink.
    """


class CaptureError(EgressdError):
    """A capture that cannot be opened or is of no known format. The message names the file and what to do."""


class Problem(NamedTuple):
    """One thing wrong with what a person wrote, and where: 1-based line and column, 0 when the whole file is meant."""

    file: str
    line: int
    column: int
    what: str
    advice: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.what}"
        return f"{text}; {self.advice}" if self.advice else text


class ConfigError(EgressdError):
    """Configuration or list text that cannot be used; carries every problem found, in order of place."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class IndexDamaged(EgressdError):
    """A file that should be a built index and is none, is damaged, or is gone. It is built anew from the lists."""
