"""What systemd and people are told: over real sockets, never a raw byte, never too many lines, never a count lost."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.model import Attempt, FlowKey, Incident, Indicator, Match, Target
from egressd.notify.journal import (
    COUNTED,
    ERROR,
    FULL,
    HOUR_US,
    INFO,
    MAX_LINE,
    MINUTE_US,
    SHORT,
    WARNING,
    Digest,
    Journal,
    Line,
    LogHandler,
    Service,
    Throttle,
    defang,
    digest_line,
    escape,
    incident_line,
    leak_line,
)

A, B = bytes((10, 2, 7, 52)), bytes((10, 2, 7, 53))
HOSTILE = 'evil.example"\n<0>egressd: all is well\x1b[2J\0\u202e\r'


@pytest.fixture
def listener() -> Iterator[tuple[socket.socket, str]]:
    """A datagram socket and its path (short: sun_path takes 108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="e") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        path = f"{folder}/s"
        one.bind(path)
        one.settimeout(5)
        yield one, path


# -- text


@given(st.text(max_size=3_000))
def test_escaped_text_is_one_line_of_ascii(text: str) -> None:
    safe = escape(text)
    assert safe.isascii() and (safe.isprintable() or not safe) and len(safe) <= MAX_LINE
    if text.isascii() and text.isprintable() and len(text) <= MAX_LINE:
        assert safe == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("c2.evil.example", "c2[.]evil[.]example"),
        ("198.51.100.7", "198[.]51[.]100[.]7"),
        ("http://evil.example/a.b", "hxxp://evil[.]example/a[.]b"),
        ("https://evil.example", "hxxps://evil[.]example"),
        ("2001:db8::1", "2001:db8::1"),
        ("a\x1b.b", "a\\x1b[.]b"),
    ],
)
def test_defang(text: str, safe: str) -> None:
    assert defang(text) == safe


# -- systemd


def test_everything_that_systemd_is_told(listener: tuple[socket.socket, str]) -> None:
    heard, path = listener
    service = Service(path)
    before_us = time.monotonic_ns() // 1_000
    assert service.ready("42 indicators")
    assert heard.recv(4096) == b"READY=1\nSTATUS=42 indicators"
    assert service.status("x") and heard.recv(4096) == b"STATUS=x"
    assert service.watchdog() and heard.recv(4096) == b"WATCHDOG=1"
    assert service.extend(2.5) and heard.recv(4096) == b"EXTEND_TIMEOUT_USEC=2500000"
    assert service.reloading()
    first, _, second = heard.recv(4096).partition(b"\nMONOTONIC_USEC=")
    assert first == b"RELOADING=1" and before_us <= int(second) <= time.monotonic_ns() // 1_000
    assert service.stopping("bye") and heard.recv(4096) == b"STOPPING=1\nSTATUS=bye"
    service.close()


def test_a_status_cannot_say_more_than_a_status(listener: tuple[socket.socket, str]) -> None:
    heard, path = listener
    Service(path).status("x\nMAINPID=1\nWATCHDOG=trigger")
    assert heard.recv(4096) == b"STATUS=x\\nMAINPID=1\\nWATCHDOG=trigger"


def test_abstract_sockets() -> None:
    name = f"egressd-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        assert Service(f"@{name}").ready()
        assert heard.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("pid", "told", "pause_s"),
    [
        ("77", "30000000", 15.0),
        ("78", "30000000", 20.0),
        ("", "30000000", 15.0),
        ("77", "x", 20.0),
        ("77", "60000000", 20.0),
        ("77", "1", 0.1),
    ],
)
def test_the_environment_is_read_and_taken_away(pid: str, told: str, pause_s: float) -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": told, "WATCHDOG_PID": pid, "PATH": "/bin"}
    service = Service.from_environment(environ, 77)
    assert service.pause_s(20.0) == pause_s
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/nonexistent/notify"])
def test_without_systemd_nothing_happens(address: str) -> None:
    service = Service(address, 30_000_000)
    assert not service.ready() and not service.watchdog()
    assert service.failed == (2 if address.startswith("/") else 0)
    if not address.startswith("/"):
        assert service.pause_s(20.0) == 20.0


def test_a_full_socket_is_not_waited_for(listener: tuple[socket.socket, str]) -> None:
    service = Service(listener[1])
    while service.watchdog():  # nobody reads
        pass
    assert service.failed == 1


# -- the journal


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


# -- lines for people


def match_of(level: str = "sibling", listed: str = "a.evil.example", domain: str = "evil.example") -> Match:
    indicator = Indicator(
        "domain", listed, "registered", "", domain, "example", "lists.d/c2.txt", 12, "c2", 90, 0, 0, "", ""
    )
    return Match(level, indicator, domain, "example")


def incident(match: Match | None = None, **changes: object) -> Incident:
    opened_us = 1_432_000_000_000_000
    made = Incident("I7", "C1", A, match or match_of(), opened_us, opened_us, opened_us, contacts=3)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_an_incident_is_one_line_that_says_what_to_do() -> None:
    line = incident_line(incident(), "BLOCKED by D3, still watched", segment="jps")
    assert line.priority == ERROR
    assert line.text == (
        "HOST 10.2.7.52 (jps) LOOKS INFECTED: contacted evil[.]example (same registered domain as a[.]evil[.]example, "
        "listed in lists.d/c2.txt:12 as c2) since 2015-05-19 01:46 UTC. BLOCKED by D3, still watched. "
        "first host of campaign C1. See: egressd incidents (I7)"
    )
    assert line.fields["EGRESSD_DOMAIN"] == "evil.example" and line.fields["EGRESSD_CLIENT"] == "10.2.7.52"


def test_other_incidents() -> None:
    found = incident_line(incident(match_of("host", "evil.example"), retro=True, contacts=9), "not blocked", hosts=4)
    assert "(listed in lists.d/c2.txt:12 as c2)" in found.text
    assert "found in history: 9 contacts before it was listed" in found.text and "4 hosts of campaign" in found.text
    short = incident_line(incident(), "BLOCKED by D3", hosts=5, short=True)
    assert short.text == (
        "ONE MORE HOST: 10.2.7.52 contacted evil[.]example too; 5 hosts in campaign C1. BLOCKED by D3. (I7)"
    )
    address = incident_line(incident(match_of("address", "198.51.100.7", "")), "x")
    assert "contacted 198[.]51[.]100[.]7 (198[.]51[.]100[.]7 is listed" in address.text


@pytest.mark.parametrize("listed", [HOSTILE, "x" * 5_000])
def test_hostile_incidents_are_one_line(listed: str) -> None:
    reader, writer = os.pipe()
    Journal(writer, environ={}).say(incident_line(incident(match_of("host", listed, listed)), "x", segment="a\nb"))
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    assert said.count(b"\n") == 1 and said.isascii() and b"\x1b" not in said and len(said) < 4_096
    assert b"evil.example" not in said


def test_a_leak_is_loud() -> None:
    flow = FlowKey(6, A, 1, bytes((198, 51, 100, 7)), 443)
    attempt = Attempt(
        0, 0, flow, "b.evil.example", "tls_sni", "D3", Target("registered_domain", "evil.example"), match_of(), False,
        4, True, "C1", "I7",
    )  # fmt: skip
    line = leak_line(attempt, segment="jps")
    assert line.priority == ERROR
    assert line.text.startswith("BLOCK DOES NOT HOLD: 10.2.7.52 (jps) got an answer from evil[.]example at 198[.]51")
    assert "egressd isolate 10.2.7.52" in line.text


def test_digests() -> None:
    line = digest_line(Digest("C1", 1, 120, 2, 9, 15 * MINUTE_US), "evil.example")
    assert line.text == (
        "STILL TRYING: campaign C1 (evil[.]example): 120 more contacts in the last 15 min, 2 more hosts that no line "
        "named; 9 hosts in all. See: egressd watch"
    )
    assert (
        "40 further campaigns: 80 more contacts in the last 6 h."
        in digest_line(Digest("", 40, 80, 0, 0, 6 * HOUR_US)).text
    )


# -- throttle


def client(number: int) -> bytes:
    return number.to_bytes(4, "big")


def test_first_in_full_then_short_then_counted() -> None:
    throttle = Throttle(lines_per_campaign=3)
    said = [throttle.note("C1", client(number), 0) for number in (1, 1, 2, 3, 4, 4, 5)]
    assert said == [FULL, COUNTED, SHORT, SHORT, COUNTED, COUNTED, COUNTED]
    assert throttle.due(14 * MINUTE_US) == []
    assert throttle.due(15 * MINUTE_US) == [Digest("C1", 1, 4, 2, 5, 15 * MINUTE_US)]
    assert throttle.due(16 * MINUTE_US) == []


def test_digests_become_rarer_and_start_anew_after_a_quiet_day() -> None:
    throttle = Throttle()
    throttle.note("C1", A, 0)
    now_us, intervals = 0, []
    for _ in range(6):
        throttle.note("C1", A, now_us)
        began_us = now_us
        while not throttle.due(now_us):
            now_us += 15 * MINUTE_US
        intervals.append((now_us - began_us) // MINUTE_US)
    assert intervals == [15, 60, 360, 1440, 1440, 1440]
    now_us += 48 * HOUR_US
    throttle.note("C1", A, now_us)
    assert throttle.due(now_us + 15 * MINUTE_US)


def test_a_campaign_is_news_again_after_a_quiet_week() -> None:
    throttle = Throttle()
    assert throttle.note("C1", A, 0) == FULL
    throttle.due(6 * 24 * HOUR_US)
    assert throttle.note("C1", A, 6 * 24 * HOUR_US) == COUNTED
    throttle.due(7 * 24 * HOUR_US)
    throttle.due(15 * 24 * HOUR_US)
    assert throttle.note("C1", A, 15 * 24 * HOUR_US) == FULL


def test_one_client_cannot_use_up_the_lines_of_others() -> None:
    throttle = Throttle(lines_per_hour=100, lines_per_client_hour=8)
    said = Counter(throttle.note(f"C{number}", A, 0) for number in range(1_000))
    assert said == {FULL: 8, COUNTED: 992}
    assert throttle.note("C5000", B, 1) == FULL
    assert throttle.note("C999", A, HOUR_US) == FULL  # not said yet, and there is room again


def test_lines_in_an_hour_are_bounded() -> None:
    throttle = Throttle(lines_per_hour=100)
    said = Counter(throttle.note(f"C{number}", client(number), 0) for number in range(1_000))
    assert said == {FULL: 100, COUNTED: 900}
    digests = throttle.due(HOUR_US)
    assert len(digests) == 9
    assert digests[-1] == Digest("", 892, 892, 892, 0, HOUR_US)


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    throttle = Throttle(lines_per_hour=2)
    later_us = 365 * 24 * HOUR_US
    for number in range(5):
        throttle.note("C1", client(number), later_us)
    assert throttle.note("C2", A, 0) == FULL
    assert [(one.campaign, one.events, one.over_us) for one in throttle.due(0)] == [("C1", 3, 0)]


def test_a_day_of_the_third_beat_is_few_lines() -> None:
    """INCIDENT beat c: three hosts try for days; three reports and a few digests, not three times N alerts."""
    throttle = Throttle()
    lines = 0
    for minute in range(3 * 24 * 60):
        now_us = minute * MINUTE_US
        lines += sum(throttle.note("C1", client(host), now_us) != COUNTED for host in (1, 2, 3))
        lines += len(throttle.due(now_us))
    assert lines <= 3 + 3 + 3


NOTES = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 20), st.integers(1, 5), st.booleans())


@settings(max_examples=200)
@given(st.lists(NOTES, max_size=150))
def test_no_count_is_lost(notes: list[tuple[int, int, int, int, bool]]) -> None:
    throttle = Throttle(
        lines_per_campaign=2, lines_per_hour=6, lines_per_client_hour=2, max_campaigns=4, max_clients=3,
        digests_at_once=2,
    )  # fmt: skip
    now_us = total = told = 0
    for campaign, number, minutes, events, look in notes:
        now_us += minutes * MINUTE_US
        total += events
        if throttle.note(f"C{campaign}", client(number), now_us, events) != COUNTED:
            told += events
        if look:
            told += sum(one.events for one in throttle.due(now_us))
        assert len(throttle._told) <= 4 and all(len(one.clients) <= 3 for one in throttle._told.values())
    told += sum(one.events for one in throttle.flush(now_us))
    assert told == total
    assert throttle.flush(now_us) == []
