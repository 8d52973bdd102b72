"""What of other sensors' words goes to a packet process, and what to history: in the process that reads the logs.

Thousands of lines a second must not keep a packet waiting, so what matches nothing never gets there. What matches
is judged there again, with all that is known: here only lists and allowances are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from egressd.detect.contacts import SAME_QUESTION_US
from egressd.detect.correlator import Correlator
from egressd.detect.gathering import GatheringHistory
from egressd.detect.hearing import Hearing, hits_of, is_direct, names_of
from egressd.detect.resolutions import Resolutions
from egressd.intel.allowances import Allowances
from egressd.intel.layered import AnyIndex
from egressd.model import DNS_ANSWER, DNS_QUERY, FLOW, Observation
from egressd.names import Suffixes

_NO_RESOLUTIONS: Final = 16  # who resolved what is not known here; the least that a table holds


class Sieving:
    """Matches what logs tell with lists. `history` has a table for each sensor, with what matched nothing."""

    def __init__(self, index: AnyIndex, allowances: Allowances, suffixes: Suffixes) -> None:
        self.hearing = Hearing()
        self.history: dict[str, GatheringHistory] = {}
        self.resolutions = Resolutions(suffixes, _NO_RESOLUTIONS)
        self._correlator = Correlator(index, allowances, self.resolutions, suffixes)

    def swap(self, index: AnyIndex, allowances: Allowances, suffixes: Suffixes) -> None:
        """Lists or allowances have changed."""
        self.resolutions = Resolutions(suffixes, _NO_RESOLUTIONS)
        self._correlator = Correlator(index, allowances, self.resolutions, suffixes)

    def sift(self, seen: Observation) -> Iterator[Observation]:
        """What a packet process is to be told of `seen`: nothing where nothing matches, and that is kept as history."""
        if not self.hearing.is_asked(seen):
            return
        hits = hits_of(self._correlator, seen)
        question = seen.kind in (DNS_QUERY, DNS_ANSWER)
        if not question:
            if hits:
                yield seen
            else:
                self._remember(seen)
            return
        if seen.kind == DNS_ANSWER:
            for hit in hits:
                yield Observation(
                    DNS_ANSWER, seen.ts_us, 0, seen.flow, hit.name, hit.name, None, 0, seen.note, seen.sensor
                )  # fmt: skip
            return
        contacts = self.hearing.contacts_of(seen.sensor)
        client = seen.flow.client
        for name in dict.fromkeys(names_of(seen)):
            asked = contacts.was_asked(client, name, seen.ts_us, SAME_QUESTION_US)
            new = not asked and contacts.is_new_question(client, name, seen.ts_us, False)
            if all(hit.name != name for hit in hits):
                self._history(seen).record(seen.flow, name, seen.ts_us, 0, DNS_QUERY, new)
        if hits:
            yield seen

    def _remember(self, seen: Observation) -> None:
        flow = seen.flow
        contacts = self.hearing.contacts_of(seen.sensor)
        server = flow.server if is_direct(seen) else b""
        if seen.kind == FLOW and not contacts.knows(flow, seen.ts_us):
            contacts.begins(flow, seen.ts_us)
        what = seen.name or server
        if not what:
            return
        reached = self.resolutions.domain_of(seen.name) if seen.name else ""
        new = contacts.is_new(seen.kind, flow, reached, seen.ts_us)
        self._history(seen).record(flow, what, seen.ts_us, 0, seen.kind, new, server)

    def _history(self, seen: Observation) -> GatheringHistory:
        history = self.history.get(seen.sensor)
        if history is None:
            history = self.history[seen.sensor] = GatheringHistory()
        return history
