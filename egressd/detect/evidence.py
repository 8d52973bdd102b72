"""What speaks for a destination being bad though no list names it, and how it adds up to one score with its parts.

A detector (egressd/detect/behaviour/) watches one trait and says so in an `Evidence`. Evidence alone never blocks for
everybody, since what innocent programs do looks like it: it alerts, asks or isolates, as the policy says.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressd.wire.table import RecentTable

MAX_ENTRIES: Final = 16_384  # pairs of client and destination with evidence; few ever have any
STEP: Final = 10  # what was told is told again when its score has risen by so much
HIGHEST: Final = 99  # nothing that was only inferred is certain


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


class Verdict(NamedTuple):
    """What the parts of one client and destination come to. `parts` stand strongest first."""

    client: bytes
    destination: str
    score: int
    parts: tuple[Evidence, ...]
    first_us: int
    last_us: int


class _Entry:
    """What is known of one client and destination: the latest word of each detector, and the score told last."""

    __slots__ = ("parts", "told")

    def __init__(self) -> None:
        self.parts: dict[str, Evidence] = {}
        self.told = 0


def combined(scores: list[int]) -> int:
    """The score of several parts together: each takes its share of the doubt that the others leave (1 - (1-a)(1-b)...,
    as for independent witnesses), so that no number of weak parts makes a certainty. Never over HIGHEST."""
    doubt = 1.0
    for score in scores:
        doubt *= 1.0 - min(max(score, 0), 100) / 100.0
    return min(HIGHEST, round(100.0 * (1.0 - doubt)))


class EvidenceBoard:
    """Evidence by client and destination, bounded. The same evidence in the same order gives the same verdicts."""

    def __init__(self, least: int, ask: int, limit: int = MAX_ENTRIES) -> None:
        """A verdict is given from a combined score of `least` on, and again when it reaches `ask`."""
        self.least = least
        self.ask = ask
        self._table: RecentTable[tuple[bytes, str], _Entry] = RecentTable(limit)

    def __len__(self) -> int:
        return len(self._table)

    def parts(self) -> list[Evidence]:
        """Every detector's latest word on everybody, the oldest first."""
        return [part for entry in self._table.values() for part in entry.parts.values()]

    @property
    def evicted(self) -> int:
        """Entries forgotten because the table was full."""
        return self._table.evicted

    def note(self, evidence: Evidence) -> _Entry:
        """Take a word that is no reason to speak by itself: it counts with the next one."""
        key = (evidence.client, evidence.destination)
        entry = self._table.get(key)
        if entry is None:
            entry = _Entry()
            self._table.add(key, entry)
        entry.parts[evidence.detector] = evidence
        return entry

    def add(self, evidence: Evidence) -> Verdict | None:
        """Take a detector's latest word, which replaces its last one. The verdict when the score is high enough and has
        not been told yet, or has risen by a step since; else None."""
        entry = self.note(evidence)
        score = combined([part.score for part in entry.parts.values()])
        if score < self.least:
            return None
        if entry.told and score < entry.told + STEP and not entry.told < self.ask <= score:
            return None
        entry.told = score
        parts = tuple(sorted(entry.parts.values(), key=_strongest))
        return Verdict(
            evidence.client,
            evidence.destination,
            score,
            parts,
            min(part.first_us for part in parts),
            max(part.last_us for part in parts),
        )


def _strongest(part: Evidence) -> tuple[int, str]:
    return -part.score, part.detector


def in_words(parts: tuple[Evidence, ...]) -> str:
    """All parts for people, strongest first, each with its score."""
    return "; ".join(f"{part.reason} ({part.score})" for part in parts)
