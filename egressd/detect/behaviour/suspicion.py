"""Evidence as a sighting, so that it takes the way of every other: campaign, incident, event."""

from __future__ import annotations

from egressd.detect.evidence import Evidence
from egressd.intel.networks import parse_address
from egressd.model import BEHAVIOUR, FlowKey, Indicator, Match, Sighting


def sighting_of(evidence: Evidence) -> Sighting:
    """The sighting that stands for `evidence`: no list line is behind it, its note and its indicator's `ref` are the
    reason."""
    destination = evidence.destination
    address = parse_address(destination)
    domain = "" if address else destination
    indicator = Indicator(
        kind=BEHAVIOUR,
        value=destination,
        scope="registered",
        narrowed="",
        registered_domain=domain,
        suffix_rule="",
        source=f"{BEHAVIOUR}:{evidence.detector}",
        line=0,
        threat=BEHAVIOUR,
        confidence=evidence.score,
        added_s=0,
        expires_s=0,
        ref=evidence.reason,
        owner="",
    )
    flow = FlowKey(0, evidence.client, 0, address, 0)
    return Sighting(
        evidence.last_us,
        0,
        flow,
        domain,
        Match(BEHAVIOUR, indicator, domain, ""),
        BEHAVIOUR,
        evidence.reason,
        False,
        1,
        evidence.first_us,
        evidence.last_us,
        address=address,
    )
