"""What speaks for a destination being bad though no list names it: the parts that a score is made of.

A detector (egressd/detect/behaviour/) watches one trait and says so in an `Evidence`. Evidence alone never blocks for
everybody (DESIGN section 6): it alerts, asks or isolates, as the policy says.
"""

from __future__ import annotations

from typing import NamedTuple


class Evidence(NamedTuple):
    """One detector's word on one client and one destination. `destination` is a registered domain, or an address as
    text where there is no name. `score` is 0 to 100: how sure the detector is by itself. `reason` is for people: one
    clause with the figures that it rests on, no full stop. `first_us` and `last_us` are the times of what it rests
    on."""

    detector: str
    client: bytes
    destination: str
    score: int
    reason: str
    first_us: int
    last_us: int
