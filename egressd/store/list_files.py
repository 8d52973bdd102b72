"""Changes of a list's file when others change it too: under a lock, on what the file holds then, whole or not at all.

The lock is flock(2) on the folder, so that it holds for files that are replaced. An editor takes no lock: so a file
that somebody saved between our look and our rename is looked at again. A symbolic link stays, its target is replaced.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from egressd.errors import EgressdError
from egressd.store.syncing import sync

MAX_BYTES: Final = 64 << 20  # as the daemon reads (config.texts.MAX_LIST_BYTES)
WAIT_S: Final = 30.0
TRIES: Final = 5
_LOOK_S: Final = 0.02
_EMPTY_S: Final = 0.3

Change = Callable[[str], str]


class FileRefused(EgressdError):
    """A file cannot be read or may not be changed; nothing was. The message names it and says what to do."""


class Edit(NamedTuple):
    """What was done: the file that was replaced (of a link its target), and its text before and after."""

    path: Path
    before: str
    after: str


def read_list(path: Path) -> str:
    """The text as it is, line ends and byte order mark too. Raises FileRefused."""
    return _read(path)[0]


def edit_list(path: Path, change: Change, *, may_be_new: bool = False, wait_s: float = WAIT_S) -> Edit:
    """Replace a file's text by what `change` makes of it. `change` is called with the text under the lock, more than
    once when somebody else saves meanwhile; what it raises leaves the file as it is. A file that is not there is made
    when it `may_be_new`. Raises FileRefused."""
    real = Path(os.path.realpath(path))
    with _locked(real.parent, wait_s):
        for _ in range(TRIES):
            there = os.path.lexists(real)
            if not there and not may_be_new:
                raise FileRefused(f"{_shown(path)} is not there; name a file that is, or make an empty one first")
            before, sign = _read_still(real) if there else ("", None)
            after = change(before)
            if after == before and there:
                return Edit(real, before, after)
            if _replace(real, after, sign):
                return Edit(real, before, after)
    raise FileRefused(f"{_shown(path)} changes all the time; nothing was written")


@contextmanager
def _locked(folder: Path, wait_s: float) -> Iterator[None]:
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FileRefused(f"{_shown(folder)}: {error.strerror}; the folder must be there, and open to you") from None
    try:
        end_s = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end_s:
                    what = f"{_shown(folder)} is locked by another process for {wait_s:g} s"
                    raise FileRefused(f"{what}; see who: lsof {_shown(folder)}") from None
                time.sleep(_LOOK_S)
        yield
    finally:
        os.close(number)


def _read_still(path: Path) -> tuple[str, os.stat_result]:
    """As `_read`. An empty file is given a moment: an editor that writes in place empties it first, and what it writes
    then would go where nobody looks any more."""
    text, found = _read(path)
    if not text:
        time.sleep(_EMPTY_S)
        text, found = _read(path)
    return text, found


def _read(path: Path) -> tuple[str, os.stat_result]:
    """The text, and the file's stat at that moment."""
    try:
        # O_NONBLOCK: a pipe nobody writes to would hold us for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            found = os.fstat(stream.fileno())
            raw = stream.read(MAX_BYTES + 1) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise FileRefused(f"{_shown(path)}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise FileRefused(f"{_shown(path)} is no file; name a list")
    if len(raw) > MAX_BYTES:
        raise FileRefused(f"{_shown(path)} is larger than {MAX_BYTES >> 20} MB; split it")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FileRefused(f"{_shown(path)} is no UTF-8 text; egressd list lint tells where") from None
    return text, found


def _replace(real: Path, text: str, sign: os.stat_result | None) -> bool:
    """Put a new file in the place of the one that `sign` tells of, None when there is none; False when it is another
    one by now. Raises FileRefused."""
    temporary = real.with_name(f".{real.name[:200]}.{secrets.token_hex(8)}")
    try:
        if sign is not None:  # a rename asks for the folder's permission only; who may not write the file shall not
            os.close(os.open(real, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "wb") as stream:
            _own(stream.fileno(), real, sign)
            stream.write(text.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        return _put(temporary, real, sign)
    except OSError as error:
        raise FileRefused(f"{_shown(real)} cannot be written: {error.strerror}; it is as it was") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _put(temporary: Path, real: Path, sign: os.stat_result | None) -> bool:
    if sign is None:
        try:
            os.link(temporary, real, follow_symlinks=False)  # fails when somebody was faster
        except FileExistsError:
            return False
    else:
        with suppress(FileNotFoundError):
            now = real.stat(follow_symlinks=False)
            if _same(now, sign):
                temporary.rename(real)
                sync(real.parent)
                return True
        return False
    sync(real.parent)
    return True


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_dev, other.st_ino, other.st_size, other.st_mtime_ns, other.st_ctime_ns,
    )  # fmt: skip


def _own(number: int, real: Path, sign: os.stat_result | None) -> None:
    """Owner, group, mode and extended attributes (ACLs) as those of the old file, or for a new one readable for whom
    the folder is. Raises FileRefused when the daemon could lose the right to read it."""
    folder = real.parent.stat()
    if sign is None:
        with suppress(OSError):
            os.fchown(number, -1, folder.st_gid)
        os.fchmod(number, 0o600 | (folder.st_mode & 0o064))
        return
    made = os.fstat(number)
    if (made.st_uid, made.st_gid) != (sign.st_uid, sign.st_gid):
        try:
            os.fchown(number, sign.st_uid, sign.st_gid)
        except PermissionError:  # only root gives files away: it is ours from now on, in the same group
            try:
                os.fchown(number, -1, sign.st_gid)
            except PermissionError:
                if not sign.st_mode & 0o004:
                    what = f"{_shown(real)} belongs to a group that you are not in, and would be lost to it"
                    raise FileRefused(f"{what}; use sudo") from None
    os.fchmod(number, stat.S_IMODE(sign.st_mode))
    with suppress(OSError):
        for name in os.listxattr(real):
            with suppress(OSError):
                os.setxattr(number, name, os.getxattr(real, name))


def _shown(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]
