"""What people are told beside incidents; lines that one host can make by the thousand are counted."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from egressd.notify.journal import Journal
from egressd.runtime.tellers import LINES_PER_HOUR, Watchers
from tests.detect.live_scene import LiveScene
from tests.detect.scene import A, X
from tests.runtime.scene import T0, Hands

HOUR_S = 3_600


class Paper(Journal):
    """Lines as they are said."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.lines: list[str] = []

    def say(self, line: object) -> bool:
        self.lines.append(line.text)  # type: ignore[attr-defined]
        return True


def test_refusals_beyond_a_bound_are_one_line_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """A name that answers with protected addresses, again and again: journald would drop what matters beside it."""
    scene = LiveScene()
    scene.resolve(0, A, "c2.bad.example", "10.0.0.1")
    refused = scene.decisions[-1]
    assert refused.action == "refuse"
    hands = Hands()
    watchers = Watchers(None, Paper(), hands.clock())
    with caplog.at_level(logging.WARNING):
        for _ in range(LINES_PER_HOUR + 50):
            watchers.decision(refused)
        watchers.tick()
        assert len(caplog.messages) == LINES_PER_HOUR
        hands.pass_s(HOUR_S)
        watchers.tick()
        watchers.tick()
        assert caplog.messages[LINES_PER_HOUR:] == [
            "50 more verdicts (egressd audit) were too many to be told one by one"
        ]
        watchers.decision(refused)
        assert len(caplog.messages) == LINES_PER_HOUR + 2


def test_leaks_beyond_a_bound_are_one_line_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    scene = LiveScene()
    scene.resolve(0, A, "c2.bad.example", X)
    scene.flow(60, A, X)
    scene.reply(60.1, A, X)
    (leak,) = scene.leaks
    hands = Hands()
    paper = Paper()
    watchers = Watchers(None, paper, hands.clock())
    with caplog.at_level(logging.WARNING):
        for number in range(LINES_PER_HOUR + 7):
            watchers.attempt(
                replace(leak, flow=leak.flow._replace(client=bytes((10, 0, number >> 8, number & 255)))), ""
            )
        assert len(paper.lines) == LINES_PER_HOUR
        watchers.finish()
    assert caplog.messages == ["7 more leaks (egressd watch) were too many to be told one by one"]


class Log:
    """Stands for the event log."""

    def __init__(self) -> None:
        self.stats = SimpleNamespace(trouble="", dropped={})


def test_an_event_log_that_cannot_be_written_is_in_the_journal(caplog: pytest.LogCaptureFixture) -> None:
    """Only `status` and a metric told: a system that reads the log alone saw nothing wrong."""
    caplog.set_level(logging.WARNING, "egressd")
    log: Any = Log()
    clock: Any = SimpleNamespace(now_us=lambda: T0)
    watchers = Watchers(log, Journal(2), clock)
    watchers.tick()
    assert not caplog.records
    log.stats = SimpleNamespace(trouble="/var/log/egressd/eve.json: No space left on device", dropped={})
    watchers.tick()
    watchers.tick()
    log.stats = SimpleNamespace(trouble="", dropped={"dns": 3, "flow": 4})
    watchers.tick()
    log.stats = SimpleNamespace(trouble="full again", dropped={})
    watchers.tick()  # too soon to be told again
    assert [record.getMessage() for record in caplog.records] == [
        "the event log cannot be written, events wait in memory: /var/log/egressd/eve.json: No space left on device",
        "the event log is written again; 7 events since the start did not fit into memory",
    ]


def test_a_leak_is_told_again_after_the_clock_was_set_back() -> None:
    """Of a clock that had been ahead by a year the next line was a year away."""
    scene = LiveScene()
    scene.resolve(0, A, "c2.bad.example", X)
    scene.flow(60, A, X)
    scene.reply(60.1, A, X)
    (leak,) = scene.leaks
    hands, paper = Hands(), Paper()
    clock = hands.clock()
    watchers = Watchers(None, paper, clock)
    for _ in range(3):
        watchers.attempt(leak, "")
    assert len(paper.lines) == 1
    hands.set_by_s(-365 * 86_400)
    clock.follow()
    for _ in range(3):
        watchers.attempt(leak, "")
    assert len(paper.lines) == 2
