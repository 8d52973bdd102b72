"""The last good content of lists: found again, replaced whole, and only of lists that are there."""

from __future__ import annotations

from pathlib import Path

from egressd.store.last_good import LastGood


def test_what_was_good_is_found_again(tmp_path: Path) -> None:
    folder = LastGood(tmp_path / "state" / "good")
    source = tmp_path / "a.txt"
    assert folder.find("a.txt") is None
    source.write_text("bad.example\n")
    folder.keep("a.txt", source)
    source.write_text("broken !!\n")
    found = LastGood(tmp_path / "state" / "good").find("a.txt")
    assert found is not None
    assert found.read_text() == "bad.example\n"
    assert folder.find("b.txt") is None


def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    folder = LastGood(tmp_path / "good")
    source = tmp_path / "a.txt"
    source.write_text("bad.example\n")
    folder.keep("a.txt", source)
    first = folder.find("a.txt")
    assert first is not None
    before = first.stat().st_ino
    folder.keep("a.txt", source)
    assert first.stat().st_ino == before
    source.write_text("worse.example\n")
    folder.keep("a.txt", source)
    assert first.read_text() == "worse.example\n"


def test_lists_that_are_gone_leave_nothing(tmp_path: Path) -> None:
    folder = LastGood(tmp_path / "good")
    source = tmp_path / "a.txt"
    source.write_text("bad.example\n")
    for name in ("a.txt", "lists.d/b.txt", "../strange"):
        folder.keep(name, source)
    folder.forget_others(["a.txt"])
    assert folder.find("a.txt") is not None
    assert len(list((tmp_path / "good").iterdir())) == 1


def test_trouble_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("a file where the folder should be")
    folder = LastGood(tmp_path / "good")
    folder.keep("a.txt", tmp_path / "good")
    folder.keep("a.txt", tmp_path / "no such file")
    folder.forget_others([])
    assert folder.find("a.txt") is None


def test_what_was_in_the_way_is_told(tmp_path: Path) -> None:
    folder = LastGood(tmp_path / "good")
    source = tmp_path / "a.txt"
    source.write_text("bad.example\n")
    folder.keep("a.txt", source)
    assert folder.trouble == ""
    found = folder.find("a.txt")
    assert found is not None
    found.unlink()
    found.mkdir()
    folder.keep("a.txt", source)
    assert folder.trouble == "Is a directory"
