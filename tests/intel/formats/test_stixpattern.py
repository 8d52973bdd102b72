"""stixpattern: which patterns are lists of destinations, and what is said of the others."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.formats import stixpattern
from egressd.intel.formats.stixpattern import NotTaken, parse_pattern
from egressd.intel.lines import Wrong


@pytest.mark.parametrize(
    ("pattern", "values", "others"),
    [
        ("[domain-name:value = 'bad.example']", ["bad.example"], 0),
        ("[domain-name:value='BAD.example.']", ["bad.example"], 0),
        ("  [ domain-name:value = 'bad.example' ]\n", ["bad.example"], 0),
        ("[domain-name:value = 'a.example' OR domain-name:value = 'b.example']", ["a.example", "b.example"], 0),
        ("[domain-name:value = 'a.example'] OR [ipv4-addr:value = '192.0.2.1']", ["a.example", "192.0.2.1"], 0),
        ("([domain-name:value = 'a.example'] OR [domain-name:value = 'b.example'])", ["a.example", "b.example"], 0),
        ("[(domain-name:value = 'a.example' OR (url:value = 'http://b.example/x'))]", ["a.example", "b.example/x"], 0),
        ("[ipv4-addr:value = '192.0.2.0/24']", ["192.0.2.0/24"], 0),
        ("[ipv4-addr:value ISSUBSET '192.0.2.0/24']", ["192.0.2.0/24"], 0),
        ("[ipv6-addr:value = '2001:db8::1']", ["2001:db8::1"], 0),
        ("[domain-name:value IN ('a.example', 'b.example')]", ["a.example", "b.example"], 0),
        ("[network-traffic:dst_ref.value = '192.0.2.1']", ["192.0.2.1"], 0),
        ("[url:value = 'hxxp://a[.]example/it\\'s']", ["a.example/it's"], 0),
        ("[url:value = 'a.example']", ["a.example/"], 0),
        ("[url:value = 'a\\\\b.example/\\\\']", None, 0),
        ("[file:hashes.'SHA-256' = 'x' OR domain-name:value = 'a.example']", ["a.example"], 1),
        ("[file:hashes.MD5 = 'x']", [], 1),
        ("[email-message:from_ref.value = 'AND']", [], 1),
        ("[process:pid = 7]", [], 1),
        ("[domain-name:resolves_to_refs[*].value = '192.0.2.1']", [], 1),
        ("[email-addr:value = 'it''s']", None, 0),
        ("", None, 0),
        ("[]", None, 0),
        ("domain-name:value = 'a.example'", None, 0),
        ("[domain-name:value = 'a.example'", None, 0),
        ("[domain-name:value = 'a.example'))", None, 0),
        ("[domain-name:value = 'a.example'] OR", None, 0),
        ("[domain-name:value = 'a.example'] [domain-name:value = 'b.example']", None, 0),
        ("[domain-name:value = 'a.example]", None, 0),
        ("[domain-name:value = a.example]", None, 0),
        ("[domain-name:value IN ()]", None, 0),
        ("[domain-name:value IN ('a.example' 'b.example')]", None, 0),
        ("[domain-name:value IN ('a.example',", None, 0),
        ("[domain-name:value = '192.0.2.1']", None, 0),
        ("[ipv4-addr:value = 'a.example']", None, 0),
        ("[domain-name:value = 'a!.example']", None, 0),
        ("[domain-name:value = 'a.example'] \x00", None, 0),
        ("[" * 5000 + "domain-name:value = 'a.example'" + "]" * 5000, ["a.example"], 0),
        ("x" * 100_001, None, 0),
    ],
)
def test_patterns(pattern: str, values: list[str] | None, others: int) -> None:
    if values is None:
        with pytest.raises(Wrong) as caught:
            parse_pattern(pattern)
        assert caught.value.advice
    else:
        entries, beside = parse_pattern(pattern)
        assert ([entry.value for entry in entries], beside) == (values, others)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("[domain-name:value = 'a.example' AND domain-name:value = 'b.example']", stixpattern.CONJUNCTION),
        ("[domain-name:value = 'a.example'] AND [domain-name:value = 'b.example']", stixpattern.CONJUNCTION),
        ("[domain-name:value = 'a.example'] FOLLOWEDBY [domain-name:value = 'b.example']", stixpattern.SEQUENCE),
        ("[domain-name:value = 'a.example'] WITHIN 30 SECONDS", stixpattern.WINDOW),
        ("[domain-name:value = 'a.example'] REPEATS 5 TIMES", stixpattern.WINDOW),
        ("[domain-name:value = 'a.example'] START t'2026-01-01T00:00:00Z' STOP t'2027-01-01T00:00:00Z'",
         stixpattern.WINDOW),
        ("[domain-name:value != 'a.example']", stixpattern.COMPARISON),
        ("[domain-name:value LIKE '%.example']", stixpattern.COMPARISON),
        ("[domain-name:value MATCHES '^a']", stixpattern.COMPARISON),
        ("[NOT domain-name:value = 'a.example']", stixpattern.COMPARISON),
        ("[domain-name:value NOT = 'a.example']", stixpattern.COMPARISON),
        ("[network-traffic:dst_port > 1]", stixpattern.COMPARISON),
        ("[EXISTS domain-name:value]", stixpattern.COMPARISON),
    ],
)  # fmt: skip
def test_patterns_that_say_more_than_any_of_these(pattern: str, reason: str) -> None:
    with pytest.raises(NotTaken, match=reason.replace("(", r"\(").replace(")", r"\)")):
        parse_pattern(pattern)


PIECES = [
    "[",
    "]",
    "(",
    ")",
    " OR ",
    " AND ",
    "domain-name:value",
    "file:name",
    " = ",
    " IN ",
    "'a.example'",
    "'",
    "\\",
    ",",
]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join)))
def test_any_text_is_taken_or_told(text: str) -> None:
    with suppress(Wrong, NotTaken):
        entries, others = parse_pattern(text)
        assert entries or others


@pytest.mark.parametrize("piece", ["a1", "a-1", "-1", "a:'x'", "(", "'x'"])
def test_a_pattern_costs_what_it_is_long(piece: str) -> None:
    """One of MAX_PATTERN characters took half a minute, and a version of a feed holds hundreds."""
    began_s = time.process_time()
    with pytest.raises(Wrong):
        parse_pattern(piece * (stixpattern.MAX_PATTERN // len(piece)))
    assert time.process_time() - began_s < 2
