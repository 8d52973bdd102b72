"""jsontext: against the standard decoder, and places."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.formats.jsontext import JsonText
from egressd.intel.lines import Wrong

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=12,
)


def walked(document: JsonText) -> Any:
    """The whole value by walking only."""
    first = document.peek()
    if first == "{":
        return {key: walked(document) for key in document.members()}
    if first == "[":
        return [walked(document) for _ in document.elements()]
    return document.value()


@given(VALUES, st.sampled_from([None, 1, "\t"]))
def test_walking_gives_what_the_standard_decoder_gives(value: Any, indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent)
    document = JsonText(text)
    assert walked(document) == value
    document.end()
    assert JsonText(text).value() == value


@given(VALUES, st.data())
def test_a_cut_text_is_wrong(value: Any, data: st.DataObject) -> None:
    text = json.dumps([value])
    with pytest.raises(Wrong):
        walked(JsonText(text[: data.draw(st.integers(0, len(text) - 1))]))


def test_what_is_not_asked_for_is_skipped() -> None:
    document = JsonText('{"a": [1, {"b": 2}], "c": 3, "d": "e"}')
    assert [document.value() for key in document.members() if key == "c"] == [3]
    document.end()


def test_places() -> None:
    document = JsonText('\ufeff[\n  {"a": 1},\n\n {"a": 2}, 7\n]')
    assert [(one.line, one.column, one.get("a")) for one in document.records(1)] == [
        (2, 3, "1"),
        (4, 2, "2"),
        (4, 12, ""),
    ]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("[1,\n2,\n  x]", 3, 3),
        ('{"a" 1}', 1, 6),
        ("{1: 2}", 1, 2),
        ("[1 2]", 1, 4),
        ("[", 1, 2),
        ("", 1, 1),
        ("[" + "9" * 5000 + "]", 1, 2),
        ("[" * 100_000, 1, 2),
        ('["\x00"]', 1, 3),
    ],
)
def test_where_it_is_wrong(text: str, line: int, column: int) -> None:
    document = JsonText(text)
    with pytest.raises(Wrong) as caught:
        for _ in document.members() if text[:1] == "{" else document.elements():
            document.value()
    assert (document.line, caught.value.column) == (line, column)
    assert caught.value.advice
