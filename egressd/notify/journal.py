"""What the service says to systemd and to people: readiness and watchdog, and log lines for the journal.

By the standard library alone: the notification protocol of sd_notify(3), and lines on standard error with the priority
prefix of sd-daemon(3) (`<3>text`) or, when standard error is the journal itself, native datagrams with fields
(systemd.io/JOURNAL_NATIVE_PROTOCOL). Nothing here waits: a journal that is full or gone costs a counted line.

Lines are ASCII, whatever came from the wire, and bad names in them are defanged, for lines get copied into mails and
chats, where a click would be a contact.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from egressd.model import BEHAVIOUR, Attempt, Incident
from egressd.notify.eve import render_address, render_time

ERROR: Final = 3
WARNING: Final = 4
NOTICE: Final = 5
INFO: Final = 6
DEBUG: Final = 7
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
LEAST_PAUSE_S: Final = 0.1  # between two words to the watchdog, whatever is asked of us
MAX_LINE: Final = 2_000  # characters; a pipe takes up to 4,096 bytes at once or not at all (pipe(7), PIPE_BUF)
# One id for each sort of line, for `journalctl MESSAGE_ID=...`.
MESSAGE_IDS: Final = {
    "incident": "9d55b69668d14f8a9e320dc97b3aa018",
    "leak": "f06105c565da4b0baace59a0f6113656",
    "digest": "af9c324e7f5d464cb99116bc83cdf128",
}

# -- text


def escape(text: str, limit: int = MAX_LINE) -> str:
    """`text` in one line of printable ASCII: everything else as `\\xNN` or `\\uNNNN`, at most `limit` characters."""
    cut = text[: limit + 1]
    safe = "".join(c if " " <= c <= "~" else c.encode("unicode_escape", "replace").decode("ascii") for c in cut)
    return safe if len(safe) <= limit else safe[: limit - 2] + ".."


def defang(text: str) -> str:
    """A bad name, address or URL so that no program takes it for a link: `hxxp://evil[.]example/`."""
    scheme, separator, rest = text.rpartition("://")
    return escape(scheme.replace("tt", "xx") + separator + rest.replace(".", "[.]"), 300)


# -- systemd


class Service:
    """Tells systemd how we are (sd_notify(3)). Every call returns whether systemd was told; without systemd it is
    nothing, and False."""

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        """`address` is a path, or `@name` in the abstract namespace; empty, or of a sort we do not speak: nobody."""
        self.failed = 0  # messages that could not be sent
        self._to = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        self._watchdog_us = watchdog_us if self._to else 0
        self._socket: socket.socket | None = None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], pid: int) -> Service:
        """As systemd started us. The variables are taken out, so that processes we start do not speak for us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", "") or str(pid)
        right = watchdog_us.isascii() and watchdog_us.isdigit() and meant == str(pid)
        return cls(address, int(watchdog_us) if right else 0)

    def pause_s(self, usual_s: float) -> float:
        """How long to wait before `watchdog` is called again: `usual_s`, or less when systemd restarts us after less
        than twice as long."""
        if not self._watchdog_us:
            return usual_s
        return min(usual_s, max(LEAST_PAUSE_S, self._watchdog_us / 2_000_000))

    def ready(self, status: str = "") -> bool:
        """We do our work; also at the end of a reload."""
        return self._send("READY=1", status)

    def status(self, status: str) -> bool:
        """One line that `systemctl status` shows."""
        return self._send("", status)

    def watchdog(self) -> bool:
        """We are alive. To be called by what would stand still if we were not."""
        return self._send("WATCHDOG=1")

    def reloading(self, status: str = "") -> bool:
        """A reload begins; `ready` ends it. The time is CLOCK_MONOTONIC's, which systemd 253 and later asks for."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}", status)

    def stopping(self, status: str = "") -> bool:
        """We are about to end."""
        return self._send("STOPPING=1", status)

    def extend(self, seconds: float) -> bool:
        """Starting or stopping takes up to so long from now (a large list, a large ledger)."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, state: str, status: str = "") -> bool:
        if not self._to:
            return False
        told = [state] if state else []
        if status:
            told.append(f"STATUS={escape(status, 500)}")  # escaped: a line's end would begin another variable
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.sendto("\n".join(told).encode(), self._to)
        except OSError:
            self.failed += 1
            return False
        return True

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


# -- the journal


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


# -- lines that somebody understands at three in the morning


def incident_line(incident: Incident, outcome: str, *, segment: str = "", hosts: int = 1, short: bool = False) -> Line:
    """A host of ours contacted what is listed. `outcome` is what was done about it, a sentence without its full stop
    such as `BLOCKED by D3, still watched`; `hosts` counts those of the campaign, this one with them."""
    match = incident.match
    who = _who(incident.client, segment)
    what = defang(match.registered_domain or match.indicator.value)
    fields = _fields("incident", incident.client, incident.campaign, match.registered_domain or match.indicator.value)
    fields["EGRESSD_INCIDENT"] = incident.id
    if short:
        text = f"ONE MORE HOST: {who} contacted {what} too; {hosts} hosts in campaign {incident.campaign}. {outcome}."
        return Line(WARNING, f"{text} ({incident.id})", fields)
    indicator = match.indicator
    if match.level == BEHAVIOUR:
        reason = escape(indicator.ref.replace(indicator.value, what), 300)
        text = (
            f"HOST {who} BEHAVES UNUSUALLY: {reason} (score {indicator.confidence}). "
            f"{outcome}. See: egressd incidents ({incident.id})"
        )
        return Line(WARNING, text, fields)
    why = f"listed in {indicator.source}:{indicator.line}"
    if match.level == "sibling":
        why = f"same registered domain as {defang(indicator.value)}, {why}"
    elif indicator.value not in (match.registered_domain, ""):
        why = f"{defang(indicator.value)} is {why}"
    if indicator.threat:
        why += f" as {indicator.threat}"
    when = render_time(incident.first_us)[:16].replace("T", " ")
    past = f", found in history: {incident.contacts} contacts before it was listed" if incident.retro else ""
    others = "first host" if hosts <= 1 else f"{hosts} hosts"
    text = (
        f"HOST {who} LOOKS INFECTED: contacted {what} ({why}) since {when} UTC{past}. {outcome}. "
        f"{others} of campaign {incident.campaign}. See: egressd incidents ({incident.id})"
    )
    return Line(ERROR, text, fields)


def leak_line(attempt: Attempt, *, segment: str = "") -> Line:
    """What is blocked has answered: the block does not hold."""
    what = attempt.match.registered_domain or attempt.match.indicator.value
    fields = _fields("leak", attempt.flow.client, attempt.campaign, what)
    fields["EGRESSD_DECISION"] = attempt.decision_id
    text = (
        f"BLOCK DOES NOT HOLD: {_who(attempt.flow.client, segment)} got an answer from {defang(what)} at "
        f"{defang(render_address(attempt.flow.server))} although {attempt.decision_id} blocks it. "
        f"Next: egressd doctor; to cut the host off: egressd isolate {render_address(attempt.flow.client)}"
    )
    return Line(ERROR, text, fields)


def _who(client: bytes, segment: str) -> str:
    return f"{render_address(client)} ({escape(segment, 60)})" if segment else render_address(client)


def _fields(sort: str, client: bytes, campaign: str, what: str) -> dict[str, str]:
    return {
        "MESSAGE_ID": MESSAGE_IDS[sort],
        "EGRESSD_CLIENT": render_address(client),
        "EGRESSD_CAMPAIGN": campaign,
        "EGRESSD_DOMAIN": what,  # as it is: for programs
    }


# -- not too many of them

FULL: Final = "full"
SHORT: Final = "short"
COUNTED: Final = ""
MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
# A digest after a quarter of an hour, then ever later: what is told daily is soon not read (INCIDENT S20).
DIGEST_AFTER_US: Final = (15 * MINUTE_US, HOUR_US, 6 * HOUR_US, 24 * HOUR_US)


class Digest(NamedTuple):
    """What was counted and not said. `campaign` is "" for several together, then `campaigns` says how many. `hosts` is
    how many hosts of the campaign are known, 0 where that is not told; `new_hosts` those that no line named."""

    campaign: str
    campaigns: int
    events: int
    new_hosts: int
    hosts: int
    over_us: int


@dataclass(slots=True)
class _Told:
    """One campaign: who is known, how many lines it had, and what waits to be told."""

    clients: set[bytes] = field(default_factory=set)
    lines: int = 0
    events: int = 0
    new_hosts: int = 0
    since_us: int = 0
    last_us: int = 0
    digests: int = 0


class Throttle:
    """Decides which events get a line: a campaign's first at once and in full, each new client's after it in short up
    to a bound, all others are counted into digests. Neither a campaign nor a client can use up the lines of all others.
    No count is lost: every event was answered FULL or SHORT, or is in exactly one digest. Times are microseconds; a
    clock that is set back brings digests early, and holds nothing up."""

    def __init__(
        self,
        *,
        lines_per_campaign: int = 16,
        lines_per_hour: int = 128,
        lines_per_client_hour: int = 8,
        max_campaigns: int = 4_096,
        max_clients: int = 4_096,
        digests_at_once: int = 8,
    ) -> None:
        self._lines_per_campaign = lines_per_campaign
        self._lines_per_hour = lines_per_hour
        self._lines_per_client_hour = lines_per_client_hour
        self._max_campaigns = max_campaigns
        self._max_clients = max_clients
        self._digests_at_once = digests_at_once
        self._told: dict[str, _Told] = {}  # the longest quiet first
        self._rest = _Told()  # what was waiting of campaigns that were forgotten to make room
        self._rest_campaigns = 0
        self._hour_us = 0
        self._hour_lines: dict[bytes, int] = {}

    def note(self, campaign: str, client: bytes, now_us: int, events: int = 1) -> str:
        """Count `events` of a client in a campaign; FULL or SHORT when they should be said now, else COUNTED."""
        told = self._told.pop(campaign, None)
        if told is None:
            if len(self._told) >= self._max_campaigns:
                self._forget(next(iter(self._told)))
            told = _Told()
        elif not told.events and now_us - told.last_us >= 2 * DIGEST_AFTER_US[-1]:
            told.digests = 0
        self._told[campaign] = told
        told.last_us = now_us
        new = client not in told.clients and len(told.clients) < self._max_clients
        if new:
            told.clients.add(client)
        if (new or not told.lines) and told.lines < self._lines_per_campaign and self._may_say(client, now_us):
            told.lines += 1
            return FULL if told.lines == 1 else SHORT
        told.new_hosts += new
        if not told.events:
            told.since_us = now_us
        told.events += events
        return COUNTED

    def due(self, now_us: int) -> list[Digest]:
        """The digests whose time has come: the largest by themselves, all others as one."""
        ready = []
        for campaign, told in list(self._told.items()):
            after_us = DIGEST_AFTER_US[min(told.digests, len(DIGEST_AFTER_US) - 1)]
            if told.events and not 0 <= now_us - told.since_us < after_us:
                ready.append(self._digest(campaign, told, now_us))
            elif not told.events and now_us - told.last_us >= 7 * DIGEST_AFTER_US[-1]:
                del self._told[campaign]  # quiet for a week: the next contact is news again
        return self._together(ready, now_us, not 0 <= now_us - self._rest.since_us < DIGEST_AFTER_US[0])

    def flush(self, now_us: int) -> list[Digest]:
        """Everything that was counted and not said, before we end."""
        ready = [self._digest(campaign, told, now_us) for campaign, told in self._told.items() if told.events]
        return self._together(ready, now_us, True)

    def _may_say(self, client: bytes, now_us: int) -> bool:
        if not 0 <= now_us - self._hour_us < HOUR_US or not self._hour_lines:
            self._hour_us = now_us
            self._hour_lines.clear()
        said = self._hour_lines.get(client, 0)
        if said >= self._lines_per_client_hour or sum(self._hour_lines.values()) >= self._lines_per_hour:
            return False
        self._hour_lines[client] = said + 1
        return True

    def _digest(self, campaign: str, told: _Told, now_us: int) -> Digest:
        digest = Digest(campaign, 1, told.events, told.new_hosts, len(told.clients), max(0, now_us - told.since_us))
        told.events = told.new_hosts = 0
        told.digests += 1
        return digest

    def _forget(self, campaign: str) -> None:
        told = self._told.pop(campaign)
        if told.events:
            if not self._rest.events:
                self._rest.since_us = told.since_us
            self._rest.events += told.events
            self._rest.new_hosts += told.new_hosts
            self._rest_campaigns += 1

    def _together(self, ready: list[Digest], now_us: int, with_rest: bool) -> list[Digest]:
        ready.sort(key=lambda one: -one.events)
        shown, others = ready[: self._digests_at_once], ready[self._digests_at_once :]
        if with_rest and self._rest.events:
            rest = self._rest
            over_us = max(0, now_us - rest.since_us)
            others.append(Digest("", self._rest_campaigns, rest.events, rest.new_hosts, 0, over_us))
            self._rest = _Told()
            self._rest_campaigns = 0
        if others:
            campaigns, events, new_hosts = (sum(column) for column in list(zip(*others, strict=True))[1:4])
            shown.append(Digest("", campaigns, events, new_hosts, 0, max(one.over_us for one in others)))
        return shown


def digest_line(digest: Digest, what: str = "") -> Line:
    """A digest for people; `what` is the campaign's domain."""
    minutes = max(1, digest.over_us // MINUTE_US)
    over = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    if digest.campaign:
        whose = f"campaign {digest.campaign}" + (f" ({defang(what)})" if what else "")
    else:
        whose = f"{digest.campaigns} further campaigns"
    text = f"STILL TRYING: {whose}: {digest.events} more contacts in the last {over}"
    if digest.new_hosts:
        text += f", {digest.new_hosts} more hosts that no line named"
    if digest.hosts:
        text += f"; {digest.hosts} hosts in all"
    fields = {"MESSAGE_ID": MESSAGE_IDS["digest"], "EGRESSD_CAMPAIGN": digest.campaign}
    return Line(WARNING, f"{text}. See: egressd watch", fields)
