"""What people read at three in the morning: never a raw byte."""

from __future__ import annotations

import os

import pytest

from egressd.model import Attempt, FlowKey, Incident, Indicator, Match, Target
from egressd.notify.journal import ERROR, Journal
from egressd.notify.sentences import digest_line, incident_line, leak_line
from egressd.notify.throttle import Digest
from egressd.units import HOUR_US, MINUTE_US

A = bytes((10, 2, 7, 52))
HOSTILE = 'evil.example"\n<0>egressd: all is well\x1b[2J\0\u202e\r'


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
    """Of what is not blocked, or was taken back, too: `STILL TRYING` and `egressd watch` were of blocks only."""
    line = digest_line(Digest("C1", 1, 120, 2, 9, 15 * MINUTE_US), "evil.example")
    assert line.text == (
        "IT GOES ON: campaign C1 (evil[.]example): 120 more contacts in the last 15 min, 2 more hosts that no line "
        "named; 9 hosts in all. See: egressd hosts"
    )
    assert (
        "40 further campaigns: 80 more contacts in the last 6 h."
        in digest_line(Digest("", 40, 80, 0, 0, 6 * HOUR_US)).text
    )
