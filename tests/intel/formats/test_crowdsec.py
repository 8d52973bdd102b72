"""crowdsec: durations, and answers without decisions."""

from __future__ import annotations

import json

import pytest

from egressd.errors import Problem
from egressd.model import Indicator
from tests.intel.formats.scene import NOW_S, found_in, render_found


@pytest.mark.parametrize(
    ("duration", "lifetime_s"),
    [("4h", 14_400), ("3h59m50.9s", 14_390), ("1d", 86_400), ("90s500ms", 90), ("1h0m0s", 3600), ("", None),
     ("999999h", None)],
)  # fmt: skip
def test_durations_count_from_now(duration: str, lifetime_s: int | None) -> None:
    text = json.dumps([{"duration": duration, "scope": "Ip", "value": "198.51.100.1"}])
    (found,) = found_in(text, "crowdsec")
    assert isinstance(found, Indicator)
    assert found.expires_s == (NOW_S + lifetime_s if lifetime_s is not None else 0)
    (unknown,) = found_in(text, "crowdsec", now_s=0)
    assert isinstance(unknown, Indicator)
    assert unknown.expires_s == 0, "without the time now no end is known"


@pytest.mark.parametrize("duration", ["4", "h", "4h ago", "1e9s", "--4h", "9" * 5000 + "h", "4 h"])
def test_what_is_no_duration(duration: str) -> None:
    text = json.dumps([{"duration": duration, "scope": "Ip", "value": "198.51.100.1"}])
    (found,) = found_in(text, "crowdsec")
    assert isinstance(found, Problem)
    assert "not a duration" in found.what


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"new": null, "deleted": null}', []),
        ("[]", []),
        ('{"message": "access forbidden"}', ["1:31 problem: no decisions in it"]),
        ("value,scope,value\n", ["1:1 problem: a header with the same name twice"]),
        ("null", ["1:1 problem: no header line with a column value"]),
        ('[{"until": "2020-01-01T00:00:00Z", "value": "198.51.100.1"}]', ["1 ignored: its time is over"]),
        ('[{"until": "2030-01-01T00:00:00Z", "value": "198.51.100.1"}]',
         ["1 address 198.51.100.1 exact expires=2030-01-01T00:00:00Z"]),
    ],
)  # fmt: skip
def test_corners(text: str, expected: list[str]) -> None:
    assert [render_found(one) for one in found_in(text, "crowdsec")] == expected
