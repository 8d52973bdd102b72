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
    "arming": [
        {"segment": None, "mode": "enforce", "since": at("11-25 09:00:00"), "by": "uid:root", "reason": "a quiet week",
         "configured": "monitor"},
    ],
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

EVIL = "news-portal.example"
INDICATOR = {"value": f"a.{EVIL}", "source": "/etc/egressd/lists/notice.txt", "line": 6, "threat": "jps-2015"}

HOSTS: dict[str, Any] = {
    "hosts": [
        {"client": "10.1.3.23", "segment": "MHLW", "incidents": ["I1"], "domains": [EVIL], "contacts": 37,
         "attempts": 4, "leaks": 0, "first": at("10-29 13:12:00"), "last": at("10-29 15:19:00"), "isolated": True},
        {"client": "10.2.5.41", "segment": "JPS", "incidents": ["I2"], "domains": [EVIL, "x.example"],
         "contacts": 37, "attempts": 37, "leaks": 2,
         "first": at("11-14 01:00:00"), "last": at("11-14 04:55:00"), "isolated": False},
        {"client": "10.2.7.11", "segment": "JPS", "incidents": ["I3"], "domains": [EVIL], "contacts": 48,
         "device": "02:1a:2b:00:00:01", "device_name": "pc-kasuga", "addresses": ["10.2.7.9", "10.2.7.11"],
         "attempts": 48, "leaks": 0, "first": at("11-24 00:40:00"), "last": at("11-25 17:11:24"), "isolated": False},
        {"client": "2001:db8:1234:5678:9abc:def0:1234:5678", "segment": "laboratory-of-the-second-building",
         "incidents": ["I4"], "domains": [HOSTILE], "contacts": 1_234_567, "attempts": 0, "leaks": 0,
         "first": at("11-24 00:45:00"), "last": at("11-25 17:14:00"), "isolated": False},
        {"client": "10.2.9.30", "segment": "", "incidents": ["I5"], "domains": [], "contacts": 52, "attempts": 52,
         "leaks": 0, "first": at("11-20 00:50:00"), "last": at("11-22 22:00:00"), "isolated": False},
    ]
}  # fmt: skip

INCIDENTS: dict[str, Any] = {
    "incidents": [
        {"id": "I1", "campaign": "C1", "client": "10.1.3.23", "segment": "MHLW", "state": "open",
         "registered_domain": EVIL, "match_level": "host", "indicator": INDICATOR, "opened": at("10-29 15:12:00"),
         "first": at("10-29 13:12:00"), "last": at("10-29 15:19:00"), "contacts": 37, "attempts": 4, "answered": 33,
         "leaks": 0, "names": {f"a.{EVIL}": 37}, "via": {"http": 34, "dns": 3}, "retro": True, "decisions": ["D1"]},
        {"id": "I2", "campaign": "C1", "client": "10.2.5.41", "segment": "JPS", "state": "open",
         "registered_domain": EVIL, "match_level": "sibling", "indicator": INDICATOR, "opened": at("11-14 01:00:00"),
         "first": at("11-14 01:00:00"), "last": at("11-14 04:55:00"), "contacts": 37, "attempts": 37, "answered": 2,
         "leaks": 2, "names": {HOSTILE: 30, f"b.{EVIL}": 7, **{f"n{n}.{EVIL}": 1 for n in range(20)}},
         "via": {"http": 34, "dns": 3}, "retro": False, "decisions": ["D1", "D2"],
         "notes": [{"ts": at("11-15 09:00:00"), "text": "allowed since 2026-11-15 09:00 UTC by noc (partner, until the"
                    f" audit), allow-destination {EVIL}: D1 lifted"},
                   {"ts": at("11-20 09:00:00"), "text": f"no longer allowed (allow-destination {EVIL} of noc: partner,"
                    " until the audit): D2 blocks again (it was D1)"}]},
        {"id": "I3", "campaign": "C1", "client": "10.2.7.11", "segment": "JPS", "state": "open",
         "registered_domain": EVIL, "match_level": "sibling", "indicator": INDICATOR, "opened": at("11-24 00:40:00"),
         "first": at("11-24 00:40:00"), "last": at("11-25 17:11:24"), "contacts": 48, "attempts": 48, "answered": 0,
         "leaks": 0, "names": {f"b.{EVIL}": 48}, "via": {"flow": 24, "dns": 24}, "retro": False, "decisions": ["D1"],
         "sources": {"tap": 48, "dnsmasq": 24},
         "device": "02:1a:2b:00:00:01", "device_name": "pc-kasuga", "device_random": True,
         "addresses": ["10.2.7.9", "2001:db8:5::a", "2001:db8:5::b", "2001:db8:5::c", "10.2.7.11"],
         "ties": ["news-portal.example and city-guide.example both lived on 203.0.113.66"],
         "candidates": [{"campaign": "C9", "reason": "10.2.9.77 tried news-portal.example, blocked, at 11-25 09:10;"
                         " since 11-25 09:32 opaque get to other.example"}],
         "stage": "stage: repeated contact, 3 hosts; data out: not observed in 12,345 packets, 2026-05-18 09:10"
                  " to 17:40 UTC; but 12 packets were lost by the capture"},
        {"id": "I1234", "campaign": "C77", "client": "2001:db8:1234:5678:9abc:def0:1234:5678", "segment": HOSTILE,
         "state": "acknowledged", "acked_by": "uid:anna",
         "acked": at("11-25 08:30:00"), "registered_domain": "", "match_level": "address",
         "indicator": {"value": "203.0.113.66", "source": f"/x/{HOSTILE}.txt", "line": 1_000_000, "threat": HOSTILE},
         "opened": at("11-25 00:40:00"), "first": at("11-25 00:40:00"), "last": at("11-25 17:14:40"),
         "contacts": 1_234_567, "attempts": 0, "answered": 0, "leaks": 0, "names": {}, "via": {"flow": 1_234_567},
         "retro": False, "decisions": [], "notes": [{"ts": "never", "text": HOSTILE}, {}, 7]},
    ]
}  # fmt: skip

WATCHES: dict[str, Any] = {
    "watches": [
        {"decision_id": "D1", "target": {"kind": "registered_domain", "value": EVIL}, "state": "active",
         "since": at("10-29 15:12:00"), "attempts": 141, "leaks": 2, "last": at("11-25 17:11:24"), "quiet_s": 200,
         "clients": [
             {"client": "10.2.7.11", "first": at("11-24 00:40:00"), "last": at("11-25 17:11:24"),
              "device": "02:1a:2b:00:00:01", "device_name": "pc-kasuga",
              "count": 48, "leaks": 0},
             {"client": "10.2.5.41", "first": at("11-14 01:00:00"), "last": at("11-14 04:55:00"),
              "count": 37, "leaks": 2},
             {"client": "2001:db8:1234:5678:9abc:def0:1234:5678", "first": at("11-24 00:45:00"),
              "last": at("11-25 17:11:00"), "count": 56, "leaks": 0},
         ],
         "addresses": [
             {"value": "203.0.113.66", "kind": "address", "state": "active", "expires": None, "packets": 91,
              "level": None},
             {"value": "10.1.3.23>203.0.113.67", "kind": "pair", "state": "active", "expires": at("11-26 17:11:00"),
              "packets": 12, "level": 3},
         ]},
        {"decision_id": "D23", "target": {"kind": "host", "value": HOSTILE}, "state": "active",
         "since": at("11-20 10:00:00"), "attempts": 0, "leaks": 0, "last": None, "quiet_s": None, "clients": [],
         "addresses": []},
    ]
}  # fmt: skip
WATCH_QUIET: dict[str, Any] = {"watches": [WATCHES["watches"][1]]}

DECISIONS: dict[str, Any] = {
    "decisions": [
        {"id": "D1", "action": "block", "state": "active", "created": at("10-29 15:12:00"), "author": "rule:listed",
         "mode": "enforce", "reason": f"a.{EVIL} is listed", "rule": "listed", "evidence": "E2",
         "registered_domain": EVIL, "name": f"a.{EVIL}", "client": "10.1.3.23", "campaign": "C1", "match_level": "host",
         "indicator": INDICATOR, "targets": [
             {"kind": "registered_domain", "value": EVIL, "state": "active", "expires": None,
              "enforcements": [{"adapter": "nftables", "state": "unsupported", "detail": "holds no names"}]},
             {"kind": "address", "value": "203.0.113.66", "state": "active", "expires": None,
              "enforcements": [{"adapter": "nftables", "state": "active", "detail": ""}]},
             {"kind": "address", "value": "203.0.113.67", "state": "active", "expires": at("11-26 17:11:00"),
              "enforcements": [{"adapter": "nftables", "state": "failed", "detail": "no space left in the set\x07"}]},
         ]},
        {"id": "D24", "action": "block", "state": "proposed", "created": at("11-25 17:10:00"), "author": "rule:listed",
         "mode": "approve", "reason": HOSTILE, "rule": "listed", "evidence": "E1", "registered_domain": "",
         "name": HOSTILE, "client": "10.2.9.30", "campaign": "C2",
         "match_level": "address", "indicator": {}, "targets": []},
        {"id": "D17", "action": "isolate", "state": "active", "created": at("11-25 09:00:00"), "author": "uid:alice",
         "mode": "enforce", "reason": "infected since May; remedy by the service desk", "rule": "operator",
         "evidence": "", "registered_domain": "", "name": "", "client": "10.1.3.23", "campaign": "", "match_level": "",
         "indicator": None, "targets": [{"kind": "client", "value": "10.1.3.23", "state": "active",
                                         "expires": at("11-25 21:00:00"), "enforcements": []}]},
    ]
}  # fmt: skip

LIST: dict[str, Any] = {
    "lists": [
        {"source": "/etc/egressd/lists/cnc.txt", "indicators": 47_911, "problems": 0},
        {"source": f"/etc/egressd/lists/{HOSTILE}.txt", "indicators": 12, "problems": 3},
    ],
    "operator": [
        {"id": "D18", "kind": "indicator", "text": "files.worse.example", "author": "uid:alice",
         "reason": "notice 2026-12 of the national centre", "created": at("11-25 09:00:00"), "expires": None},
        {"id": "D19", "kind": "allowance", "text": "weather-sync.example", "author": "uid:root", "reason": HOSTILE,
         "created": at("11-25 09:30:00"), "expires": at("11-26 09:30:00")},
        {"id": "D20", "kind": "allowance", "author": "uid:root", "reason": "undone, no reason given",
         "text": 'allow-destination news-portal.example owner="uid:root" reason="undone, no reason given"'
                 " client=10.1.3.23", "created": at("11-25 09:31:00"), "expires": None},
    ],
    "allowances": 4,
}  # fmt: skip

AUDIT: dict[str, Any] = {
    "rows": [
        {"seq": 4_121, "ts": at("11-25 09:00:00"), "actor": "uid:alice", "act": "isolate", "object": "10.1.3.23",
         "reason": "infected since May; remedy by the service desk", "hash": "a1" * 32},
        {"seq": 4_122, "ts": at("11-25 09:12:00"), "actor": "rule:listed", "act": "extend",
         "object": "D1 address 203.0.113.67", "reason": HOSTILE, "hash": "b2" * 32},
        {"seq": 4_120, "ts": at("11-25 08:55:00"), "actor": "uid:root", "act": "mode", "object": "jps",
         "reason": "a quiet week", "before": "monitor", "after": "enforce", "hash": "d4" * 32},
        {"seq": 4_123, "ts": at("11-25 17:10:00"), "actor": "uid:bob", "act": "refused", "object": "panic",
         "reason": "needs the role admin", "hash": "c3" * 32},
    ],
    "head": {"seq": 4_123, "hash": "c3" * 32},
}  # fmt: skip
VERIFIED: dict[str, Any] = {"ok": True, "rows": 4_123, "head": {"seq": 4_123, "hash": "c3" * 32}, "problem": None}
BROKEN: dict[str, Any] = {
    "ok": False,
    "rows": 4_100,
    "head": None,
    "problem": "row 4,101 is not what its hash says\x1b",
}

DOCTOR: dict[str, Any] = {
    "checks": [
        {"name": "detect", "ok": True, "detail": "doctor.egressd.example found in a DNS answer", "ms": 0.8},
        {"name": "push", "ok": True, "detail": "198.51.100.1 in the scratch set", "ms": 0.3},
        {"name": "verify", "ok": True, "detail": "read back from the kernel", "ms": 1.2},
        {"name": "remove", "ok": True, "detail": "the scratch set is empty again", "ms": 0.4},
    ],
    "ok": True,
}
SICK: dict[str, Any] = {
    "checks": [*DOCTOR["checks"][:1], {"name": "push", "ok": False, "detail": f"netlink: {HOSTILE}", "ms": 15_000}],
    "ok": False,
}
BLOCKED: dict[str, Any] = {
    "decision_id": "D25",
    "text": "Blocked registered domain evil.example for everybody until taken back.",
    "lines": [
        "nftables: 2 addresses in force after 0.4 ms",
        "Seen in history: 10.2.7.11 (48 contacts, the last 3m ago) and 2 more hosts; I6, I7 and I8 were opened",
    ],
}
CUT: dict[str, Any] = {
    "decision_id": "D26",
    "text": "Segment JPS is cut off for 4h.",
    "lines": ["still flows: mail relay 10.2.0.25 by the second line, which this gateway does not see"],
}
PREVIEW: dict[str, Any] = {
    "text": "Would cut segment JPS (10.2.0.0/16, 2001:db8:2::/48) for 4h.",
    "lines": ["212 clients seen today", "established connections are cut, too", HOSTILE],
}


PLAN: dict[str, Any] = {
    "days": 7, "segment": "", "hosts_seen": 212, "hosts": 3, "contacts": 52, "standing": 1, "left_out": 0,
    "rows": [
        {"action": "block", "kind": "registered_domain", "target": "quarterly-news-portal.example", "rule": "confirmed",
         "reason": "", "source": "urlhaus:1204", "threat": "c2", "hosts": 2, "clients": ["10.2.5.41", "10.2.7.11"],
         "segments": ["JPS"], "contacts": 50, "first": at("11-24 01:00:00"), "last": at("11-25 17:14:00"),
         "keeps_nobody": False, "shared": [], "shared_names": 0, "guard": "", "rollback": ""},
        {"action": "block", "kind": "address", "target": "2001:db8:1234:5678:9abc:def0:1234:5678", "rule": "confirmed",
         "reason": "", "source": "list.txt:3", "threat": "c2", "hosts": 1, "clients": ["10.2.5.41"],
         "segments": ["JPS"], "contacts": 2, "first": at("11-24 01:00:00"), "last": at("11-25 17:14:00"),
         "keeps_nobody": True, "shared": [HOSTILE], "shared_names": 3, "guard": "", "rollback": "29 of 212 clients"},
        {"action": "ask", "kind": "registered_domain", "target": HOSTILE, "rule": "shared", "reason": "it is shared",
         "source": "list.txt:9", "threat": "c2", "hosts": 1_234, "clients": ["10.2.5.41"], "segments": ["JPS"],
         "contacts": 1_234_567, "first": at("11-24 01:00:00"), "last": at("11-25 17:14:00"),
         "keeps_nobody": False, "shared": [], "shared_names": 0, "guard": "a platform", "rollback": ""},
    ],
}  # fmt: skip


FEEDS: dict[str, Any] = {
    "feeds": [
        {"name": "urlhaus", "url": "https://urlhaus.example/hostfile", "format": "hosts", "state": "ok",
         "problem": None, "kind": None, "failures": 0, "last_try": at("11-25 17:00:00"),
         "last_ok": at("11-25 17:00:00"), "changed": at("11-25 16:00:00"), "age_s": 884,
         "indicators": 1_204, "added": 31, "removed": 12,
         "quarantined": 0, "bad_lines": 0, "ignored": 0, "hits": 41, "unique_hits": 3, "false_positives": 1,
         "confirmed": 12},
        {"name": "hagezi-tif", "url": "https://lists.example/tif.txt", "format": "adblock", "state": "refused",
         "problem": "its new version is refused: it is a web page or XML, no list; 1,269,113 indicators of before stay"
         " in force", "kind": "page", "failures": 3, "last_try": at("11-25 17:10:00"), "last_ok": at("11-24 03:00:00"),
         "changed": at("11-24 03:00:00"), "age_s": 137_684, "indicators": 1_269_113, "added": 4_012, "removed": 998,
         "quarantined": 12, "bad_lines": 7, "ignored": 40, "hits": 123_456, "unique_hits": 0, "false_positives": 0,
         "confirmed": 0},
        {"name": "partners", "state": "failing", "problem": "no connection: refused\x1b[2J", "last_ok": None},
    ],
    "disabled": ["feodo", "threatfox"],
    "lists_judged": [{"source": "csirt.txt", "false_positives": 2, "confirmed": 40}],
}  # fmt: skip

QUARANTINE: dict[str, Any] = {
    "feeds": [FEEDS["feeds"][1]],
    "quarantine": [
        {"line": 17, "value": "google.com", "kind": "shared",
         "reason": "a shared or popular site listed whole: google.com is a platform (guard.txt:9: all)"},
        {"line": 90_112, "value": "10.0.0.0/8", "kind": "protected", "reason": "10.0.0.0/8 is protected (private use)"},
        {"line": 90_113, "value": HOSTILE, "kind": "bad-line", "reason": f"not a legal name: {HOSTILE}"},
    ],
}  # fmt: skip

# -- what a change of lists would do

CHANGE: dict[str, Any] = {
    "text": "2 of 3 hosts, 10 contacts in 30 days, first 2026-10-16; shared with 2 names", "added": 1, "removed": 1,
    "already": [], "problems": [], "hosts": 2, "hosts_seen": 3, "contacts": 10, "first": at("10-16 08:00:00"),
    "last": at("11-24 08:00:00"), "days": 30, "more": False, "shared": ["a.example", "b.example"], "guards": [],
    "large": False,
    "top": [
        {"client": "10.0.0.5", "name": "www.bad.example", "contacts": 8},
        {"client": "10.0.0.6", "name": "bad.example", "contacts": 2},
    ],
    "lifted": [{"decision_id": "D3", "target": "listed.example", "tries": 41, "clients": 2}],
}  # fmt: skip
CHANGE_LARGE: dict[str, Any] = {
    **CHANGE, "hosts": 140, "hosts_seen": 212, "large": True, "already": ["x.example (csirt.txt:7)", "y" * 90],
    "text": "140 of 212 hosts, 3,210 contacts in 30 days, first 2026-10-21; shared with 37 names; popular.example is "
    "among the 10000 most popular names (top-1m.csv:80: rank 80)",
    "guards": ["popular.example is among the 10000 most popular names (top-1m.csv:80: rank 80)"],
    "problems": ["preview:2:1: not a legal name: " + "z" * 100],
    "shared": [f"n{number}.tenant.example" for number in range(37)],
    "top": [{"client": "2001:db8::1:2:3:4", "name": "a\x1b[2J" + "b" * 250, "contacts": 3_000}],
    "lifted": [{"decision_id": f"D{number}", "target": "w" * 200, "tries": 1, "clients": 1} for number in range(12)],
}  # fmt: skip
