"""Lines reach the journal, over real sockets and pipes, and nothing waits for it."""

from __future__ import annotations

import logging
import os
import socket
import tempfile

import pytest

from egressd.notify.journal import ERROR, INFO, WARNING, Journal, Line, LogHandler
from egressd.notify.plain import escape

HOSTILE = 'evil.example"\n<0>egressd: all is well\x1b[2J\0\u202e\r'


def test_lines_with_priority_on_a_pipe() -> None:
    reader, writer = os.pipe()
    journal = Journal(writer, environ={})
    assert journal.say(Line(ERROR, f"bad name {HOSTILE}"))
    assert journal.say(Line(INFO, "all is well", {"X": "y"}))
    os.close(writer)
    with open(reader, "rb") as pipe:
        lines = pipe.read().split(b"\n")
    assert len(lines) == 3 and lines[2] == b""
    assert lines[0].startswith(b'<3>bad name evil.example"\\n<0>egressd') and lines[0].isascii()
    assert b"\x1b" not in lines[0] and b"\\u202e" in lines[0]
    assert lines[1] == b"<6>all is well"


def test_native_datagrams_when_the_journal_listens(listener: tuple[socket.socket, str]) -> None:
    heard, path = listener
    with tempfile.TemporaryFile() as file:
        found = os.fstat(file.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        journal = Journal(file.fileno(), environ=environ, path=path)
        assert journal.say(Line(WARNING, HOSTILE, {"EGRESSD_DOMAIN": HOSTILE}))
        entry = dict(one.split("=", 1) for one in heard.recv(65_536).decode("ascii").splitlines())
        assert entry.keys() == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "EGRESSD_DOMAIN"}
        assert entry["PRIORITY"] == "4" and entry["SYSLOG_IDENTIFIER"] == "egressd"
        assert entry["MESSAGE"] == entry["EGRESSD_DOMAIN"] == escape(HOSTILE)
        assert file.tell() == 0
        heard.close()  # the journal has gone: the stream is still there
        assert journal.say(Line(ERROR, "after"))
        file.seek(0)
        assert file.read() == b"<3>after\n"
        journal.close()


def test_another_stream_is_not_the_journal(listener: tuple[socket.socket, str]) -> None:
    heard, path = listener
    with tempfile.TemporaryFile() as file:
        journal = Journal(file.fileno(), environ={"JOURNAL_STREAM": "1:2"}, path=path)
        journal.say(Line(INFO, "x"))
        file.seek(0)
        assert file.read() == b"<6>x\n"
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.recv(10)


def test_a_stream_that_nobody_reads_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    journal = Journal(writer, environ={})
    said = 0
    while journal.say(Line(INFO, "x" * 1_000)):
        said += 1
    assert said >= 15 and journal.lost == 1
    os.read(reader, 65_536)
    assert journal.say(Line(INFO, "again"))
    os.close(reader)
    assert not journal.say(Line(INFO, "to nobody"))
    os.close(writer)
    assert not journal.say(Line(INFO, "closed")) and journal.lost == 3


def test_the_loggings_of_others() -> None:
    reader, writer = os.pipe()
    logger = logging.Logger("library")
    logger.addHandler(LogHandler(Journal(writer, environ={})))
    logger.warning("name %s", "x\n<0>forged")
    try:
        raise ValueError("x\nlibrary: forged")
    except ValueError:
        logger.exception("failed")
    logger.info("wrong %d", "arguments")
    logger.debug("small")
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:
        lines = pipe.read().splitlines()
    assert lines[0] == "<4>library: name x\\n<0>forged"
    assert lines[1] == "<3>library: failed"
    assert all(line.startswith("<3>| ") for line in lines[2:-2]) and "<3>| library: forged" in lines
    assert lines[-2:] == ["<6>library: wrong %d", "<7>library: small"]
