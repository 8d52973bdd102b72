"""The last good version of each feed, on disk: blocking goes on with it when the server, or we, start anew.

One file a feed: a line of JSON about it, then the text as it was unpacked. One file and one rename, so that no crash
leaves a text with another's record. What is damaged is told and not used; the feed is fetched anew then.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from egressd.errors import EgressdError
from egressd.intel.feeds.fetch import Validators
from egressd.units import SECOND_US

VERSION: Final = 2
MAX_HEAD_BYTES: Final = 4_096
MAX_KEPT_BYTES: Final = 1 << 30  # the most that max_mib lets in, and more
ENDING: Final = ".feed"


class KeptError(EgressdError):
    """A kept version that cannot be used, or cannot be written. The message is a sentence for people."""


class Kept(NamedTuple):
    """A version that was taken. `confirmed_us` is when the server said last that it is still the one. `url_digest` and
    `format` are of the feed it was fetched for: validators and sizes of another address say nothing."""

    body: bytes
    validators: Validators
    fetched_us: int
    confirmed_us: int
    url_digest: str
    format: str


def url_digest(url: str) -> str:
    """Tells one address from another without holding it: there may be a secret in it."""
    return sha256(url.encode()).hexdigest()


def save_candidate(directory: Path, name: str, kept: Kept) -> Path:
    """Write a version that is still to be judged, beside the one that was; returns where it is. Raises KeptError."""
    head = {
        "version": VERSION,
        "etag": kept.validators.etag,
        "last_modified": kept.validators.last_modified,
        "fetched_us": kept.fetched_us,
        "url_digest": kept.url_digest,
        "format": kept.format,
        "bytes": len(kept.body),
        "sha256": sha256(kept.body).hexdigest(),
    }
    new = _candidate(directory, name)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(json.dumps(head, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n")
            stream.write(kept.body)
            stream.flush()
            os.utime(stream.fileno(), ns=(kept.confirmed_us * 1_000, kept.confirmed_us * 1_000))
            os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)  # what was begun takes room that the disk may be short of
        raise KeptError(f"it cannot be kept on disk: {error.strerror}") from None
    return new


def drop_candidate(directory: Path, name: str) -> None:
    """It is not taken, or was left by a run that ended in the midst of it."""
    with suppress(OSError):
        _candidate(directory, name).unlink(missing_ok=True)


def adopt_candidate(directory: Path, name: str) -> None:
    """It is taken: either it or the one before is there whole, whatever happens. Raises KeptError."""
    try:
        _candidate(directory, name).replace(kept_path(directory, name))
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeptError(f"it cannot be kept on disk: {error.strerror}; a restart begins with an older one") from None


def kept_path(directory: Path, name: str) -> Path:
    """Where the last good version lies."""
    return directory / f"{name}{ENDING}"


def _candidate(directory: Path, name: str) -> Path:
    return directory / f".{name}.new"


def load_kept(directory: Path, name: str) -> Kept | None:
    """The last good version; None when there is none. Raises KeptError when what is there cannot be used."""
    try:
        with kept_path(directory, name).open("rb") as stream:
            confirmed_us = os.fstat(stream.fileno()).st_mtime_ns // 1_000
            line = stream.readline(MAX_HEAD_BYTES)
            body = stream.read(MAX_KEPT_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeptError(f"the kept version cannot be read: {error.strerror}") from None
    try:
        head = json.loads(line)
        if not isinstance(head, dict) or head.get("version") != VERSION:
            raise KeptError("the kept version is of another egressd")
        kept = Kept(
            body,
            Validators(_text(head, "etag"), _text(head, "last_modified")),
            _number(head, "fetched_us"),
            max(confirmed_us, _number(head, "fetched_us")),
            _text(head, "url_digest"),
            _text(head, "format"),
        )
        is_whole = head["bytes"] == len(body) and head["sha256"] == sha256(body).hexdigest()
    except (ValueError, KeyError, RecursionError):
        raise KeptError("the kept version is damaged") from None
    if not is_whole:
        raise KeptError("the kept version is damaged")
    return kept


def parse_fetched_s(head: bytes) -> int:
    """When a kept version was fetched, epoch seconds, by the line about it; 0 when that does not tell."""
    try:
        found = json.loads(head)
        return _number(found, "fetched_us") // SECOND_US if isinstance(found, dict) else 0
    except (ValueError, KeyError, RecursionError):
        return 0


def confirm_kept(directory: Path, name: str, now_us: int) -> None:
    """The server says that it is still the one: noted as the file's time, so that a large text is not written again
    each hour. Raises KeptError."""
    try:
        os.utime(kept_path(directory, name), ns=(now_us * 1_000, now_us * 1_000))
    except OSError as error:
        raise KeptError(f"it cannot be noted on disk that it is still valid: {error.strerror}") from None


def _text(head: dict[str, Any], key: str) -> str:
    value = head[key]
    if not isinstance(value, str):
        raise ValueError(key)
    return value


def _number(head: dict[str, Any], key: str) -> int:
    value = head[key]
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(key)
    return value
