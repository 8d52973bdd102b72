"""The event file: EVE JSON lines, appended by a thread of its own, so that a slow or full disk stops nobody else.

Events wait in a buffer with a bound in bytes. While it is over half full, observations (dns, http, tls, quic, socks,
flow) are not taken any more; the other half is for what was found (sightings, decisions, attempts, leaks, incidents).
Whatever does not fit is counted by its type, and `write` says so: the ledger holds findings anyway, this file is for
other programs. A disk that is full is tried again; a line is never torn: what was written of one is taken back, and a
line that a crash has torn is ended before the next.

logrotate may move the file away and send SIGHUP (`reopen`); without the signal it is noticed within some seconds too.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from egressd.errors import EgressdError
from egressd.notify.eve import Record, render_line

MAX_WAITING_BYTES: Final = 16 << 20
MAX_WRITE_BYTES: Final = 1 << 20
MODE: Final = 0o640
RETRY_S: Final = 1.0  # after a write that failed
LOOK_S: Final = 5.0  # how often to look whether the file is still there under its name
OBSERVATIONS: Final = frozenset({"dns", "http", "tls", "quic", "socks", "flow"})
_OF_THE_DISK: Final = frozenset((errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO))
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class EveLogError(EgressdError):
    """The event file cannot be opened. The message names it and what to do."""


class EveStats(NamedTuple):
    """What was done so far. `dropped` is by event type; `trouble` is what keeps the file from being written now, in
    words, or ""; `waiting_bytes` is what is in the buffer."""

    written: int
    dropped: dict[str, int]
    errors: int
    waiting: int
    waiting_bytes: int
    trouble: str


class EveLog:
    """One event file. All methods may be called from any thread; none waits for the disk but `flush` and `close`."""

    def __init__(
        self,
        path: str,
        *,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        retry_s: float = RETRY_S,
        write: Callable[[int, bytes], int] = os.write,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`write` and `clock_s` are the system's, but for tests."""
        self._path = path
        self._max_waiting_bytes = max_waiting_bytes
        self._retry_s = retry_s
        self._write = write
        self._clock_s = clock_s
        self._changed = threading.Condition()
        # Under _changed:
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._dropped: dict[str, int] = {}
        self._written = 0
        self._errors = 0
        self._trouble = ""
        self._asked = 0  # how often it was to be opened anew,
        self._opened = 0  # and which of that has been done
        self._ends = False
        # The thread's own:
        self._fd = -1
        self._file: tuple[int, int] = (0, 0)  # device and inode
        self._looked_s = 0.0
        self._torn_bytes = 0  # of a line that was begun
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the file and start the thread. EveLogError when it cannot be opened: at the start that is a mistake to
        mend, but for a disk that is full or fails; later it is trouble that passes."""
        try:
            self._open()
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise EveLogError(
                    f"event file {self._path}: {error.strerror or error}: make its folder writable for this user, or "
                    f"set state.events"
                ) from None
            self._trouble = f"{self._path}: {error.strerror}"
            self._asked += 1  # tried again until it works, though there is nothing to write
        self._thread = threading.Thread(target=self._run, name="egressd-events", daemon=True)
        self._thread.start()

    def write(self, record: Record) -> bool:
        """Take a rendered event; False when there was no room, which is counted."""
        line = render_line(record).encode("ascii") + b"\n"
        sort = str(record.get("event_type", ""))
        with self._changed:
            bound = self._max_waiting_bytes // 2 if sort in OBSERVATIONS else self._max_waiting_bytes
            if self._waiting_bytes + len(line) > bound or self._ends:
                self._dropped[sort] = self._dropped.get(sort, 0) + 1
                return False
            self._waiting.append((sort, line))
            self._waiting_bytes += len(line)
            if len(self._waiting) == 1:
                self._changed.notify_all()
        return True

    def reopen(self) -> None:
        """The file was moved away: go on in a new one (SIGHUP)."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    @property
    def stats(self) -> EveStats:
        """Counts so far."""
        with self._changed:
            return EveStats(
                self._written, dict(self._dropped), self._errors, len(self._waiting),
                self._waiting_bytes, self._trouble,
            )  # fmt: skip

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken so far is written; False when that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ends or self._idle(), timeout_s) and self._idle()

    def _idle(self) -> bool:
        return not self._waiting and self._opened == self._asked

    def close(self, timeout_s: float = 2.0) -> int:
        """Write what waits, as far as the time allows, and close. Returns how many events were not written; they are
        counted as dropped."""
        self.flush(timeout_s)
        with self._changed:
            self._ends = True
            for sort, _ in self._waiting:
                self._dropped[sort] = self._dropped.get(sort, 0) + 1
            left = len(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)  # if the disk hangs, the thread is left to the system
        return left

    # -- the thread

    def _run(self) -> None:
        while self._step():
            pass
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _step(self) -> bool:
        """Wait for something to do and do it; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._opened < self._asked or self._ends)
            if self._ends:
                return False
            asked = self._asked
        trouble = ""
        try:
            if asked == self._opened and self._moved():
                with self._changed:
                    asked = self._asked = self._asked + 1  # until it works: into a removed file nobody looks
            if asked > self._opened:
                self._open()
                with self._changed:
                    self._opened = asked
            self._write_some()
        except OSError as error:
            trouble = f"{self._path}: {error.strerror or error}"
        with self._changed:
            self._trouble = trouble
            if trouble:
                self._errors += 1
                self._changed.wait_for(lambda: self._ends, self._retry_s)
            self._changed.notify_all()
        return True

    def _write_some(self) -> None:
        """Write the oldest lines. What is written is taken from the buffer, also when an error ends it half-way."""
        self._take_back()
        lines: list[bytes] = []
        size = 0
        with self._changed:
            for _, line in self._waiting:
                if lines and size + len(line) > MAX_WRITE_BYTES:
                    break
                lines.append(line)
                size += len(line)
        if not lines:
            return
        chunk = b"".join(lines)
        done = 0
        try:
            while done < len(chunk):
                done += self._write(self._fd, memoryview(chunk)[done:])  # type: ignore[arg-type]
        finally:
            whole = 0
            count = 0
            for line in lines:
                if whole + len(line) > done:
                    break
                whole += len(line)
                count += 1
            with self._changed:
                for _ in range(min(count, len(self._waiting))):
                    self._waiting_bytes -= len(self._waiting.popleft()[1])
                self._written += count
            self._torn_bytes = done - whole
            self._take_back()

    def _take_back(self) -> None:
        """Cut the beginning of a line off the file's end. Shrinking a file needs no room."""
        if self._torn_bytes:
            os.ftruncate(self._fd, max(0, os.fstat(self._fd).st_size - self._torn_bytes))
            self._torn_bytes = 0

    def _moved(self) -> bool:
        """Whether the file is not under its name any more; looked at now and then."""
        now_s = self._clock_s()
        if self._fd >= 0 and now_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = now_s
        try:
            found = os.stat(self._path)  # noqa: PTH116  (as os.open)
        except FileNotFoundError:
            return True
        except OSError:  # a folder that was closed to us: nobody can say, and what is open can be written
            return self._fd < 0
        return (found.st_dev, found.st_ino) != self._file

    def _open(self) -> None:
        """Open the file, then let go of the one before: when that fails, we go on there. OSError."""
        fd = os.open(self._path, _FLAGS, MODE)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(0, "is not a file")
            if not found.st_size:
                with suppress(PermissionError):  # not ours, but we may write it
                    os.fchmod(fd, stat.S_IMODE(found.st_mode) | MODE)  # new: the umask of services is strict
            elif os.pread(fd, 1, found.st_size - 1) != b"\n":
                os.write(fd, b"\n")  # we, or the machine, died in the middle of a line
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._torn_bytes = 0
        self._file = (found.st_dev, found.st_ino)
        self._looked_s = self._clock_s()
