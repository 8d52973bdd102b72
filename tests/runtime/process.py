"""What a packet process sends, without one: events and sums in batches, as JSON brings them."""

from __future__ import annotations

import json
from typing import Any

from egressd.model import Attempt, Decision, Incident, Sighting
from egressd.runtime.messages import pack_event, parse_batch
from egressd.runtime.tally import Tally


class Process:
    """Collects like `reporting.Reporter`, without budget and socket."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._events: list[list[Any]] = []

    def say(self, *events: Sighting | Decision | Attempt, untold: bool = False) -> Process:
        """Events; `untold` ones are only counted."""
        for event in events:
            if isinstance(event, Sighting):
                self._tally.sighting(event)
            elif isinstance(event, Attempt):
                self._tally.attempt(event)
            if not untold:
                self._events.append(pack_event(event))
        return self

    def answered(self, incident: Incident) -> Process:
        self._tally.answered(incident)
        return self

    def batch(self, **more: Any) -> dict[str, Any]:
        """All since the batch before."""
        batch = {"n": 1, "t": 0, "events": self._events, **self._tally.take(), **more}
        self._events = []
        return parse_batch(json.dumps(batch).encode())
