"""Which files are meant: in order, each once, by patterns; folders that nobody may look into; how many there may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from egressd.config import named_files
from egressd.config.named_files import NamedFiles


def files_in(folder: Path, told: list[tuple[str, str]]) -> NamedFiles:
    return NamedFiles(folder, lambda key, what, advice: told.append((key, what)), {}, frozenset())


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def names_of(folder: Path, *entries: str, but: str = "") -> tuple[list[str], list[tuple[str, str]]]:
    """What is named, and what is wrong."""
    told: list[tuple[str, str]] = []
    return [one.name for one in files_in(folder, told).of("lists", entries, but)], told


def test_lists_in_order_each_once(tmp_path: Path) -> None:
    made(tmp_path, "b/2.txt", "b/1.txt", "b/skip.csv", "a.txt", "extra.txt")
    extra = tmp_path / "extra.txt"
    found = files_in(tmp_path, []).lists(("a.txt", "b/*.txt", "b/1.txt"), (extra, extra))
    assert [(one.key, one.name) for one in found] == [
        ("lists[0]", "a.txt"), ("lists[1]", "b/1.txt"), ("lists[1]", "b/2.txt"), ("", str(extra)),
    ]  # fmt: skip


def test_what_was_a_list_and_is_no_file_now_is_still_meant(tmp_path: Path) -> None:
    """A folder or a pipe in its place counted as a list that somebody took away; others were never meant."""
    made(tmp_path, "a.txt")
    for name in ("b.txt", "c.txt"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "p.txt")
    files = NamedFiles(tmp_path, lambda *_: None, {}, frozenset(), lambda name: name in ("a.txt", "b.txt", "p.txt"))
    assert [one.name for one in files.of("lists", ("*.txt",))] == ["a.txt", "b.txt", "p.txt"]
    assert names_of(tmp_path, "*.txt") == (["a.txt"], [])


def test_some_are_read_elsewhere_and_some_not_at_all(tmp_path: Path) -> None:
    made(tmp_path, "a.txt", "b.txt", "c.txt")
    kept = tmp_path / "kept"
    files = NamedFiles(tmp_path, lambda *_: None, {"b.txt": kept}, {"c.txt"})
    assert [one.path for one in files.of("lists", ("*.txt",))] == [tmp_path / "a.txt", kept]


def test_an_entry_that_is_no_path(tmp_path: Path) -> None:
    made(tmp_path, "a.txt", "shipped")
    assert names_of(tmp_path, "shipped", "a.txt", but="shipped") == (["a.txt"], [])


def test_a_bracket_alone_makes_no_pattern_that_may_match_nothing(tmp_path: Path) -> None:
    """A misspelt name with a bracket in it was an empty folder: no list, and nobody was told."""
    made(tmp_path, "list [old].txt", "list2.txt")
    assert names_of(tmp_path, "list [new].txt") == (["list [new].txt"], [])  # reading it tells
    assert names_of(tmp_path, "list [old].txt", "list[12].txt") == (["list [old].txt", "list2.txt"], [])


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert names_of(tmp_path, "empty/*.txt", "no/*.txt") == ([], [("lists[1]", 'no file matches "no/*.txt"')])


def test_a_folder_that_is_closed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lists would be given free; and the daemon, which looks twice a second, must not end of it."""
    (tmp_path / "d").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    what = 'the folder of "d/*.txt" cannot be read: Permission denied'
    assert names_of(tmp_path, "d/*.txt") == ([], [("lists[0]", what)])
    monkeypatch.setattr(os, "stat", refuse)
    assert names_of(tmp_path, "d/*.txt")[0] == []


def test_a_pattern_that_matches_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_files, "MAX_FILES", 1)
    made(tmp_path, "l.txt", "m.txt", "n.txt", "o.txt")
    looked: list[Path] = []
    monkeypatch.setattr(named_files, "may_be_file", lambda path: looked.append(path) or True)
    assert names_of(tmp_path, "*.txt") == ([], [("lists[0]", '"*.txt" matches over 1 files')])
    assert len(looked) == 2, "no more of them are looked at"


def test_names_of_files_are_shown_safely(tmp_path: Path) -> None:
    made(tmp_path, "a\x1b[31m.txt", "b[1].txt")
    assert names_of(tmp_path, "a*.txt", "b[1].txt") == (["a\\027[31m.txt", "b[1].txt"], [])
