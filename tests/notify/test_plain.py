"""Whatever came from the wire is one line of ASCII, and no link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.notify.plain import MAX_LINE, defang, escape

HOSTILE = 'evil.example"\n<0>egressd: all is well\x1b[2J\0\u202e\r'


@given(st.text(max_size=3_000))
def test_escaped_text_is_one_line_of_ascii(text: str) -> None:
    safe = escape(text)
    assert safe.isascii() and (safe.isprintable() or not safe) and len(safe) <= MAX_LINE
    if text.isascii() and text.isprintable() and len(text) <= MAX_LINE:
        assert safe == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("c2.evil.example", "c2[.]evil[.]example"),
        ("198.51.100.7", "198[.]51[.]100[.]7"),
        ("http://evil.example/a.b", "hxxp://evil[.]example/a[.]b"),
        ("https://evil.example", "hxxps://evil[.]example"),
        ("2001:db8::1", "2001:db8::1"),
        ("a\x1b.b", "a\\x1b[.]b"),
    ],
)
def test_defang(text: str, safe: str) -> None:
    assert defang(text) == safe
