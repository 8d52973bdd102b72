"""The way up: urgent things at once, others in time, few told, all counted, and never a wait for the core."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from egressd.model import DNS_QUERY, Event, Incident
from egressd.runtime import reporting
from egressd.runtime.messages import MAX_UP_BYTES, UP_BATCH, Frames, parse_batch, unpack_event
from egressd.runtime.reporting import FLUSH_US, STATS_US, TOLD_PER_BATCH, Reporter
from egressd.runtime.tally import unpack_contacts, unpack_tried
from tests.runtime.scene import T0, A, attempt, match, sighting, verdict


class Line:
    """A reporter and the other end of its socket."""

    def __init__(self, small: bool = False) -> None:
        self.ours, self.theirs = socket.socketpair()
        if small:
            for end in (self.ours, self.theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.reporter = Reporter(self.ours)
        self._frames = Frames(MAX_UP_BYTES)

    def read(self) -> list[dict[str, Any]]:
        """Every batch that has come."""
        batches = []
        while True:
            try:
                data = self.theirs.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return batches
            if not data:
                return batches
            for kind, body in self._frames.feed(data):
                assert kind == UP_BATCH
                batches.append(parse_batch(body))

    def read_all(self, now_us: int) -> list[dict[str, Any]]:
        """Every batch there is and will be: the core reads as long as something comes."""
        batches: list[dict[str, Any]] = []
        idle = 0
        while idle < 2:
            got = self.read()
            batches += got
            now_us += FLUSH_US
            self.reporter.send(now_us, None, {})
            idle = 0 if got or self.reporter._waiting or len(self.reporter.tally) else idle + 1
        return batches + self.read()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


@pytest.fixture
def narrow() -> Iterator[Line]:
    made = Line(small=True)
    yield made
    made.close()


def quiet(line: Line) -> Reporter:
    """A reporter that has just sent, with its numbers."""
    line.reporter.send(T0, {"pid": 1}, {})
    line.read()
    return line.reporter


INCIDENT = Incident("I1", "C1", A, match(), T0, T0, T0)


@pytest.mark.parametrize(
    ("event", "urgent"),
    [
        (verdict(), True), (INCIDENT, True), (attempt(first=True), True), (attempt(leak=True), True),
        (sighting(retro=True), True), (sighting(), False), (attempt(), False), (attempt(via=DNS_QUERY), False),
    ],
)  # fmt: skip
def test_what_is_urgent_goes_at_once_and_the_rest_in_time(line: Line, event: Event, urgent: bool) -> None:
    reporter = quiet(line)
    assert not reporter.due(T0 + 1)
    reporter.event(event)
    assert reporter.due(T0 + 1) == urgent
    assert not urgent or reporter.due(T0 + 1)
    assert reporter.due(T0 + FLUSH_US)
    reporter.send(T0 + 1, None, {})
    assert not reporter.due(T0 + 2)


def test_a_canary_is_urgent(line: Line) -> None:
    reporter = quiet(line)
    reporter.canary("aa.canary.egressd.invalid", T0, -1)
    assert reporter.due(T0 + 1)
    reporter.send(T0 + 1, None, {})
    (batch,) = line.read()
    assert batch["canaries"] == [["aa.canary.egressd.invalid", T0, -1]]
    reporter.canary("bb.canary.egressd.invalid", T0, T0)
    reporter.send(T0 + 2, None, {})
    assert line.read()[0]["canaries"] == [["bb.canary.egressd.invalid", T0, T0]]  # the first is not told again


def test_how_long_nothing_needs_to_be_sent(line: Line) -> None:
    reporter = quiet(line)
    assert reporter.wait_ms(T0) == FLUSH_US // 1_000 + 1
    assert reporter.wait_ms(T0 + FLUSH_US - 1) == 1
    assert reporter.wait_ms(T0 + 10 * FLUSH_US) == 1
    assert not reporter.wants_stats(T0 + STATS_US - 1)
    assert reporter.wants_stats(T0 + STATS_US)


def test_a_batch_has_what_there_is_and_nothing_else(line: Line) -> None:
    reporter = quiet(line)
    reporter.send(T0 + 1, None, {})
    assert line.read() == []
    reporter.event(sighting())
    reporter.send(T0 + 2, None, {"tenants": [["a.example", "c6336407", T0]]})
    reporter.send(T0 + 3, {"pid": 7}, {})
    first, second = line.read()
    assert list(first) == ["n", "t", "events", "contacts", "tried", "tenants"]
    assert (first["n"], first["t"]) == (2, T0 + 2)
    assert second == {"n": 3, "t": T0 + 3, "stats": {"pid": 7}}


def test_few_are_told_and_all_are_counted(line: Line) -> None:
    reporter = quiet(line)
    for _ in range(3 * TOLD_PER_BATCH):
        reporter.event(sighting())
    reporter.event(verdict())
    reporter.event(attempt(first=True))
    reporter.send(T0 + 1, None, {})
    (batch,) = line.read()
    told = [type(unpack_event(one)).__name__ for one in batch["events"]]
    assert told == ["Sighting"] * TOLD_PER_BATCH + ["Decision", "Attempt"]  # what is urgent is told over the budget
    assert reporter.untold == 2 * TOLD_PER_BATCH
    ((_, row),) = unpack_contacts(batch["contacts"])
    assert (row.contacts, row.attempts) == (3 * TOLD_PER_BATCH, 1)
    reporter.event(sighting())
    reporter.send(T0 + 2, None, {})
    assert "events" not in line.read()[0]  # the budget is for a time, however many batches there are in it
    reporter.send(T0 + 1 + FLUSH_US, None, {"history": []})
    reporter.event(sighting())
    reporter.send(T0 + 2 + FLUSH_US, None, {})
    assert [len(one.get("events", [])) for one in line.read()][-1] == 1


def test_a_flood_of_urgent_ones_has_a_bound_too_but_decisions_have_none(line: Line) -> None:
    reporter = quiet(line)
    for number in range(2_000):
        reporter.event(attempt(bytes((10, 1, number >> 8, number & 255)), first=True))
    for number in range(200):
        reporter.event(verdict(f"D{number}"))
    reporter.send(T0 + 1, None, {})
    batches = line.read_all(T0)
    sorts = [one[0] for batch in batches for one in batch.get("events", [])]
    assert (sorts.count("a"), sorts.count("d")) == (16 * TOLD_PER_BATCH, 200)
    assert reporter.untold == 2_000 - 16 * TOLD_PER_BATCH
    tried = [one for batch in batches for _, _, one in unpack_tried(batch["tried"])]
    assert sum(one.count for one in tried) == 2_000


def test_what_does_not_fit_into_a_batch_comes_at_once_after_it(line: Line) -> None:
    reporter = quiet(line)
    for number in range(3_000):
        reporter.event(attempt(number.to_bytes(4, "big")))
    reporter.send(T0 + 1, None, {})
    assert len(reporter.tally) > 0 and reporter.due(T0 + 2)
    tried = [one for batch in line.read_all(T0) for _, _, one in unpack_tried(batch["tried"])]
    assert len(tried) == 3_000


def test_a_core_that_has_gone_is_no_fault_of_ours(line: Line) -> None:
    reporter = quiet(line)
    line.theirs.close()
    reporter.event(verdict())
    reporter.send(T0 + 1, None, {})


def test_answers_are_counted(line: Line) -> None:
    reporter = quiet(line)
    for _ in range(3):
        reporter.answered(INCIDENT)
    reporter.send(T0 + 1, None, {})
    ((client, row),) = unpack_contacts(line.read()[0]["contacts"])
    assert (client, row.answered, row.contacts) == (A, 3, 0)


def test_a_core_that_does_not_read_is_not_waited_for_and_loses_no_count(
    narrow: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is blocking, as in the packet process: if anything waited, this test would hang."""
    monkeypatch.setattr(reporting, "MAX_WAITING_BYTES", 50_000)
    reporter = narrow.reporter
    assert narrow.ours.getblocking()
    now_us = T0
    for turn in range(400):
        for number in range(5):
            reporter.event(sighting(name=f"n{number}.bad.example"))
        reporter.event(attempt())
        reporter.event(attempt(leak=turn % 100 == 0))
        now_us += FLUSH_US
        reporter.send(now_us, {"pid": turn}, {"history": [["x" * 100]]})
    assert len(reporter._waiting) < 60_000  # bounded: the rest stays as sums
    assert len(reporter._events) < 17 * TOLD_PER_BATCH
    assert len(reporter.tally) > 0
    batches = narrow.read_all(now_us)
    contacts = [row for batch in batches for _, row in unpack_contacts(batch.get("contacts", []))]
    tried = [one for batch in batches for _, _, one in unpack_tried(batch.get("tried", []))]
    assert sum(row.contacts for row in contacts) == 400 * 5
    assert sum(row.attempts for row in contacts) == sum(one.count for one in tried) == 800 - 4
    assert sum(row.leaks for row in contacts) == sum(one.leaks for one in tried) == 4
    numbers = [batch["n"] for batch in batches]
    assert numbers == list(range(1, len(numbers) + 1))


def test_decisions_wait_for_a_core_that_reads_again(narrow: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "MAX_WAITING_BYTES", 10_000)
    reporter = narrow.reporter
    for number in range(300):
        reporter.event(verdict(f"D{number}"))
        reporter.send(T0 + number, None, {})
    found = [one[2] for batch in narrow.read_all(T0) for one in batch.get("events", [])]
    assert found == [f"D{number}" for number in range(300)]


def test_finish_sends_what_waits(line: Line) -> None:
    reporter = quiet(line)
    reporter._waiting += b"\x00\x00\x00\x02\x01{}"
    reporter.finish()
    assert line.read() == [{}]


def test_finish_without_a_core_is_silent(line: Line) -> None:
    reporter = quiet(line)
    line.theirs.close()
    reporter._waiting += b"x"
    reporter.finish()
