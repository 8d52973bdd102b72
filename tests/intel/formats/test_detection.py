"""detection: the samples, texts that only hint at a format, and what stays ours."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.formats import FORMATS, detect_format
from tests.intel.formats.scene import SAMPLES


@pytest.mark.parametrize(
    "path", sorted(path for path in SAMPLES.iterdir() if path.suffix != ".golden"), ids=lambda path: path.name
)
def test_samples(path: Path) -> None:
    name = path.name
    text = path.read_text(encoding="utf-8")
    assert detect_format(text) == re.split(r"[.+]", name)[0]
    assert detect_format("\ufeff" + text.replace("\n", "\r\n")) == detect_format(text)


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        ("", "egressd"),
        ("bad.example\nworse.example\n", "egressd"),
        ("# comment\n192.0.2.1\n", "egressd"),
        ("bad.example threat=x\n||ads.example^\n0.0.0.0 one.example\n", "egressd"),
        ("0.0.0.0 one.example\n", "hosts"),
        ("# title\n127.0.0.1 localhost\n", "hosts"),
        ("||bad.example^\n", "adblock"),
        ("! title\nbad.example\n", "adblock"),
        ("@@||good.example^\n", "adblock"),
        ("local=/bad.example/\n", "dnsmasq"),
        ("$TTL 60\n", "rpz"),
        ("bad.example CNAME .\n", "rpz"),
        ("; why threat=x is here\nbad.example CNAME .\n", "rpz"),
        ("; found by CNAME cloaking\nbad.example\n", "egressd"),
        ("bad.example ; found by CNAME cloaking\n", "egressd"),
        ("bad.example 60 IN CNAME .\n", "rpz"),
        ("198.51.100.1:443\n", "maltrail"),
        ("# Reference: https://report.example/\nbad.example\n", "maltrail"),
        ("bad.example,family (malware),(static)\n", "maltrail-csv"),
        ("first_seen_utc,dst_ip,dst_port,c2_status,last_online,malware\n", "feodo"),
        ("#fields\tindicator\tindicator_type\n", "zeek"),
        (b64encode(b"bad.example").decode(), "suricata"),
        ("scope,value\nip,192.0.2.1\n", "crowdsec"),
        ('{"Event": {}}', "misp"),
        ('{"more": false, "objects": []}', "stix"),
        ('{"query_status": "ok", "data": []}', "threatfox"),
        ('{"new": null, "deleted": null}', "crowdsec"),
        ("{}", "egressd"),
        ("[]", "egressd"),
        ('{"a": 1}', "egressd"),
        ("[Adblock Plus 2.0]\n", "adblock"),
        ("x" * 70_000 + "\nlocal=/bad.example/", "egressd"),
        (json.dumps({"a": "x" * 70_000, "Event": {}}), "egressd"),
    ],
)
def test_hints(text: str, format_: str) -> None:
    assert detect_format(text) == format_


@given(st.text(max_size=200))
def test_any_text_has_one(text: str) -> None:
    assert detect_format(text) in FORMATS
