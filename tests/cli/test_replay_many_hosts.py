"""A replay tells incidents of a campaign with many hosts as fast as those of one with few."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from time import process_time

from egressd.cli.replay import JsonWriter
from egressd.config.schema import Config
from tests.detect.scene import A, Scene, X, packed


def test_incidents_of_a_large_campaign_are_told_as_fast() -> None:
    """Each is told with the stages of its campaign, for which all its incidents were looked through."""
    scene = Scene("bad.example")
    scene.tls(1, A, X, "bad.example")
    campaigns = scene.engine.campaigns
    one = campaigns.incidents["I1"]
    writer = JsonWriter(Config(), [], StringIO(), False)
    writer.engine = scene.engine

    def told_s() -> float:
        before_s = process_time()
        for _ in range(300):
            writer.event(one, 0)
        return process_time() - before_s

    few_s = told_s()
    campaigns.restore(
        [], [replace(one, id=f"I{n}", client=packed(A)[:2] + n.to_bytes(2, "big")) for n in range(2, 20_000)]
    )
    assert min(told_s(), told_s(), told_s()) < 6 * few_s  # a look for garbage is as much
    assert len(campaigns.campaigns["C1"].incidents) == 19_999
