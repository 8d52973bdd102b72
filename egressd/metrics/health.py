"""What the numbers mean: is everything seen, and in force?"""

from __future__ import annotations

from typing import NamedTuple

from egressd.metrics.snapshot import Snapshot
from egressd.plural import count


class Health(NamedTuple):
    """`status` is ok, degraded or down; `reasons` say why, one sentence each."""

    status: str
    reasons: tuple[str, ...]


def health_of(snapshot: Snapshot, *, silent_after_s: float = 300.0, gap_after_s: float = 60.0) -> Health:
    """What the numbers mean. down: nothing is seen, whatever the process says of itself; a sensor that is up and shows
    neither packet nor canary for `silent_after_s` sees nothing. degraded: something is not seen, or not in force, as it
    should be."""
    dead = [f"interface {one} is not captured from" for one, up in snapshot.sensor_up.items() if not up]
    for interface, silent_s in snapshot.sensor_shown_s.items():
        if snapshot.sensor_up.get(interface) and silent_s > silent_after_s:
            dead.append(
                f"interface {interface} has shown no packet for {silent_s:.0f} s: is the mirror or cable right?"
            )
    if not snapshot.sensor_up:
        dead.append("no interface is captured from")
    elif not snapshot.packet_processes:
        dead.append("no packet process runs")
    blind = not snapshot.packet_processes or len(dead) >= len(snapshot.sensor_up)
    worse = list(dead)
    if snapshot.degraded:
        worse.append(f"{snapshot.loss_ratio:.1%} of packets were lost in the last minute")
    for adapter, gap_s in snapshot.enforcement_gap_s.items():
        if gap_s > gap_after_s:
            worse.append(f"adapter {adapter} has not held what it should for {gap_s:.0f} s")
    if snapshot.canary_enabled and not snapshot.canary_up:
        worse.append("the self-test fails: a listed name might go unseen or unblocked")
    if snapshot.list_problems:
        mistakes = count(snapshot.list_problems, "mistake")
        worse.append(f"{mistakes} in lists or configuration: the last good ones are in force")
    return Health("down" if blind else "degraded" if worse else "ok", tuple(worse))
