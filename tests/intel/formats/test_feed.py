"""Every format: its sample, line by line; and that nothing but what is declared comes out, whatever the text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.errors import Problem
from egressd.intel.formats import FORMATS, Ignored, read_feed, render_indicator
from egressd.intel.formats.judgement import Found
from egressd.model import Indicator
from tests.intel.formats.scene import SAMPLES, found_in, render_found, rules

FILES = sorted(path for path in SAMPLES.iterdir() if path.suffix != ".golden")


def format_of(path: Path) -> str:
    return re.split(r"[.+]", path.name)[0]


def read(path: Path) -> list[Found]:
    return found_in(path.read_text(encoding="utf-8"), format_of(path), path.name)


def test_every_format_has_a_sample() -> None:
    assert {format_of(path) for path in FILES} == set(FORMATS)
    assert all(FORMATS.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_samples(path: Path) -> None:
    """The golden files were read line by line by a person."""
    golden = path.with_name(path.name + ".golden").read_text(encoding="utf-8")
    assert "".join(render_found(one) + "\n" for one in read(path)) == golden


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".json"], ids=lambda path: path.name)
def test_every_line_that_is_no_comment_is_accounted_for(path: Path) -> None:
    told = {one.line for one in read(path)}
    silent = [
        line
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
        if number not in told
        and line.strip()
        and not re.match(r"#|;|!|\[Ad|\$(TTL|ORIGIN)|\s+\d|trail,info|duration,|id,source|first_seen_utc", line)
    ]
    assert silent == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_was_read_is_the_same_in_our_format(path: Path) -> None:
    """`list convert` loses nothing; only the line, and who narrowed the scope, are others."""
    indicators = [one for one in read(path) if isinstance(one, Indicator)]
    assert indicators
    text = "\n".join(map(render_indicator, indicators))
    again = [one for one in found_in(text, "egressd", path.name) if isinstance(one, Indicator)]
    assert [one._replace(line=0, narrowed="") for one in again] == [
        one._replace(line=0, narrowed="") for one in indicators
    ]


def test_crlf_and_a_byte_order_mark_change_nothing() -> None:
    for path in FILES:
        text = "\ufeff" + path.read_text(encoding="utf-8").replace("\n", "\r\n")
        before = [re.sub(r":\d+ ", " ", render_found(one)) for one in read(path)]
        after = [re.sub(r":\d+ ", " ", render_found(one)) for one in found_in(text, format_of(path), path.name)]
        assert after == before, path.name


def test_a_format_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no such format"):
        read_feed("", "nonsense", "f", rules())
    with pytest.raises(ValueError, match="no such scope"):
        found_in("", "hosts", scope="wide")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "\ufeff\r\n \t\r\n"])
def test_texts_without_a_word(format_: str, text: str) -> None:
    assert found_in(text, format_) == []


def checked(text: str, format_: str) -> list[Found]:
    """Everything found, after a look at each."""
    lines = text.split("\n")
    found = found_in(text, format_)
    for one in found:
        assert type(one) in (Indicator, Problem, Ignored)
        assert 1 <= one.line <= len(lines)
        if isinstance(one, Problem):
            assert str(one).isprintable()
            assert one.what
            assert one.column >= 1
        elif isinstance(one, Indicator):
            assert render_indicator(one).isprintable()
    return found


SAMPLE_TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES}
JUNK = st.sampled_from(
    [
        *"\"'\\{}[]();,:\t \n\r#$=/*.",
        "\x00",
        "\x1b",
        "ü",
        "\ud800",
        "٣",
        "9" * 400,
        "[" * 50,
        "$ORIGIN x.\n",
        "null",
        "1e999",
        "-",
        "@@",
        "|",
        "^",
    ]
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@given(data=st.data())
@settings(max_examples=60)
def test_a_damaged_sample_is_still_accounted_for(path: Path, data: st.DataObject) -> None:
    text = SAMPLE_TEXTS[path]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        text = text[:start] + data.draw(JUNK) + text[end:]
    checked(text, format_of(path))


@pytest.mark.parametrize("format_", FORMATS)
@given(text=st.one_of(st.text(max_size=120), st.lists(JUNK, max_size=30).map("".join)))
@settings(max_examples=60)
def test_any_text_at_all(format_: str, text: str) -> None:
    checked(text, format_)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    "text", ["a" * 200_000, "[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "(" * 10_000, '"' * 9_999, "||" * 50_000]
)
def test_monsters_are_told_and_quickly(format_: str, text: str) -> None:
    assert all(not isinstance(one, Indicator) for one in checked(text, format_))


@pytest.mark.parametrize(
    ("format_", "line"),
    [
        ("hosts", "0.0.0.0 {}"),
        ("adblock", "||{}^"),
        ("dnsmasq", "local=/{}/"),
        ("rpz", "{} CNAME ."),
        ("maltrail", "{}"),
        ("maltrail-csv", "{},x (malware),(static)"),
    ],
)
def test_guard_suffixes_and_protected_addresses_hold_in_every_format(format_: str, line: str) -> None:
    def one(name: str, **changes: object) -> str:
        (found,) = found_in(line.format(name), format_, **changes)
        return render_found(found)

    assert "public suffix" in one("github.io")
    assert "single label" in one("intranet") or "ignored" in one("intranet")
    assert "shared hosting" in one("raw.github.com")
    assert "domain bad.example registered" in one("bad.example")
    assert "domain bad.example exact" in one("bad.example", scope="exact")
    assert "domain github.io exact" in one("github.io", force=True)
    assert "confidence=7" in one("bad.example", confidence=7)
    assert "threat='t'" in one("bad.example", threat="t")
