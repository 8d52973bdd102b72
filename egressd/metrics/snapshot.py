"""The daemon's numbers at one moment, which are the one definition of every metric.

Nothing is counted here: who counts keeps plain ints, the daemon makes a `Snapshot` of them when somebody asks, and that
is rendered (`metrics.exposition`). Names, labels, text and docs/metrics.md (`python -m egressd.metrics.reference >
docs/metrics.md`) come from its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from egressd.metrics.definition import CONFIGURED, COUNTER, FACTS, GAUGE, HISTOGRAM, ONE_OF, WORDS, Definition, metric
from egressd.metrics.histogram import Histogram

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
    packets: int = metric(COUNTER, "packets_total", "Packets that passed the kernel's filter and were read.")
    packets_dropped: Mapping[str, int] = metric(
        COUNTER,
        "packets_dropped_total",
        "Packets that were not read, by reason; `kernel`: its ring was full.",
        16,
        reason=WORDS,
    )
    left_out: Mapping[str, int] = metric(
        COUNTER,
        "left_out_total",
        "What was read and could not be used, by reason (packets; reasons that end in `_bytes`: bytes).",
        40,
        reason=WORDS,
    )
    observations: Mapping[str, int] = metric(COUNTER, "observations_total", "Destinations seen, by how.", kind=_KINDS)
    blind: Mapping[str, int] = metric(
        COUNTER, "blind_total", "Conversations whose names cannot be read, by sort.", sort=_SORTS
    )
    clients: int = metric(GAUGE, "clients", "Clients that are remembered.")
    loss_ratio: float = metric(GAUGE, "loss_ratio", "Share of packets lost over the last minute, 0 to 1.")
    sensor_up: Mapping[str, int] = metric(
        GAUGE, "sensor_up", "1 while the interface is captured from, else 0.", 12, min, interface=CONFIGURED
    )
    sensor_shown_s: Mapping[str, float] = metric(
        GAUGE,
        "sensor_shown_seconds",
        "Seconds since the interface showed that it sees: by a packet or, if it is no mirror port, by a canary. "
        "Since capture began if it never did.",
        12,
        max,
        interface=CONFIGURED,
    )
    sensor_packets: Mapping[str, int] = metric(
        COUNTER, "sensor_packets_total", "Packets read, by interface.", 12, interface=CONFIGURED
    )
    log_up: Mapping[str, int] = metric(
        GAUGE,
        "log_up",
        "1 while lines of the other sensor's log come as they should, 0 while it is silent or cannot be read.",
        5,
        min,
        sensor=CONFIGURED,
    )
    log_lines: Mapping[str, int] = metric(
        COUNTER, "log_lines_total", "Lines read of other sensors' logs.", 5, sensor=CONFIGURED
    )
    log_last_line_s: Mapping[str, float] = metric(
        GAUGE,
        "log_last_line_seconds",
        "Seconds since the last line of the other sensor's log, or since the daemon began if there was none.",
        5,
        max,
        sensor=CONFIGURED,
    )
    log_clock_ahead_s: Mapping[str, float] = metric(
        GAUGE,
        "log_clock_ahead_seconds",
        "By how much the other sensor's clock is ahead, after what was corrected, as contacts show that both tell of.",
        5,
        max,
        sensor=CONFIGURED,
    )
    packet_processes: int = metric(GAUGE, "packet_processes", "Packet processes that run.")
    packet_process_restarts: int = metric(
        COUNTER, "packet_process_restarts_total", "Packet processes that ended and were started again."
    )
    memory_bytes: Mapping[str, int] = metric(
        GAUGE, "memory_bytes", "Resident memory in bytes, of all processes of the sort.", process=("core", "packet")
    )
    table_evictions: Mapping[str, int] = metric(
        COUNTER,
        "table_evictions_total",
        "Entries that bounded tables let go of because they were full.",
        24,
        table=WORDS,
    )
    # what was found
    sightings: Mapping[str, int] = metric(
        COUNTER, "sightings_total", "Observations that met an indicator.", level=_LEVELS
    )
    attempts: int = metric(COUNTER, "attempts_total", "Contacts with blocked targets after the block.")
    leaks: int = metric(COUNTER, "leaks_total", "Blocked targets that answered although the block was in force.")
    decisions: Mapping[str, int] = metric(COUNTER, "decisions_total", "Policy's verdicts.", 16, action=WORDS)
    decisions_waiting: int = metric(GAUGE, "decisions_waiting", "Decisions that wait for a person; nothing is blocked.")
    refusals: Mapping[str, int] = metric(
        COUNTER, "refusals_total", "Targets that policy did not block, by rule.", 24, rule=WORDS
    )
    incidents: Mapping[str, int] = metric(GAUGE, "incidents", "Incidents, by state.", 8, state=WORDS)
    watches: int = metric(GAUGE, "watches", "Blocks that are watched.")
    watched_clients: int = metric(GAUGE, "watched_clients", "Clients that tried to reach a target that is watched.")
    volume_observed: int = metric(
        GAUGE, "volume_observed", "1 while the kernel counts bytes and they are read, else 0."
    )
    volume_not_observed: int = metric(
        COUNTER, "volume_not_observed_total", "Looks, one a minute, at which volume could not be observed."
    )
    volume_out_bytes: int = metric(
        COUNTER, "volume_out_bytes_total", "Bytes that hosts sent out (IP packets, as the kernel counted them)."
    )
    volume_in_bytes: int = metric(COUNTER, "volume_in_bytes_total", "Bytes that came back to them.")
    volume_alerts: int = metric(COUNTER, "volume_alerts_total", "Volumes that were told to be too much.")
    volume_lost: int = metric(
        COUNTER,
        "volume_lost_total",
        "Times that ends of flows, amounts or alerts came faster than they could be taken.",
    )
    # what was done
    blocks: Mapping[tuple[str, str], int] = metric(
        GAUGE, "blocks", "Targets, by adapter and state.", 8, adapter=CONFIGURED, state=_BLOCK_STATES
    )
    block_push_failures: Mapping[str, int] = metric(
        COUNTER, "block_push_failures_total", "Steps that an adapter could not make.", 8, adapter=CONFIGURED
    )
    drift_repaired: Mapping[str, int] = metric(
        COUNTER, "drift_repaired_total", "Targets that somebody else removed or added.", 8, adapter=CONFIGURED
    )
    enforcement_gap_s: Mapping[str, float] = metric(
        GAUGE,
        "enforcement_gap_seconds",
        "For how many seconds what is in force has differed from what should be; 0: it does not.",
        8,
        max,
        adapter=CONFIGURED,
    )
    time_to_block: Histogram = metric(  # noqa: RUF009  (a default factory)
        HISTOGRAM,
        "time_to_block_seconds",
        "Seconds from the answer or first packet to the kernel's word that the block is in force.",
    )
    protected: int = metric(GAUGE, "protected_networks", "Networks that are never blocked.")
    # what it rests on
    allowances: Mapping[str, int] = metric(
        GAUGE,
        "allowances",
        "Allowances: in force; ending within a day; ended within the last day.",
        state=("active", "ending", "ended"),
    )
    list_indicators: Mapping[str, int] = metric(
        GAUGE, "list_indicators", "Indicators in force, by list.", 28, source=CONFIGURED
    )
    list_age_s: Mapping[str, float] = metric(
        GAUGE,
        "list_age_seconds",
        "Seconds since the list's file was saved last, or the feed was confirmed last.",
        28,
        max,
        source=CONFIGURED,
    )
    feed_last_success_s: Mapping[str, float] = metric(
        GAUGE,
        "feed_last_success_timestamp_seconds",
        "When the feed was last fetched or confirmed, in seconds of epoch; 0: never; of `other` the earliest.",
        12,
        min,
        feed=CONFIGURED,
    )
    feed_indicators: Mapping[str, int] = metric(
        GAUGE, "feed_indicators", "Indicators of the feed's version in force.", 12, feed=CONFIGURED
    )
    feed_quarantined: Mapping[str, int] = metric(
        GAUGE,
        "feed_quarantined",
        "Lines of the feed that are kept out because they name what must never be blocked.",
        12,
        feed=CONFIGURED,
    )
    feed_failures: Mapping[str, int] = metric(
        COUNTER,
        "feed_failures_total",
        "Versions of the feed that were not had, or were refused.",
        12,
        feed=CONFIGURED,
    )
    list_problems: int = metric(GAUGE, "list_problems", "Mistakes in lists and configuration on disk.")
    reloads: Mapping[str, int] = metric(COUNTER, "reloads_total", "Reloads, by result.", result=("ok", "refused"))
    canary_up: int = metric(GAUGE, "canary_up", "1 while the self-test succeeds; 0: it fails, or is off.")
    canary_enabled: int = metric(GAUGE, "canary_enabled", "1 when the self-test is on.")
    canary_last_ok_s: float = metric(GAUGE, "canary_last_success_seconds", "Seconds since it last succeeded.")
    canary_detect_s: float = metric(GAUGE, "canary_detect_seconds", "How long the last one took to be seen.")
    canary_push_s: float = metric(GAUGE, "canary_push_seconds", "How long it took from there to the kernel's word.")
    canary_failures: int = metric(COUNTER, "canary_failures_total", "Self-tests that failed.")
    ledger_commits: int = metric(COUNTER, "ledger_commits_total", "Transactions of the ledger.")
    ledger_errors: int = metric(COUNTER, "ledger_errors_total", "Transactions that failed (disk full, disk broken).")
    ledger_waiting: int = metric(GAUGE, "ledger_waiting", "Changes that wait to be committed.")
    ledger_bytes: int = metric(GAUGE, "ledger_size_bytes", "Size of the ledger's files in bytes.")
    events_written: int = metric(COUNTER, "events_written_total", "Events written to the event file.")
    events_dropped: Mapping[str, int] = metric(
        COUNTER, "events_dropped_total", "Events that did not fit its buffer, by event type.", 16, type=WORDS
    )
    events_waiting_bytes: int = metric(GAUGE, "events_waiting_bytes", "Bytes that wait to be written to it.")
    event_write_errors: int = metric(COUNTER, "event_write_errors_total", "Writes to it that failed (disk full).")
    # who uses it
    turned_away: Mapping[str, int] = metric(
        COUNTER,
        "turned_away_total",
        "Connections and requests that a socket of ours did not serve: too many at once, too slow, or too large.",
        socket=("control", "metrics"),
    )
    # how it is
    mode: str = metric(ONE_OF, "mode", "1 for the mode that egressd is in.", mode=("monitor", "approve", "enforce"))
    degraded: int = metric(GAUGE, "degraded", "1 while more than 1 % of packets is lost, for a minute.")
    loop_lag_s: float = metric(GAUGE, "loop_lag_seconds", "The longest that the core was busy in the last minute.")
    started_s: float = metric(GAUGE, "start_time_seconds", "When it started, in seconds of epoch.")
    build: Mapping[str, str] = metric(
        FACTS, "build_info", "Always 1.", version=CONFIGURED, python=CONFIGURED, compiled=("yes", "no")
    )


class Entry(NamedTuple):
    """A field of Snapshot and its metric."""

    field: str
    metric: Definition


DEFINITIONS: Final = tuple(Entry(one.name, one.metadata["metric"]) for one in fields(Snapshot))


def most_series() -> int:
    """The most series that a scrape can hold."""
    return sum(one.metric.most_series() for one in DEFINITIONS)
