"""Heads outside the ledger: appended, read back, torn lines and steps backwards told."""

from __future__ import annotations

import resource
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.store.errors import IO, StoreError
from egressd.store.heads import Head, append_head, load_heads, parse_head, render_head
from tests.store.scene import T0

HASH = "ab" * 32


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    assert load_heads(path) == ([], [])
    wanted = [Head(seq, f"{seq:064x}", T0 + seq) for seq in (1, 5, 5, 900)]
    for head in wanted:
        append_head(path, head._replace(ts_us=0), head.ts_us)
    assert load_heads(path) == (wanted, [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    append_head(path, Head(1, HASH, 0), T0)
    with path.open("ab") as file:
        file.write(b"\n2 abab")
    append_head(path, Head(3, HASH, 0), T0)
    heads, problems = load_heads(path)
    assert [head.seq for head in heads] == [1, 3]
    assert problems == [f"{path}:4: not a head (number, hash, time)"]


def test_a_ledger_that_went_back_is_told(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    for seq in (1, 9, 4):
        append_head(path, Head(seq, HASH, 0), T0)
    heads, problems = load_heads(path)
    assert len(heads) == 3 and problems == [f"{path}:6: row 4 after row 9: the ledger went back"]


def test_what_cannot_be_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="was not written") as caught:
        append_head(tmp_path / "no" / "heads", Head(1, HASH, 0), T0)
    assert caught.value.kind == IO
    with pytest.raises(StoreError):
        load_heads(tmp_path)


def test_a_head_of_which_a_part_was_written_was_not(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    append_head(path, Head(1, HASH, 0), T0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard)
    )  # room for some of it, as on a full disk
    try:
        with pytest.raises(StoreError, match="was not written") as caught:
            append_head(path, Head(2, HASH, 0), T0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.kind == IO
    append_head(path, Head(3, HASH, 0), T0)
    assert [head.seq for head in load_heads(path)[0]] == [1, 3]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"7 {HASH} 12", Head(7, HASH, 12)),
        (f"7:{HASH.upper()}", Head(7, HASH, 0)),
        (f" 7 {HASH}\n", Head(7, HASH, 0)),
        (f"0 {HASH} 12", None),
        (f"-7 {HASH} 12", None),
        (f"7 {HASH[1:]}g 12", None),
        (f"7 {HASH}", Head(7, HASH, 0)),
        ("7", None),
        (f"7 {HASH} 12 13", None),
    ],
)
def test_heads_as_text(text: str, wanted: Head | None) -> None:
    assert parse_head(text) == wanted


@given(st.text())
def test_any_text_is_a_head_or_none(text: str) -> None:
    head = parse_head(text)
    assert head is None or parse_head(render_head(head)) == head
