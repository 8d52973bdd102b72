"""Text files that people name, from disk: read whole within a bound, or a problem that says what to do."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from egressd.errors import ConfigError, Problem
from egressd.names import escape

MAX_LIST_BYTES: Final = 64 << 20  # two million names with options; more belongs into a feed
ON_THE_WEB: Final = re.compile("(?:^|/)(?:https?|ftp):/", re.I)  # Path takes one of two slashes away
_STREAMS: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # a shell's <(command) and pipes
_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def load_text(path: Path, name: str, limit_bytes: int) -> str:
    """The text of a file of at most so many bytes, called `name` in problems. Raises ConfigError with one."""
    found = read_text(path, name, limit_bytes)
    if isinstance(found, Problem):
        raise ConfigError([found])
    return found


def escape_path(path: Path | str) -> str:
    """A path as it can be shown: file names may hold anything."""
    text = str(path)
    return text if text.isprintable() else escape(os.fsencode(text))


def read_text(path: Path, name: str, limit: int) -> str | Problem:
    """The text of a file, or why it cannot be used. `name` is how the file is called in the problem."""
    try:
        if not path.is_file() and path.exists() and not str(path).startswith(_STREAMS):
            return Problem(name, 0, 0, "is not a file", "name a text file, or put one there; then reload")
        with path.open("rb") as stream:
            opened = os.fstat(stream.fileno())
            stranger = _strange_link(path, opened)
            if stranger:
                return Problem(name, 0, 0, stranger, "let the file's owner, or root, make the link")
            if not str(path).startswith(_STREAMS) and not os.path.samestat(opened, path.stat()):
                return Problem(name, 0, 0, "was replaced while it was opened", "check again")
            raw = stream.read(limit + 1)
    except FileNotFoundError:
        if ON_THE_WEB.search(str(path)):
            advice = "fetch it first, or name it under feeds: (docs/feeds.md)"
            return Problem(name, 0, 0, "is an address on the web, no file", advice)
        return Problem(name, 0, 0, "does not exist", f"looked for {escape_path(path.absolute())}")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Problem(name, 0, 0, f"cannot be read: {reason}", "check the path and its permissions")
    if len(raw) > limit:
        return Problem(name, 0, 0, f"is larger than {limit >> 20} MB", "split it or take a shorter one")
    if raw.startswith((_GZIP, _ZIP)):
        return Problem(name, 0, 0, "is compressed", "unpack it first")
    if raw.startswith(_UTF16):
        return Problem(name, 0, 0, "is UTF-16 text", "save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + (len(_UTF8_MARK) if raw.startswith(_UTF8_MARK) else 0)  # counted from behind it
        return _not_text(raw, name, at, f"the byte 0x{raw[at]:02X} is not UTF-8", "save it as UTF-8")
    zero = raw.find(0)
    if zero >= 0:
        return _not_text(raw, name, zero, "a zero byte: this is not a text file", "name a text file")
    return text


def _strange_link(path: Path, opened: os.stat_result) -> str:
    """Why a link must not be followed to what was opened, "" when it may. Mistakes are told with the line, so whoever
    may only write lists would be told what is in any file that we may read. As the kernel's protected_symlinks: a link
    counts when it is root's, our own, or its owner has the file."""
    if str(path).startswith(_STREAMS):
        return ""
    for one in (path, *path.parents):
        found = one.lstat()
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid(), opened.st_uid):
            return f"is reached by a link of user {found.st_uid}, and is not that user's"
    return ""


def _not_text(raw: bytes, name: str, at: int, what: str, advice: str) -> Problem:
    start = raw.rfind(b"\n", 0, at) + 1
    column = len(raw[start:at].decode("utf-8-sig" if start == 0 else "utf-8", "replace")) + 1
    return Problem(name, raw.count(b"\n", 0, at) + 1, column, what, advice)
