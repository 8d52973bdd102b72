"""Log lines for the journal.

On standard error with the priority prefix of sd-daemon(3) (`<3>text`) or, when standard error is the journal itself,
native datagrams with fields (systemd.io/JOURNAL_NATIVE_PROTOCOL). Nothing here waits: a journal that is full or gone
costs a counted line.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections.abc import Mapping
from typing import Final, NamedTuple

from egressd.notify.plain import escape

ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6
DEBUG: Final = 7
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"


class Line(NamedTuple):
    """One line for people: a syslog priority, text, and fields for `journalctl`."""

    priority: int
    text: str
    fields: Mapping[str, str] = {}


class Journal:
    """Where lines go: the journal's socket when `fd` is connected to the journal, else `fd` itself."""

    def __init__(self, fd: int = 2, *, environ: Mapping[str, str] | None = None, path: str = JOURNAL_SOCKET) -> None:
        """`environ` is the process's; JOURNAL_STREAM in it says which file is connected to the journal."""
        self.lost = 0  # lines that nobody took
        self._fd = fd
        self._path = path
        self._prefix = not os.isatty(fd)
        self._socket: socket.socket | None = None
        if _is_journal(fd, (os.environ if environ is None else environ).get("JOURNAL_STREAM", "")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def say(self, line: Line) -> bool:
        """Write a line; False when it was lost."""
        text = escape(line.text)
        if self._socket is not None and self._send(line, text):
            return True
        prefix = f"<{line.priority}>" if self._prefix else ""
        if self._write(f"{prefix}{text}\n".encode("ascii")):
            return True
        self.lost += 1
        return False

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, line: Line, text: str) -> bool:
        entry = {"MESSAGE": text, "PRIORITY": str(line.priority), "SYSLOG_IDENTIFIER": "egressd", **line.fields}
        # No value has a line's end in it, so the simple form of the protocol does.
        sent = "".join(f"{key}={escape(value)}\n" for key, value in entry.items())
        assert self._socket is not None
        try:
            self._socket.sendto(sent.encode("ascii"), self._path)
        except OSError:
            return False
        return True

    def _write(self, line: bytes) -> bool:
        """To the file, unless that would wait: under systemd it is a socket or a pipe, whose reader may stand still."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        try:
            if not any(event & select.POLLOUT for _, event in poll.poll(0)):
                return False
            return os.write(self._fd, line) == len(line)
        except OSError as error:
            if error.errno == errno.EBADF:  # closed: there will be nobody again
                self._fd = -1
            return False


def _is_journal(fd: int, stream: str) -> bool:
    """Whether `fd` is the file that JOURNAL_STREAM (`device:inode`, systemd.exec(5)) means."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


class LogHandler(logging.Handler):
    """Sends what libraries and our own code log to the journal. A message is one line; a traceback follows in lines
    that begin with `| `, so that no text in it can pass for a message of ours."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        priority = ERROR if record.levelno >= logging.ERROR else WARNING if record.levelno >= logging.WARNING else INFO
        if record.levelno < logging.INFO:
            priority = DEBUG
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit: the mistake must not hide the message
            message = str(record.msg)
        self._journal.say(Line(priority, f"{record.name}: {message}", {"EGRESSD_LOGGER": record.name}))
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            for one in trace.splitlines()[-40:]:
                self._journal.say(Line(priority, f"| {one}"))
