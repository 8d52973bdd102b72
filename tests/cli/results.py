"""Results as the daemon gives them, for golden tests of the screens. The story is pcaps/jps-2015."""

from __future__ import annotations

from typing import Any

NOW = "2026-11-25T17:14:44.000000+0000"
HOSTILE = "evil\x1b[31m\n\u202egnp.exe<img src=x>" + "a" * 90 + ".news-portal.example"


def at(text: str) -> str:
    """`11-25 17:14:40` of 2026."""
    return f"2026-{text[:5]}T{text[6:]}.000000+0000"


STATUS: dict[str, Any] = {
    "mode": "enforce",
    "version": "0.1.0",
    "started": at("10-29 13:02:00"),
    "uptime_s": 2_348_000,
    "interfaces": [
        {"name": "lan0", "state": "up", "packets": 40_211_377, "kernel_drops": 0, "last_packet": at("11-25 17:14:43")},
        {"name": "lan1", "state": "up", "packets": 8_000_000, "kernel_drops": 12, "last_packet": at("11-25 17:14:41")},
    ],
    "packet_processes": [
        {"pid": 812, "packets": 40_211_377, "drops": 0, "sightings": 222, "last_seen": at("11-25 17:14:43"),
         "restarts": 0, "compiled": True, "realtime": True},
        {"pid": 813, "packets": 8_000_000, "drops": 12, "sightings": 3, "last_seen": at("11-25 17:14:41"),
         "restarts": 1, "compiled": True, "realtime": True},
    ],
    "loss_ratio": 0.00000025,
    "degraded": False,
    "lists": [
        {"source": "/etc/egressd/lists/cnc.txt", "indicators": 47_911, "loaded": at("11-25 14:00:00"), "age_s": 11_684},
        {"source": "/etc/egressd/lists/notice.txt", "indicators": 12, "loaded": at("11-25 16:00:00"), "age_s": 4_484},
    ],
    "list_problems": [],
    "blind": {"doh": 412, "dot": 3, "ech": 1_204, "tls_no_name": 88},
    "adapters": [
        {"name": "nftables", "state": "ok", "active": 357, "pending": 0, "failed": 0, "unsupported": 41,
         "drift_repaired": 1, "last_check": at("11-25 17:14:43"), "generation": 4_711}
    ],
    "blocks": {"active": 41, "proposed": 0, "addresses": 312, "pairs": 4, "clients_isolated": 1, "segments_cut": 0},
    "watch": {"blocks_watched": 41, "clients_trying": 3, "attempts_24h": 148, "leaks_24h": 0,
              "last_attempt": at("11-25 17:11:24")},
    "incidents": {"open": 5, "new_24h": 3},
    "protected": 61,
    "canary": {"state": "ok", "last_ok": at("11-25 17:14:00"), "detect_ms": 0.41, "push_ms": 0.22},
    "time_to_block_ms": {"p50": 0.31, "p99": 1.4, "count": 353},
    "warnings": [],
}  # fmt: skip

STATUS_BAD: dict[str, Any] = {
    **STATUS,
    "interfaces": [
        STATUS["interfaces"][0],
        {"name": "lan1", "state": "down", "packets": 8_000, "kernel_drops": 12, "last_packet": at("11-25 17:02:11")},
        {"name": "lan\x1b[2J", "state": "up", "packets": 0, "kernel_drops": 0, "last_packet": None},
        STATUS["interfaces"][0],
    ],
    "loss_ratio": 0.031,
    "degraded": True,
    "list_problems": [f"/etc/egressd/lists/cnc.txt:12:1: {HOSTILE}: not a name", "two", "three"],
    "adapters": [
        {**STATUS["adapters"][0], "state": "failing", "failed": 12, "pending": 30, "last_check": at("11-25 17:09:43")},
        *[{**STATUS["adapters"][0], "name": f"other{n}"} for n in range(4)],
    ],
    "watch": {**STATUS["watch"], "leaks_24h": 2},
    "canary": {"state": "failing", "last_ok": at("11-25 17:04:00"), "detect_ms": None, "push_ms": None},
    "warnings": ["flow offload is on for lan0: packets of long connections are not seen", HOSTILE, "clock was set"],
    "blind": {f"sort{n}": n * 1_000 for n in range(1, 30)},
}  # fmt: skip
