"""What a metric is: its name, its kind, its text, and the values that its labels may have.

Labels are words of ours (kinds, states, reasons) or names that an operator configured (interfaces, lists, adapters),
never a name, address or client seen in traffic. That does not rest on goodwill: each label has a closed set of values,
or a form that no name or address has, and a bound; what is beyond goes to the value `other`. So the number of series is
bounded whatever traffic does: under 500, for a Prometheus keeps each of them in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any, Final, NamedTuple

from egressd.metrics.histogram import BOUNDS_S, Histogram

PREFIX: Final = "egressd_"
COUNTER: Final = "counter"
GAUGE: Final = "gauge"
ONE_OF: Final = "one of"  # a gauge per value, 1 for the one that holds
FACTS: Final = "facts"  # the constant 1 with facts as labels
HISTOGRAM: Final = "histogram"


Values = tuple[str, ...] | None
WORDS: Final[Values] = ()
CONFIGURED: Final[Values] = None


class Definition(NamedTuple):
    """One metric. `values` has, for each label, the closed set of its values, or () for a word of ours, or None for a
    configured name; `limit` bounds a label's values where the set is open, `merge` makes one of those beyond."""

    name: str
    kind: str
    doc: str
    labels: tuple[str, ...]
    values: tuple[tuple[str, ...] | None, ...]
    limit: int
    merge: Callable[[Iterable[float]], float]

    def most_series(self) -> int:
        """The most series there can be of it."""
        if self.kind == HISTOGRAM:
            return len(BOUNDS_S) + 3  # +Inf, sum, count
        if self.kind in (FACTS, ONE_OF):
            return max(1, sum(len(values or ()) for values in self.values))
        most = 1
        for values in self.values:
            most *= (len(values) if values else self.limit) + 1
        return most


def metric(kind: str, name: str, doc: str, limit: int = 0, merge: Any = sum, /, **labels: Values) -> Any:
    """A field of the snapshot that holds the metric: a number, a mapping by label, the value that holds, or a
    histogram. `limit` and `merge` as in `Definition`; labels by name."""
    told = Definition(PREFIX + name, kind, doc, tuple(labels), tuple(labels.values()), limit, merge)
    metadata = {"metric": told}
    if kind == HISTOGRAM:
        return field(default_factory=Histogram, metadata=metadata)
    if labels and kind != ONE_OF:
        return field(default_factory=dict, metadata=metadata)
    return field(default="" if kind == ONE_OF else 0, metadata=metadata)
