"""A verdict of behaviour as a sighting: the form in which incidents, policy and people take it."""

from __future__ import annotations

from typing import Final

from egressd.detect.evidence import Verdict, in_words
from egressd.intel.networks import parse_address
from egressd.model import Indicator, Match, Observation, Part, Sighting
from egressd.names import Suffixes

LEVEL: Final = "behaviour"
MAX_WORDS: Final = 1_024


def sighting_of(verdict: Verdict, seen: Observation, name: str, suffixes: Suffixes) -> Sighting:
    """The sighting that `seen`, which is for `name` as far as is known, is the latest part of. It counts as the one
    contact at hand; its times are those of all that it rests on."""
    address = parse_address(verdict.destination)
    domain = "" if address else verdict.destination
    rule = suffixes.split(domain)[2] if domain else ""
    indicator = Indicator(
        LEVEL, verdict.destination, "registered", "", domain, rule, f"{LEVEL}:{verdict.parts[0].detector}", 0, LEVEL,
        verdict.score, 0, 0, in_words(verdict.parts)[:MAX_WORDS], "",
    )  # fmt: skip
    if not domain or not (name == domain or name.endswith("." + domain)):
        name = domain
    return Sighting(
        seen.ts_us, seen.number, seen.flow, name, Match(LEVEL, indicator, domain, rule), seen.kind, seen.note, False, 1,
        verdict.first_us, verdict.last_us, "", address,
        parts=tuple(Part(part.detector, part.score, part.reason) for part in verdict.parts),
    )  # fmt: skip
