"""Arguments as people type them; their bounds are the daemon's."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from egressd.cli import feeds, list_effect
from egressd.cli.typed import MAX_FOR_S, MAX_REASON, decision_id, duration, incident_id
from egressd.store.feeds import VERDICTS
from egressd.web import requests


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("10m", 600),
        ("2h", 7_200),
        ("1d", 86_400),
        ("1d12h", 129_600),
        ("90s", 90),
        ("2w", 1_209_600),
        ("366d", 31_622_400),
    ],
)
def test_durations(typed: str, seconds: int) -> None:
    assert duration(typed) == seconds


@pytest.mark.parametrize(
    "typed", ["", "10", "h", "-1h", "1.5h", "1h ", "367d", "0m", "1x", "1h1", "9999999999d", "\u0661h"]
)
def test_what_is_no_duration(typed: str) -> None:
    with pytest.raises(ArgumentTypeError):
        duration(typed)


def test_ids() -> None:
    assert [decision_id(typed) for typed in ("D12", "d12", "12")] == ["D12"] * 3
    assert incident_id("i3") == "I3"
    for typed in ("I12", "D", "", "D1x", "D-1"):
        with pytest.raises(ArgumentTypeError):
            decision_id(typed)


def test_the_bounds_are_the_daemons() -> None:
    assert (list_effect.MAX_CHANGES, list_effect.MAX_TEXT) == (requests.MAX_CHANGES, requests.MAX_TEXT)
    assert (MAX_REASON, MAX_FOR_S) == (requests.MAX_REASON, requests.MAX_FOR_S)
    assert feeds.VERDICTS == requests.VERDICTS == VERDICTS
