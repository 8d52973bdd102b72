"""The daemon's numbers for a Prometheus, put together when somebody asks."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egressd import __version__
from egressd.intel.feeds.state import FeedState
from egressd.metrics.snapshot import Snapshot
from egressd.runtime.canary import Canary
from egressd.runtime.core import Core
from egressd.runtime.keeping import Keeping
from egressd.runtime.listening import OK, STARTING
from egressd.runtime.screens import lists, shown_us
from egressd.runtime.sensing import resident_bytes
from egressd.runtime.vitals import Vitals
from egressd.store.decisions import PROPOSED
from egressd.units import SECOND_US

_TABLES = {
    "tcp_evicted": "tcp", "udp_evicted": "udp", "history_evicted": "history", "resolutions_evicted": "resolutions",
    "client_over_share": "client_share", "clients_beyond_bound": "clients", "incidents_beyond_bound": "incidents",
    "alerts_beyond_bound": "alerts", "attempts_beyond_bound": "attempts", "resolutions_over_share": "resolutions_share",
    "agreement_evicted": "agreement", "blocks_over_share": "blocks_share",
}  # fmt: skip


def snapshot_of(
    core: Core,
    canary: Canary,
    keeping: Keeping,
    feeds: Mapping[str, FeedState],
    vitals: Vitals,
    turned_away: Mapping[str, int],
) -> Snapshot:
    """Every number that there is now; `turned_away` by socket. Quick: nothing is asked of disk or kernel."""
    now_us = core.clock.now_us()
    return Snapshot(
        **_seen(core, canary, vitals, now_us),
        **_logs(core, now_us),
        **_found(core),
        **_volume(core),
        **_blocked(core),
        **_lists(core, feeds, now_us),
        **_canary(core, canary, now_us),
        **_kept(core, keeping),
        turned_away=turned_away,
        mode=core.arming.mode,
        degraded=int(vitals.is_degraded),
        loop_lag_s=vitals.lag_s,
        started_s=core.started_us / SECOND_US,
    )


# Each of these gives fields of the snapshot.


def _seen(core: Core, canary: Canary, vitals: Vitals, now_us: int) -> dict[str, Any]:
    """Packets, and the processes that read them."""
    sensing = core.sensing
    interfaces = sensing.interfaces()
    left_out = sensing.totals("left_out")
    rows = list(sensing.rows())
    return {
        "packets": sum(one["packets"] for one in interfaces),
        "packets_dropped": {
            "kernel": sum(one["kernel_drops"] for one in interfaces),
            "abandoned": sum(one["abandoned"] for one in interfaces),
        },
        "left_out": {word: count for word, count in left_out.items() if word not in _TABLES},
        "observations": sensing.totals("observations"),
        "blind": sensing.totals("blind"),
        "clients": sum(one["clients"] for one in rows),
        "loss_ratio": vitals.loss_ratio,
        "sensor_up": {one["name"]: int(one["state"] == "up") for one in interfaces},
        "sensor_shown_s": {one["name"]: max(0, now_us - shown_us(core, canary, one)) / SECOND_US for one in interfaces},
        "sensor_packets": {one["name"]: one["packets"] for one in interfaces},
        "packet_processes": sensing.alive(),
        "packet_process_restarts": sum(one["restarts"] for one in rows),
        "memory_bytes": {"core": resident_bytes(os.getpid()), "packet": sum(one["rss_bytes"] for one in rows)},
        "table_evictions": {
            **{table: left_out.get(word, 0) for word, table in _TABLES.items()},
            "volume": core.volume.volume.evicted if core.volume is not None else 0,
        },
        "build": {
            "version": __version__,
            "python": platform.python_version(),
            "compiled": "yes" if rows and all(one["compiled"] for one in rows) else "no",
        },
    }


def _logs(core: Core, now_us: int) -> dict[str, Any]:
    """How other sensors stand."""
    states = core.listening.states
    return {
        "log_up": {name: int(one.state in (OK, STARTING)) for name, one in states.items()},
        "log_lines": {name: one.lines for name, one in states.items()},
        "log_last_line_s": {
            name: max(0, now_us - (one.last_line_us or core.started_us)) / SECOND_US for name, one in states.items()
        },
        "log_clock_ahead_s": {name: one.clock_ahead_us / SECOND_US for name, one in states.items()},
    }


def _found(core: Core) -> dict[str, Any]:
    """What was seen of what is listed, and decided on."""
    watched = core.intake.watched.by_decision
    return {
        "sightings": dict(core.intake.levels),
        "attempts": core.intake.counts["attempts"],
        "leaks": core.intake.counts["leaks"],
        "decisions": dict(core.rulings.counts),
        "decisions_waiting": sum(one.state == PROPOSED for one in core.register.by_id.values()),
        "refusals": dict(core.rulings.refusals),
        "incidents": {"open": len(core.campaigns.incidents)},
        "watches": len(watched),
        "watched_clients": len({client for clients in watched.values() for client in clients}),
    }


def _volume(core: Core) -> dict[str, Any]:
    """How much went out, if somebody counts."""
    watch = core.volume
    if watch is None:
        return {}
    return {
        "volume_observed": int(not watch.problem),
        "volume_not_observed": watch.unobserved,
        "volume_out_bytes": watch.volume.out_bytes,
        "volume_in_bytes": watch.volume.in_bytes,
        "volume_alerts": watch.told,
        "volume_lost": watch.lost + watch.untold + watch.volume.uncounted,
    }


def _blocked(core: Core) -> dict[str, Any]:
    """What is in force, by adapter."""
    adapters = core.enforcement.adapters()
    return {
        "blocks": {
            (one["name"], state): one[state]
            for one in adapters
            for state in ("active", "pending", "failed", "unsupported")
        },
        "block_push_failures": {one["name"]: one["push_failures"] for one in adapters},
        "drift_repaired": {one["name"]: one["drift_repaired"] for one in adapters},
        "enforcement_gap_s": {one["name"]: one["gap_s"] for one in adapters},
        "time_to_block": core.sensing.time_to_block(),
        "protected": len(core.knowledge.intel.protected.networks),
    }


def _lists(core: Core, feeds: Mapping[str, FeedState], now_us: int) -> dict[str, Any]:
    """What people and feeds say."""
    found = lists(core, now_us)
    return {
        "allowances": core.lapsing.counts(now_us),
        "list_indicators": {one["source"]: one["indicators"] for one in found},
        "list_age_s": {one["source"]: float(one["age_s"]) for one in found},
        "list_problems": len(core.knowledge.problems) + len(core.reloading.problems),
        "reloads": dict(core.reloading.counts),
        "feed_last_success_s": {one.name: one.last_ok_us / SECOND_US for one in feeds.values()},
        "feed_indicators": {one.name: one.size for one in feeds.values()},
        "feed_quarantined": {one.name: one.poisoned for one in feeds.values()},
        "feed_failures": {one.name: one.failures_total for one in feeds.values()},
    }


def _canary(core: Core, canary: Canary, now_us: int) -> dict[str, Any]:
    """How the daemon's own test stands."""
    told = canary.told()
    return {
        "canary_up": int(canary.state == "ok"),
        "canary_enabled": int(canary.enabled),
        "canary_last_ok_s": max(0, now_us - (canary.last_ok_us or core.started_us)) / SECOND_US,
        "canary_detect_s": (told["detect_ms"] or 0.0) / 1000,
        "canary_push_s": (told["push_ms"] or 0.0) / 1000,
        "canary_failures": canary.failures,
    }


def _kept(core: Core, keeping: Keeping) -> dict[str, Any]:
    """What is written: ledger, history and event log."""
    events = core.tellers.events
    told = events.stats if events is not None else None
    lost = {"history": keeping.dropped + core.learning.history_lost}
    return {
        "ledger_commits": core.ledger.stats.commits,
        "ledger_errors": core.ledger.stats.storage_errors,
        "ledger_waiting": core.scribe.waiting,
        "ledger_bytes": _size(core),
        "events_written": told.written if told is not None else 0,
        "events_dropped": {**told.dropped, **lost} if told is not None else lost,
        "events_waiting_bytes": told.waiting_bytes if told is not None else 0,
        "event_write_errors": told.errors if told is not None else 0,
    }


def _size(core: Core) -> int:
    total = 0
    for ending in ("", "-wal"):
        try:
            total += Path(f"{core.ledger.path}{ending}").stat().st_size
        except OSError:
            continue
    return total
