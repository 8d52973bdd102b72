"""Changes of a list's text: what must change does, every other byte stays, two people's changes become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.allowances import parse_allowances
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.lines import Wrong
from egressd.intel.list_edit import (
    Note,
    add_line,
    complete_allowance,
    complete_line,
    find_lines,
    merge,
    parse_wanted,
    remove_lines,
)
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse("com\nexample\njp\n")
NOTE = Note("2026-11-25", "anna", "beacons seen")
LINES = st.sampled_from(
    ["# bad.example", "", "a.example", "*.bad2.example # bad.example",
     "bad.example.com", "198.51.100.7 ref=bad.example",
     "\tc.example  threat=\"two words\"", "!", "broken line here", "0.0.0.0 d.example e.example", "x" * 5_000]
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r\n"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    end = draw(ENDS)
    text = draw(st.sampled_from(["", "\ufeff"])) + "".join(line + end for line in draw(st.lists(LINES, max_size=8)))
    return text.removesuffix(end) if draw(st.booleans()) else text


# -- one line


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("bad.example", "bad.example owner=anna # 2026-11-25 anna: beacons seen"),
        (" bad.example  ref=1 ", "bad.example  ref=1 owner=anna # 2026-11-25 anna: beacons seen"),
        ("bad.example owner=noc # old", "bad.example owner=noc # 2026-11-25 anna: beacons seen; old"),
        ("http://bad.example/a#b # c # d", "http://bad.example/a#b owner=anna # 2026-11-25 anna: beacons seen; c # d"),
        ("0.0.0.0 a.example b.example", "0.0.0.0 a.example b.example owner=anna # 2026-11-25 anna: beacons seen"),
        ('bad.example threat="a # b" #', 'bad.example threat="a # b" owner=anna # 2026-11-25 anna: beacons seen'),
    ],
)
def test_a_line_says_who_and_why(line: str, completed: str) -> None:
    assert complete_line(line, NOTE) == completed
    assert parse_list(completed, "l", SUFFIXES, Guard({}, {}))[1] == []


def test_force_is_added_once() -> None:
    assert complete_line("com", NOTE, force=True).startswith("com owner=anna force=yes # ")
    assert complete_line("com force=no", NOTE, force=True).startswith("com force=no owner=anna # ")


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("", 1), ("# bad.example", 1), ("!", 1), ("bad.example scop=host", 13), ("bad!.example", 1), ("a b", 3),
        ('bad.example threat="x', 13), ("bad.example\nworse.example", 12), ("bad.example # \x1b[2J", 15),
        ("127.0.0.1 localhost", 1),
    ],
)  # fmt: skip
def test_what_is_no_line(line: str, column: int) -> None:
    with pytest.raises(Wrong) as wrong:
        complete_line(line, NOTE)
    assert wrong.value.column == column


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("never-block 198.51.100.9", 'never-block 198.51.100.9 owner=anna reason="beacons seen" # 2026-11-25 anna'),
        (
            "allow-destination a.example reason=lab owner=bob client=192.0.2.7 # x",
            "allow-destination a.example reason=lab owner=bob client=192.0.2.7 # 2026-11-25 anna: beacons seen; x",
        ),
    ],
)
def test_an_allowance_says_who_and_why(line: str, completed: str) -> None:
    assert complete_allowance(line, NOTE) == completed
    assert parse_allowances(completed, "a", SUFFIXES)[1] == []


def test_quotes_in_a_reason_do_not_end_it() -> None:
    line = complete_allowance("never-block 198.51.100.9", NOTE._replace(why='the "partner"'))
    ((one,), problems) = parse_allowances(line, "a", SUFFIXES)
    assert (one.reason, problems) == ("the 'partner'", [])


@pytest.mark.parametrize("line", ["", "bad.example", "allow everything", "never-block a.example scope=host"])
def test_what_is_no_allowance(line: str) -> None:
    with pytest.raises(Wrong):
        complete_allowance(line, NOTE)


# -- finding and taking out


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("bad.example", [1, 2, 3, 5, 6]), ("*.bad.example", [5]), ("BAD[.]example.", [1, 2, 3, 5, 6]),
        ("198.51.100.7", [7]), ("198.51.100.7/32", [7]), ("198.51.100.0/24", [8]), ("hxxp://bad.example/x", [9]),
        ("www.bad.example", []), ("c.example", [6]),
    ],
)  # fmt: skip
def test_lines_are_found_in_every_spelling(value: str, lines: list[int]) -> None:
    text = (
        "\ufeffbad.example\r\nBad.Example. scop=typo\n||bad.example^\n# bad.example\n*.bad[.]example ref=x # y\n"
        "0.0.0.0 c.example bad.example\n198.51.100.7\n198.51.100.0/24\nhttp://bad.example/x\nbad.example what is this\n"
    )
    assert [one.number for one in find_lines(text, parse_wanted(value))] == lines


def test_what_is_taken_out_leaves_a_note() -> None:
    text = "# head\r\n\r\nBad[.]example ref=1 # why\r\nworse.example"
    kept, found = remove_lines(text, parse_wanted("bad.example"), NOTE)
    assert kept == "# head\r\n\r\n# removed 2026-11-25 anna: bad.example: beacons seen\r\nworse.example"
    assert [(one.number, one.line) for one in found] == [(3, "Bad[.]example ref=1 # why")]
    assert remove_lines(text, parse_wanted("worse.example"))[0] == "# head\r\n\r\nBad[.]example ref=1 # why\r\n"
    assert remove_lines(text, parse_wanted("none.example"), NOTE) == (text, [])


def test_of_a_line_of_several_names_one_goes() -> None:
    text = "0.0.0.0 a.example\tbad.example  b.example # c"
    note = "# removed 2026-11-25 anna: bad.example: beacons seen"
    assert remove_lines(text, parse_wanted("bad.example"))[0] == "0.0.0.0 a.example  b.example # c"
    assert remove_lines(text, parse_wanted("bad.example"), NOTE)[0] == f"0.0.0.0 a.example  b.example # c\n{note}"
    assert remove_lines("0.0.0.0 bad.example BAD.example", parse_wanted("bad.example"))[0] == ""


def test_allowances_are_found_by_kind_value_and_client() -> None:
    text = (
        "never-block 198.51.100.9 owner=a reason=b\nallow-destination 198.51.100.9 owner=a reason=b client=192.0.2.7\n"
        "allow-destination 198.51.100.9 owner=a reason=b\n198.51.100.9\n# never-block 198.51.100.9\n"
    )
    for value, lines in {
        "198.51.100.9": [1, 2, 3],
        "never-block 198.51.100.9": [1],
        "allow-destination 198.51.100.9": [2, 3],
        "allow-destination 198.51.100.9 client=192.0.2.7": [2],
        "198.51.100.8": [],
    }.items():
        wanted = parse_wanted(value, allow=True)
        assert [one.number for one in find_lines(text, wanted)] == lines
        assert wanted.shown == value


@pytest.mark.parametrize(
    ("value", "allow"),
    [("", False), ("a b", False), ("a.example scope=host", False), ("never-block", True), ("a.example b=c", True),
     ("a.example client=b.example", True), ("bad!", False)],
)  # fmt: skip
def test_what_no_line_can_name(value: str, allow: bool) -> None:
    with pytest.raises(Wrong):
        parse_wanted(value, allow=allow)


@given(texts())
def test_what_was_added_can_be_taken_out_again(text: str) -> None:
    added = add_line(text, complete_line("bad.example", NOTE))
    kept, found = remove_lines(added, parse_wanted("bad.example"))
    assert len(found) == 1
    assert kept == text or (not text.endswith("\n") and kept in (text + "\n", text + "\r\n"))
    assert added.startswith(text) and added.endswith("\n")
    if "\r\n" in text:
        assert added.count("\r\n") == added.count("\n")


@given(texts(), st.sampled_from(["a.example", "198.51.100.7", "c.example", "d.example", "bad2.example"]))
def test_only_what_is_named_goes(text: str, value: str) -> None:
    wanted = parse_wanted(value)
    kept, found = remove_lines(text, wanted, NOTE)
    assert find_lines(kept, wanted) == []
    numbers = {one.number for one in found if one.whole}
    before, after = text.split("\n"), kept.split("\n")
    if all(one.whole for one in found):
        assert len(before) == len(after)
        assert all(a == b for n, (a, b) in enumerate(zip(before, after, strict=True), 1) if n not in numbers)

    def listed(text: str) -> list[tuple[str, str]]:
        return [(one.kind, one.value) for one in parse_list(text, "l", SUFFIXES, Guard({}, {}))[0]]

    assert listed(kept) == [one for one in listed(text) if one[1] != value]


@given(st.text(max_size=200), st.text(max_size=60))
def test_nothing_but_wrong_leaves(text: str, typed: str) -> None:
    for allow in (False, True):
        try:
            wanted = parse_wanted(typed, allow=allow)
        except Wrong:
            continue
        assert "\x1b" not in wanted.shown
        remove_lines(text, wanted, NOTE)
    for complete in (complete_line, complete_allowance):
        try:
            line = complete(typed, NOTE)
        except Wrong:
            continue
        assert "\n" not in line and "\r" not in line


# -- two changes of one text


@pytest.mark.parametrize(
    ("base", "theirs", "ours", "merged"),
    [
        ("a\nb\nc\n", "a\nB\nc\n", "a\nb\nc\nd\n", "a\nB\nc\nd\n"),
        ("a\nb\n", "a\nb\nc\n", "a\nb\nd\n", "a\nb\nc\nd\n"),
        ("a\nb\n", "a\nb\nc\n", "a\nb\nc\n", "a\nb\nc\n"),
        ("a\nb", "a\nb\nc\n", "x\na\nb", "x\na\nb\nc\n"),
        ("a\nb\nc\n", "a\nc\n", "a\nB\nc\n", None),
        ("a\nb\nc\n", "a\nc\n", "a\nc\nd\n", "a\nc\nd\n"),
        ("a\nb\nc\n", "\n", "a\nx\nb\nc\n", None),
        ("", "a\n", "b\n", "a\nb\n"),
        ("a\n", "a\n", "b\n", "b\n"),
        ("a\n", "", "a\nb\n", "b\n"),
    ],
)
def test_changes_of_two_people(base: str, theirs: str, ours: str, merged: str | None) -> None:
    assert merge(base, theirs, ours) == merged


SMALL = st.lists(st.sampled_from("abcdef"), max_size=8).map(lambda lines: "".join(line + "\n" for line in lines))


@given(SMALL, SMALL, SMALL)
def test_merging_loses_no_line(base: str, theirs: str, ours: str) -> None:
    assert merge(base, theirs, base) == theirs
    assert merge(base, base, ours) == ours
    assert merge(base, ours, ours) == ours
    merged = merge(base, theirs, ours)
    if merged is not None:
        new = {line.upper() for line in (theirs + ours).split()} - {line.upper() for line in base.split()}
        assert new <= {line.upper() for line in merged.split()}


@given(SMALL, st.lists(st.sampled_from("xyz"), min_size=1), st.lists(st.sampled_from("uvw"), min_size=1))
def test_what_both_add_at_the_end_is_kept(base: str, theirs: list[str], ours: list[str]) -> None:
    first, second = ("".join(line + "\n" for line in lines) for lines in (theirs, ours))
    assert merge(base, base + first, base + second) == base + first + second
