"""The daemon's numbers as Prometheus metrics.

Nothing is counted here: who counts keeps plain ints, the daemon makes a `Snapshot` of them when somebody asks, and that
is rendered. The fields of `Snapshot` are the one definition of every metric: names, labels, text and docs/metrics.md
(`python -m egressd.metrics > docs/metrics.md`) come from them.

Labels are words of ours (kinds, states, reasons) or names that an operator configured (interfaces, lists, adapters),
never a name, address or client seen in traffic. That does not rest on goodwill: each label has a closed set of values,
or a form that no name or address has, and a bound; what is beyond goes to the value `other`. So the number of series is
bounded whatever traffic does (THREATS 13: under 500).
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

PREFIX: Final = "egressd_"
COUNTER: Final = "counter"
GAUGE: Final = "gauge"
ONE_OF: Final = "one of"  # a gauge per value, 1 for the one that holds
FACTS: Final = "facts"  # the constant 1 with facts as labels
HISTOGRAM: Final = "histogram"

OTHER: Final = "other"
_WORD: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")  # a word of our code: no dot and no colon, so no name, no address
_MAX_LABEL: Final = 80

# Upper bounds in seconds: the kernel is told within 0.2 to 0.4 ms where all is well, and DESIGN asks for one second.
BOUNDS_S: Final = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)


class Histogram:
    """Counts of durations by size, in one list of ints that processes can send each other: a cell for each of
    BOUNDS_S, one for what is longer, and last the sum of all in microseconds."""

    __slots__ = ("cells",)

    def __init__(self, cells: Sequence[int] = ()) -> None:
        """`cells` are another histogram's. ValueError when they cannot be."""
        self.cells = [0] * (len(BOUNDS_S) + 2)
        if cells:
            self.merge(cells)

    def observe(self, seconds: float) -> None:
        """Count one duration. A negative one (clocks of two processors) counts as 0."""
        if not seconds > 0.0:
            seconds = 0.0
        self.cells[bisect_left(BOUNDS_S, seconds)] += 1
        self.cells[-1] += int(min(seconds, 1e9) * 1_000_000)

    def merge(self, cells: Sequence[int]) -> None:
        """Add another's cells. ValueError when they are not a histogram's."""
        if len(cells) != len(self.cells) or min(cells) < 0:
            raise ValueError("not the cells of a histogram")
        self.cells = [mine + theirs for mine, theirs in zip(self.cells, cells, strict=True)]

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.cells[:-1])

    @property
    def sum_s(self) -> float:
        """All of them together, in seconds."""
        return self.cells[-1] / 1_000_000

    def quantile(self, p: float) -> float | None:
        """The duration in seconds that a share `p` (0..1) of all does not exceed, by interpolation within its cell as
        Prometheus does it; of those beyond the last bound no more is known than the bound. None when nothing was
        counted."""
        total = self.count
        if not total:
            return None
        rank = min(1.0, max(0.0, p)) * total
        below = 0
        lower = 0.0
        for upper, here in zip(BOUNDS_S, self.cells, strict=False):
            if here and below + here >= rank:
                return lower + (upper - lower) * max(0.0, rank - below) / here
            below += here
            lower = upper
        return BOUNDS_S[-1]


class LossWindow:
    """Whether packets are being lost: over 1 % of those of the last minute. One lost burst that is that large counts
    for as long as it is within the minute; a loss that is smaller over the minute never does."""

    SPAN_US: Final = 60_000_000
    BOUND: Final = 0.01
    _STEP_US: Final = 1_000_000

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int, int]] = deque()  # (when, received, lost) as told, a second apart

    def note(self, received: int, lost: int, now_us: int) -> None:
        """Totals so far: packets handed to us, and packets dropped before that. When they or the clock go backwards
        (a process was started again), the minute begins anew."""
        samples = self._samples
        if samples and (received < samples[-1][1] or lost < samples[-1][2] or now_us < samples[-1][0]):
            samples.clear()
        if len(samples) > 1 and now_us - samples[-2][0] < self._STEP_US:
            samples[-1] = (now_us, received, lost)
            return
        samples.append((now_us, received, lost))
        while len(samples) > 2 and samples[1][0] <= now_us - self.SPAN_US:
            samples.popleft()

    def ratio(self, now_us: int) -> float:
        """Share of packets lost, 0 to 1, over the last minute or as much of it as is known."""
        if len(self._samples) < 2 or now_us - self._samples[-1][0] >= self.SPAN_US:
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        lost = last[2] - first[2]
        return lost / (lost + last[1] - first[1]) if lost else 0.0

    def degraded(self, now_us: int) -> bool:
        """Over the bound, over a whole minute."""
        known_us = self._samples[-1][0] - self._samples[0][0] if self._samples else 0
        return known_us >= self.SPAN_US and self.ratio(now_us) > self.BOUND


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


_Values = tuple[str, ...] | None
WORDS: Final[_Values] = ()
CONFIGURED: Final[_Values] = None


def _metric(kind: str, name: str, doc: str, limit: int = 0, merge: Any = sum, /, **labels: _Values) -> Any:
    told = Definition(PREFIX + name, kind, doc, tuple(labels), tuple(labels.values()), limit, merge)
    metadata = {"metric": told}
    if kind == HISTOGRAM:
        return field(default_factory=Histogram, metadata=metadata)
    if labels and kind != ONE_OF:
        return field(default_factory=dict, metadata=metadata)
    return field(default="" if kind == ONE_OF else 0, metadata=metadata)


_KINDS: Final = ("dns_query", "dns_answer", "http_host", "tls_sni", "quic_sni", "socks_host", "flow", "reply")
_LEVELS: Final = ("host", "sibling", "address", "url", "behaviour")
_BLOCK_STATES: Final = ("pending", "active", "failed", "unsupported", "removed")
_SORTS: Final = ("doh", "dot", "doq", "ech", "tls_no_name")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The daemon's numbers at one moment: plain ints and floats, counters since the daemon started. Made anew for each
    scrape, of copies, for it is rendered in another thread. What a field means, and its unit, is its metric's text;
    mappings are by the metric's label."""

    # what was seen
    packets: int = _metric(COUNTER, "packets_total", "Packets that passed the kernel's filter and were read.")
    packets_dropped: Mapping[str, int] = _metric(
        COUNTER,
        "packets_dropped_total",
        "Packets that were not read, by reason; `kernel`: its ring was full.",
        16,
        reason=WORDS,
    )
    left_out: Mapping[str, int] = _metric(
        COUNTER,
        "left_out_total",
        "What was read and could not be used, by reason (packets; reasons that end in `_bytes`: bytes).",
        40,
        reason=WORDS,
    )
    observations: Mapping[str, int] = _metric(COUNTER, "observations_total", "Destinations seen, by how.", kind=_KINDS)
    blind: Mapping[str, int] = _metric(
        COUNTER, "blind_total", "Conversations whose names cannot be read, by sort.", sort=_SORTS
    )
    clients: int = _metric(GAUGE, "clients", "Clients that are remembered.")
    loss_ratio: float = _metric(GAUGE, "loss_ratio", "Share of packets lost over the last minute, 0 to 1.")
    sensor_up: Mapping[str, int] = _metric(
        GAUGE, "sensor_up", "1 while the interface is captured from, else 0.", 12, min, interface=CONFIGURED
    )
    sensor_shown_s: Mapping[str, float] = _metric(
        GAUGE,
        "sensor_shown_seconds",
        "Seconds since the interface showed that it sees: by a packet or, if it is no mirror port, by a canary. "
        "Since capture began if it never did.",
        12,
        max,
        interface=CONFIGURED,
    )
    sensor_packets: Mapping[str, int] = _metric(
        COUNTER, "sensor_packets_total", "Packets read, by interface.", 12, interface=CONFIGURED
    )
    log_up: Mapping[str, int] = _metric(
        GAUGE,
        "log_up",
        "1 while lines of the other sensor's log come as they should, 0 while it is silent or cannot be read.",
        5,
        min,
        sensor=CONFIGURED,
    )
    log_lines: Mapping[str, int] = _metric(
        COUNTER, "log_lines_total", "Lines read of other sensors' logs.", 5, sensor=CONFIGURED
    )
    log_last_line_s: Mapping[str, float] = _metric(
        GAUGE,
        "log_last_line_seconds",
        "Seconds since the last line of the other sensor's log, or since the daemon began if there was none.",
        5,
        max,
        sensor=CONFIGURED,
    )
    log_clock_ahead_s: Mapping[str, float] = _metric(
        GAUGE,
        "log_clock_ahead_seconds",
        "By how much the other sensor's clock is ahead, after what was corrected, as contacts show that both tell of.",
        5,
        max,
        sensor=CONFIGURED,
    )
    packet_processes: int = _metric(GAUGE, "packet_processes", "Packet processes that run.")
    packet_process_restarts: int = _metric(
        COUNTER, "packet_process_restarts_total", "Packet processes that ended and were started again."
    )
    memory_bytes: Mapping[str, int] = _metric(
        GAUGE, "memory_bytes", "Resident memory in bytes, of all processes of the sort.", process=("core", "packet")
    )
    table_evictions: Mapping[str, int] = _metric(
        COUNTER,
        "table_evictions_total",
        "Entries that bounded tables let go of because they were full.",
        24,
        table=WORDS,
    )
    # what was found
    sightings: Mapping[str, int] = _metric(
        COUNTER, "sightings_total", "Observations that met an indicator.", level=_LEVELS
    )
    attempts: int = _metric(COUNTER, "attempts_total", "Contacts with blocked targets after the block.")
    leaks: int = _metric(COUNTER, "leaks_total", "Blocked targets that answered although the block was in force.")
    decisions: Mapping[str, int] = _metric(COUNTER, "decisions_total", "Policy's verdicts.", 16, action=WORDS)
    refusals: Mapping[str, int] = _metric(
        COUNTER, "refusals_total", "Targets that policy did not block, by rule.", 24, rule=WORDS
    )
    incidents: Mapping[str, int] = _metric(GAUGE, "incidents", "Incidents, by state.", 8, state=WORDS)
    watches: int = _metric(GAUGE, "watches", "Blocks that are watched.")
    watched_clients: int = _metric(GAUGE, "watched_clients", "Clients that tried to reach a target that is watched.")
    volume_observed: int = _metric(
        GAUGE, "volume_observed", "1 while the kernel counts bytes and they are read, else 0."
    )
    volume_not_observed: int = _metric(
        COUNTER, "volume_not_observed_total", "Looks, one a minute, at which volume could not be observed."
    )
    volume_out_bytes: int = _metric(
        COUNTER, "volume_out_bytes_total", "Bytes that hosts sent out (IP packets, as the kernel counted them)."
    )
    volume_in_bytes: int = _metric(COUNTER, "volume_in_bytes_total", "Bytes that came back to them.")
    volume_alerts: int = _metric(COUNTER, "volume_alerts_total", "Volumes that were told to be too much.")
    volume_lost: int = _metric(
        COUNTER,
        "volume_lost_total",
        "Times that ends of flows, amounts or alerts came faster than they could be taken.",
    )
    # what was done
    blocks: Mapping[tuple[str, str], int] = _metric(
        GAUGE, "blocks", "Targets, by adapter and state.", 8, adapter=CONFIGURED, state=_BLOCK_STATES
    )
    block_push_failures: Mapping[str, int] = _metric(
        COUNTER, "block_push_failures_total", "Steps that an adapter could not make.", 8, adapter=CONFIGURED
    )
    drift_repaired: Mapping[str, int] = _metric(
        COUNTER, "drift_repaired_total", "Targets that somebody else removed or added.", 8, adapter=CONFIGURED
    )
    enforcement_gap_s: Mapping[str, float] = _metric(
        GAUGE,
        "enforcement_gap_seconds",
        "For how many seconds what is in force has differed from what should be; 0: it does not.",
        8,
        max,
        adapter=CONFIGURED,
    )
    time_to_block: Histogram = _metric(  # noqa: RUF009  (a default factory)
        HISTOGRAM,
        "time_to_block_seconds",
        "Seconds from the answer or first packet to the kernel's word that the block is in force.",
    )
    protected: int = _metric(GAUGE, "protected_networks", "Networks that are never blocked.")
    # what it rests on
    allowances: Mapping[str, int] = _metric(
        GAUGE,
        "allowances",
        "Allowances: in force; ending within a day; ended within the last day.",
        state=("active", "ending", "ended"),
    )
    list_indicators: Mapping[str, int] = _metric(
        GAUGE, "list_indicators", "Indicators in force, by list.", 28, source=CONFIGURED
    )
    list_age_s: Mapping[str, float] = _metric(
        GAUGE,
        "list_age_seconds",
        "Seconds since the list's file was saved last, or the feed was confirmed last.",
        28,
        max,
        source=CONFIGURED,
    )
    feed_last_success_s: Mapping[str, float] = _metric(
        GAUGE,
        "feed_last_success_timestamp_seconds",
        "When the feed was last fetched or confirmed, in seconds of epoch; 0: never; of `other` the earliest.",
        12,
        min,
        feed=CONFIGURED,
    )
    feed_indicators: Mapping[str, int] = _metric(
        GAUGE, "feed_indicators", "Indicators of the feed's version in force.", 12, feed=CONFIGURED
    )
    feed_quarantined: Mapping[str, int] = _metric(
        GAUGE,
        "feed_quarantined",
        "Lines of the feed that are kept out because they name what must never be blocked.",
        12,
        feed=CONFIGURED,
    )
    feed_failures: Mapping[str, int] = _metric(
        COUNTER,
        "feed_failures_total",
        "Versions of the feed that were not had, or were refused.",
        12,
        feed=CONFIGURED,
    )
    list_problems: int = _metric(GAUGE, "list_problems", "Mistakes in lists and configuration on disk.")
    reloads: Mapping[str, int] = _metric(COUNTER, "reloads_total", "Reloads, by result.", result=("ok", "refused"))
    canary_up: int = _metric(GAUGE, "canary_up", "1 while the self-test succeeds; 0: it fails, or is off.")
    canary_enabled: int = _metric(GAUGE, "canary_enabled", "1 when the self-test is on.")
    canary_last_ok_s: float = _metric(GAUGE, "canary_last_success_seconds", "Seconds since it last succeeded.")
    canary_detect_s: float = _metric(GAUGE, "canary_detect_seconds", "How long the last one took to be seen.")
    canary_push_s: float = _metric(GAUGE, "canary_push_seconds", "How long it took from there to the kernel's word.")
    canary_failures: int = _metric(COUNTER, "canary_failures_total", "Self-tests that failed.")
    ledger_commits: int = _metric(COUNTER, "ledger_commits_total", "Transactions of the ledger.")
    ledger_errors: int = _metric(COUNTER, "ledger_errors_total", "Transactions that failed (disk full, disk broken).")
    ledger_waiting: int = _metric(GAUGE, "ledger_waiting", "Changes that wait to be committed.")
    ledger_bytes: int = _metric(GAUGE, "ledger_size_bytes", "Size of the ledger's files in bytes.")
    ledger_audit_rows: int = _metric(GAUGE, "ledger_audit_rows", "Rows of the audit chain.")
    events_written: int = _metric(COUNTER, "events_written_total", "Events written to the event file.")
    events_dropped: Mapping[str, int] = _metric(
        COUNTER, "events_dropped_total", "Events that did not fit its buffer, by event type.", 16, type=WORDS
    )
    events_waiting_bytes: int = _metric(GAUGE, "events_waiting_bytes", "Bytes that wait to be written to it.")
    event_write_errors: int = _metric(COUNTER, "event_write_errors_total", "Writes to it that failed (disk full).")
    # how it is
    mode: str = _metric(ONE_OF, "mode", "1 for the mode that egressd is in.", mode=("monitor", "approve", "enforce"))
    degraded: int = _metric(GAUGE, "degraded", "1 while more than 1 % of packets is lost, for a minute.")
    loop_lag_s: float = _metric(GAUGE, "loop_lag_seconds", "The longest that the core was busy in the last minute.")
    started_s: float = _metric(GAUGE, "start_time_seconds", "When it started, in seconds of epoch.")
    build: Mapping[str, str] = _metric(
        FACTS, "build_info", "Always 1.", version=CONFIGURED, python=CONFIGURED, compiled=("yes", "no")
    )


class Entry(NamedTuple):
    """A field of Snapshot and its metric."""

    field: str
    metric: Definition


DEFINITIONS: Final = tuple(Entry(one.name, one.metadata["metric"]) for one in fields(Snapshot))


def _label(value: str, values: _Values) -> str:
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
        worse.append(f"{snapshot.list_problems} mistakes in lists or configuration: the last good ones are in force")
    return Health("down" if blind else "degraded" if worse else "ok", tuple(worse))


def render_reference() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Generated by `python -m egressd.metrics > docs/metrics.md`.",
        "",
        "`GET /metrics` and `GET /healthz`, on 127.0.0.1:9469 unless set otherwise. No series is named by a domain, an",
        f"address or a client; there are never more than {most_series()} of them: values beyond a label's bound add up",
        "as `other`. Counters count from the daemon's start. `monitoring/` has alert rules and a Grafana dashboard.",
        "",
        '`/healthz` answers `{"status":...,"reasons":[...]}`: `200` when the status is `ok` or `degraded`, `503` when',
        "it is `down`: nothing is captured, or no interface has shown for five minutes that it sees, whatever the",
        "process does.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for _, metric in DEFINITIONS:
        kind = metric.kind if metric.kind in (COUNTER, HISTOGRAM) else GAUGE
        lines.append(f"| `{metric.name}` | {kind} | {_labels_told(metric)} | {metric.doc} |")
    return "\n".join([*lines, ""])


def _labels_told(metric: Definition) -> str:
    told = []
    for label, values in zip(metric.labels, metric.values, strict=True):
        told.append(f"`{label}`" + (f": {', '.join(values)}" if values else ""))
    return "; ".join(told)


def most_series() -> int:
    """The most series that a scrape can hold."""
    return sum(metric.most_series() for _, metric in DEFINITIONS)


if __name__ == "__main__":
    sys.stdout.write(render_reference())
