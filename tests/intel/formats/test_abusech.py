"""abusech: columns in another order, answers that are errors, and lists that are empty for a good reason."""

from __future__ import annotations

import json

import pytest

from tests.intel.formats.scene import found_in, render_found


def told(text: str, format_: str) -> list[str]:
    return [render_found(one) for one in found_in(text, format_)]


def test_columns_are_found_by_their_names() -> None:
    header = '# "is_compromised","threat_type","ioc_type","new column","ioc_value"'
    text = header + '\n"0","botnet_cc","domain","","bad.example"\n'
    assert told(text, "threatfox") == ["2 domain bad.example registered"]
    assert told("malware,dst_ip,c2_status\nX,198.51.100.1,online\n", "feodo") == [
        "2 address 198.51.100.1 exact threat='X'"
    ]


def test_without_a_header_nothing_is_guessed() -> None:
    (found,) = told('"1","2026-01-02 03:04:05","http://bad.example/x","online"\n', "urlhaus")
    assert found == "1:1 problem: a record before any header"


@pytest.mark.parametrize(
    "text", ["# nothing known\nfirst_seen_utc,dst_ip,dst_port,c2_status,last_online,malware\n", "[]"]
)
def test_feodo_may_be_empty(text: str) -> None:
    assert told(text, "feodo") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"query_status": "ok", "data": []}', []),
        ("{}", []),
        ('{"error": "Unauthorized"}', ["1:26 problem: no list of records in it"]),
        (json.dumps({"query_status": "ok", "data": [
            {"ioc": "198.51.100.1:80", "ioc_type": "ip:port", "threat_type": "botnet_cc", "malware": "x", "tags": None,
             "first_seen": "2026-01-02 03:04:05 UTC", "confidence_level": 50}]}),
         ["1 address 198.51.100.1 exact threat='x' confidence=50 first_seen=2026-01-02T03:04:05Z ref='port 80'"]),
    ],
)  # fmt: skip
def test_answers_of_the_api(text: str, expected: list[str]) -> None:
    assert told(text, "threatfox") == expected
