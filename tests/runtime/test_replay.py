"""Replay: what captures tell, on its way to what judges it."""

from __future__ import annotations

from egressd.detect.behaviour.volume import VolumeSettings
from egressd.detect.policy_settings import PolicySettings
from egressd.model import FlowKey
from egressd.runtime.replay import ReplayRun
from egressd.units import HOUR_US
from tests.detect.live_scene import intel
from tests.detect.scene import A, X, at, packed

MIB = 1 << 20


def test_what_is_told_behind_a_pause_of_the_capture_sets_no_clock_back() -> None:
    """A connection of before the pause is told ten minutes after it, and the hour lost its bytes."""
    run = ReplayRun(
        [], intel(""), PolicySettings(), on_event=lambda *_: None, conversations=16, history=16,
        volume=VolumeSettings(),
    )  # fmt: skip
    flow = FlowKey(6, packed(A), 40_000, packed(X), 443)
    for hour, sent in ((0, 30 * MIB), (4, 80 * MIB), (0, 1), (4, 20 * MIB)):
        run._carried(flow, at(0) + hour * HOUR_US, sent, 0)
    pair = run.volume._pairs.peek((packed(A), X))
    assert pair is not None and pair.now == 100 * MIB + 1
