"""What the numbers mean: every way of not seeing is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from egressd.metrics.health import Health, health_of
from egressd.metrics.snapshot import Snapshot


def seeing(**changes: Any) -> Snapshot:
    """A daemon that is well."""
    well = Snapshot(sensor_up={"lan0": 1, "lan1": 1}, sensor_shown_s={"lan0": 0.1, "lan1": 2.0}, packet_processes=2)
    return replace(well, **changes)


@pytest.mark.parametrize(
    ("snapshot", "status", "reason"),
    [
        (seeing(), "ok", ""),
        (Snapshot(), "down", "no interface is captured from"),
        (seeing(packet_processes=0), "down", "no packet process runs"),
        (seeing(sensor_up={"lan0": 0, "lan1": 0}), "down", "interface lan0 is not captured from"),
        (seeing(sensor_shown_s={"lan0": 301, "lan1": 9999}), "down", "lan1 has shown no packet for 9999 s"),
        (seeing(sensor_shown_s={"lan0": 301, "lan1": 0}), "degraded", "lan0 has shown no packet for 301 s"),
        (seeing(sensor_up={"lan0": 1, "lan1": 0}), "degraded", "lan1 is not captured"),
        (seeing(sensor_up={"lan0": 1, "lan1": 0}, sensor_shown_s={"lan0": 301, "lan1": 400}), "down", "lan1 is"),
        (seeing(degraded=1, loss_ratio=0.042), "degraded", "4.2% of packets"),
        (seeing(enforcement_gap_s={"nftables": 61.0, "rpz": 0.0}), "degraded", "adapter nftables"),
        (seeing(canary_enabled=1), "degraded", "self-test fails"),
        (seeing(canary_enabled=1, canary_up=1), "ok", ""),
        (seeing(list_problems=3), "degraded", "3 mistakes"),
    ],
)  # fmt: skip
def test_health(snapshot: Snapshot, status: str, reason: str) -> None:
    found = health_of(snapshot)
    assert found.status == status
    assert reason in "; ".join(found.reasons)
    assert bool(found.reasons) == (status != "ok")


def test_health_bounds_can_be_set() -> None:
    quiet = seeing(sensor_shown_s={"lan0": 20, "lan1": 20}, enforcement_gap_s={"nftables": 5.0})
    assert health_of(quiet) == Health("ok", ())
    assert health_of(quiet, silent_after_s=10).status == "down"
    assert health_of(quiet, gap_after_s=1).status == "degraded"
