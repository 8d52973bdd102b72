"""What people are told beside incidents."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from egressd.notify.journal import Journal
from egressd.runtime.tellers import Watchers
from tests.runtime.scene import T0


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
