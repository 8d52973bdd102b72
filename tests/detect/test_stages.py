"""How far a campaign got: what was seen, in what, and what could not be seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from egressd.detect.stages import Watched, stage_text, stages_of
from egressd.model import Campaign, Incident, Match
from tests.detect.scene import A, B, listed, packed

NINE = 1_431_940_200_000_000  # 2015-05-18 09:10 UTC
(LINE,) = listed("bad.example")
ONE = Incident("I1", "C1", packed(A), Match("host", LINE, "bad.example", "example"), NINE, NINE, NINE, contacts=1)
MORE = replace(ONE, id="I2", client=packed(B), contacts=7, answered=3)
WATCHED = Watched(12_345, NINE, NINE + 30_600_000_000, 0, {}, True)


def test_words() -> None:
    campaign = Campaign("C1", [], [], NINE, NINE)
    assert stages_of(campaign) == ["contact"]
    campaign.incidents += ["I1"]
    assert stages_of(campaign) == ["contact"]
    campaign.repeated.add("I1")
    assert stages_of(campaign) == ["repeated contact"]
    campaign.incidents += ["I2"]
    campaign.sent.add("I2")
    assert stages_of(campaign) == ["repeated contact", "volume out", "spread"]


@pytest.mark.parametrize(
    ("incidents", "watched", "text"),
    [
        (
            [ONE, MORE],
            WATCHED,
            "stage: repeated contact, 2 hosts; data out: not observed in 12,345 packets, 2015-05-18 09:10 to 17:40 UTC",
        ),
        (
            [ONE],
            WATCHED._replace(by_volume=False, lost=12, blind={"ech": 2, "doh": 1_000, "dot": 0}),
            "stage: contact, 1 host, no answer seen; data out: not measured; seen in 12,345 packets,"
            " 2015-05-18 09:10 to 17:40 UTC; but 12 packets were lost by the capture;"
            " names not readable: doh 1,000, ech 2",
        ),
        (
            [replace(MORE, volume="sent 1.2 GB in 3 h")],
            WATCHED._replace(last_us=NINE + 86_400_000_000),
            "stage: repeated contact, 1 host; data out: sent 1.2 GB in 3 h in 12,345 packets,"
            " 2015-05-18 09:10 to 2015-05-19 09:10 UTC",
        ),
    ],
)
def test_sentence(incidents: list[Incident], watched: Watched, text: str) -> None:
    assert stage_text(incidents, watched) == text


def test_any_time_of_a_capture() -> None:
    assert "9999" in stage_text([ONE], WATCHED._replace(last_us=1 << 62))
