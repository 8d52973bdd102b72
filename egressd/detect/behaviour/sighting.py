"""What detectors say as a sighting: the form in which incidents, policy and people take it."""

from __future__ import annotations

from typing import Final

from egressd.detect.evidence import Evidence, Verdict, in_words
from egressd.intel.networks import parse_address
from egressd.model import BEHAVIOUR, FlowKey, Indicator, Match, Observation, Part, Sighting
from egressd.names import Suffixes

MAX_WORDS: Final = 1_024


def sighting_of(verdict: Verdict, seen: Observation, name: str, suffixes: Suffixes) -> Sighting:
    """The sighting that `seen`, which is for `name` as far as is known, is the latest part of. It counts as the one
    contact at hand; its times are those of all that it rests on."""
    address = parse_address(verdict.destination)
    domain = "" if address else verdict.destination
    rule = suffixes.split(domain)[2] if domain else ""
    match = _match(verdict.parts[0].detector, verdict.destination, domain, rule, verdict.score, in_words(verdict.parts))
    if not domain or not (name == domain or name.endswith("." + domain)):
        name = domain
    return Sighting(
        seen.ts_us, seen.number, seen.flow, name, match, seen.kind, seen.note, False, 1,
        verdict.first_us, verdict.last_us, "", address,
        parts=tuple(Part(part.detector, part.score, part.reason) for part in verdict.parts),
    )  # fmt: skip


def sighting_of_evidence(evidence: Evidence) -> Sighting:
    """The sighting that stands for one detector's word, which no packet at hand is part of."""
    address = parse_address(evidence.destination)
    domain = "" if address else evidence.destination
    match = _match(evidence.detector, evidence.destination, domain, "", evidence.score, evidence.reason)
    return Sighting(
        evidence.last_us, 0, FlowKey(0, evidence.client, 0, address, 0), domain, match, BEHAVIOUR, evidence.reason,
        False, 1, evidence.first_us, evidence.last_us, address=address,
    )  # fmt: skip


def _match(detector: str, destination: str, domain: str, rule: str, score: int, words: str) -> Match:
    """No list line is behind it: the indicator stands for the detector, its `ref` tells why."""
    indicator = Indicator(
        BEHAVIOUR, destination, "registered", "", domain, rule, f"{BEHAVIOUR}:{detector}", 0, BEHAVIOUR, score, 0, 0,
        words[:MAX_WORDS], "",
    )  # fmt: skip
    return Match(BEHAVIOUR, indicator, domain, rule)
