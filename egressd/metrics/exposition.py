"""A snapshot as Prometheus reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from egressd.metrics.definition import CONFIGURED, COUNTER, FACTS, HISTOGRAM, ONE_OF, Definition, Values
from egressd.metrics.histogram import BOUNDS_S, Histogram
from egressd.metrics.snapshot import DEFINITIONS, Snapshot

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

OTHER: Final = "other"
_WORD: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")  # a word of our code: no dot and no colon, so no name, no address
_MAX_LABEL: Final = 80


def _label(value: str, values: Values) -> str:
    """`value` as a label's value: itself when it may be one, else `other`."""
    if values:
        return value if value in values else OTHER
    if values is None:  # configured: an operator's own text, but no control bytes in it
        return "".join(c if " " <= c <= "~" else "?" for c in value)[:_MAX_LABEL]
    return value if _WORD.fullmatch(value) else OTHER


def series(metric: Definition, held: Any) -> Iterator[tuple[tuple[str, ...], float]]:
    """(label values, number) of a metric that is neither a histogram nor facts, bounded as defined."""
    if not metric.labels:
        yield (), held
        return
    if metric.kind == ONE_OF:
        for value in metric.values[0] or ():
            yield (value,), float(value == held)
        return
    merged: dict[tuple[str, ...], list[float]] = {}
    if len(metric.labels) == 1:  # a counter that appears with its first count has no increase there
        merged = {(value,): [] for value in metric.values[0] or ()}
    taken: list[set[str]] = [set() for _ in metric.labels]
    for key, number in held.items():
        words = key if isinstance(key, tuple) else (key,)
        parts = [_label(word, form) for word, form in zip(words, metric.values, strict=True)]
        for place, part in enumerate(parts):
            if not metric.values[place] and part not in taken[place] and part != OTHER:
                if len(taken[place]) >= metric.limit:
                    parts[place] = OTHER
                else:
                    taken[place].add(part)
        merged.setdefault(tuple(parts), []).append(number)
    for labels, numbers in merged.items():
        yield labels, metric.merge(numbers) if numbers else 0


class SnapshotCollector:
    """What prometheus_client asks for metrics: one snapshot's."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every metric, also those that nothing was counted for: an alert rule can tell 0 from missing."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, metric in DEFINITIONS:
            held = getattr(self._snapshot, name)
            if metric.kind == HISTOGRAM:
                yield HistogramMetricFamily(metric.name, metric.doc, buckets=_buckets(held), sum_value=held.sum_s)
                continue
            if metric.kind == FACTS:
                facts = GaugeMetricFamily(metric.name, metric.doc, labels=metric.labels)
                facts.add_metric([_label(held.get(label, ""), CONFIGURED) for label in metric.labels], 1)
                yield facts
                continue
            family = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            found = family(metric.name, metric.doc, labels=metric.labels)
            for labels, number in series(metric, held):
                found.add_metric(labels, number)
            yield found


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, here in zip((*(str(bound) for bound in BOUNDS_S), "+Inf"), histogram.cells, strict=False):
        total += here
        buckets.append((bound, total))
    return buckets


def render(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The snapshot in the exposition format that an Accept header asks for, and its content type. Some milliseconds:
    call it in a thread."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(cast("Collector", SnapshotCollector(snapshot)))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
