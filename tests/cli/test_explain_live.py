"""The daemon's answer about a name, on a terminal of 80 columns, whatever stands in it."""

from __future__ import annotations

from typing import Any

from egressd.cli.client import Answer
from egressd.cli.explain_live import render_live

TOLD: dict[str, Any] = {
    "listed": True, "match_level": "sibling", "registered_domain": "listed.example", "suffix_rule": "example",
    "indicator": {
        "value": "c2.listed.example", "source": "urlhaus", "line": 4711, "scope": "registered", "narrowed": "",
        "threat": "c2", "confidence": 75, "ref": "", "owner": "", "added_s": 0, "expires_s": 0,
        "first_seen_s": 1_790_000_000,
    },
    "feed": {
        "name": "urlhaus", "state": "ok", "indicators": 120_000, "hits": 7, "unique_hits": 3, "false_positives": 1,
        "confirmed": 2,
    },
    "also": ["csirt.txt:3"],
    "decision": {
        "id": "D4", "state": "active", "author": "policy", "reason": "listed",
        "targets": ["registered_domain listed.example"],
    },
    "incidents": [
        {"id": "I3", "client": "10.2.7.11", "contacts": 12, "attempts": 9, "last": "2026-11-25T17:14:00.000000+0000"}
    ],
    "guard": "", "protected": "", "allowance": "", "would": "block registered domain listed.example", "untold": "",
    "rules": ["confidence: not, confidence 0 to 49: it is 75", "level-sibling: decides, block"],
}  # fmt: skip


def test_the_whole_chain() -> None:
    lines = render_live("www.listed.example", Answer(TOLD, "enforce", 1, "", ()))
    assert lines == [
        "www.listed.example: LISTED, match level sibling",
        "  registered domain  listed.example",
        "  suffix rule        example",
        "  indicator          c2.listed.example",
        "  from               urlhaus:4711",
        "  also in            csirt.txt:3",
        "  says               confidence 75, threat c2, first seen 2026-09-21",
        "  scope              registered",
        "  feed               urlhaus: ok, 120,000 indicators; 7 contacts met, 3 by it",
        "                     alone; judged wrong 1 and right 2 times",
        "  would              block registered domain listed.example",
        "  rule               confidence: not, confidence 0 to 49: it is 75",
        "  rule               level-sibling: decides, block",
        "  decision           D4 active, by policy",
        "  because            listed",
        "  covers             registered_domain listed.example",
        "  incident           I3 10.2.7.11: 12 contacts, 9 after the decision, last",
        "                     11-25 17:14",
        "  mode               enforce",
    ]


def test_hostile_and_odd_answers() -> None:
    hostile = TOLD | {
        "would": "\x1b[31mred",
        "also": ["\x07.txt:1"],
        "indicator": TOLD["indicator"] | {"expires_s": 10**17},
    }
    text = "\n".join(render_live("\x1b.example", Answer(hostile, "enforce", 1, "", ())))
    assert "\x1b" not in text and "\x07" not in text
    assert "until at no time" in " ".join(text.split())
    odd: dict[str, Any] = {"listed": True, "indicator": 5, "feed": [], "incidents": {}, "also": 3, "decision": "x"}
    assert render_live("a.example", Answer(odd, "enforce", 1, "", ()))[0] == "a.example: LISTED, match level "
    assert render_live("a.example", Answer({}, "monitor", 1, "", ())) == [
        "a.example: not listed",
        "  mode               monitor",
    ]
