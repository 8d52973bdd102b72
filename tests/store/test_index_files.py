"""index_files: whole or not there, the last three kept, opened again by who it is sent to."""

from __future__ import annotations

import json
import os
import pickle
from functools import partial
from pathlib import Path

import pytest

from egressd.errors import IndexDamaged
from egressd.intel.index import Index
from egressd.intel.index_format import suffix_digest
from egressd.intel.layered import LayeredIndex
from egressd.intel.mapped_build import IndexBuilder
from egressd.store.index_files import KEPT, IndexFolder, ScratchFile, load_story, open_index, warm
from tests.intel.index_scene import SALT, SUFFIXES
from tests.intel.test_mapped import a_domain


def write(folder: IndexFolder, name: str = "bad.com", built_from: str = "x") -> Path:
    builder = IndexBuilder(SALT, suffix_digest("test"), 0, partial(ScratchFile, folder.folder))
    builder.extend([a_domain(name, "registered")])
    return folder.write(builder.write, {"built_from": built_from})


def test_written_found_and_opened(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "new")
    path = write(folder)
    assert path.name == "index-1.idx"
    found = folder.find("x", SUFFIXES)
    assert found is not None and found[0].match_name("www.bad.com", 0) is not None
    assert found[0].match_name("www.fine.com", 0) is None
    assert folder.find("y", SUFFIXES) is None
    warm(str(path))
    warm(str(tmp_path / "missing"))
    assert sorted(one.name for one in folder.folder.iterdir()) == ["index-1.idx", "index-1.json"]


def test_the_last_are_kept_and_an_open_one_answers_for_ever(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path)
    first = open_index(str(write(folder)), b"", SUFFIXES)
    (tmp_path / "999999.building").write_bytes(b"left behind")
    (tmp_path / f"{os.getppid()}.building").write_bytes(b"somebody is at it")
    for number in range(4):
        write(folder, f"n{number}.com", str(number))
    names = {path.name for path in tmp_path.glob("*.idx")}
    assert names == {f"index-{number}.idx" for number in range(3, 3 + KEPT)}
    assert [path.name for path in tmp_path.glob("*.building")] == [f"{os.getppid()}.building"]
    assert first.match_name("bad.com", 0) is not None


def test_sent_to_another_process_it_is_opened_there(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path)
    path = write(folder)
    upper = Index.build([a_domain("worse.com", "registered")], SUFFIXES)
    body = pickle.dumps(LayeredIndex(upper, (open_index(str(path), b"", SUFFIXES),), SUFFIXES))
    arrived = pickle.loads(body)
    assert arrived.match_name("a.bad.com", 0).level == arrived.match_name("a.worse.com", 0).level == "host"
    assert pickle.loads(pickle.dumps(arrived)).size == 2
    path.write_bytes(write(folder, "other.com").read_bytes())
    with pytest.raises(IndexDamaged, match="another index"):
        pickle.loads(body)
    path.unlink()
    with pytest.raises(IndexDamaged, match="No such file"):
        pickle.loads(body)


def test_what_cannot_be_used_is_passed_over(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path)
    good = write(folder)
    newer = write(folder)
    newer.write_bytes(b"short")
    write(folder).unlink()
    (tmp_path / "index-x.idx").write_bytes(b"")
    found = folder.find("x", SUFFIXES)
    assert found is not None and found[0].reopen is not None and found[0].reopen[1][0] == str(good)
    for story in ("", "[]", "{", "\xff", "[" * 100_000):
        good.with_suffix(".json").write_text(story, encoding="latin-1")
        assert load_story(good.with_suffix(".json")) == {}
    good.with_suffix(".json").write_text(json.dumps({"built_from": "x", "digest": "00" * 16}))
    assert folder.find("x", SUFFIXES) is None


def test_in_a_folder_that_was_closed_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    folder = IndexFolder(tmp_path)
    monkeypatch.setattr(Path, "glob", refused)
    folder.sweep()
    assert folder.find("lists of today", SUFFIXES) is None


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(_: object) -> object:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        IndexFolder(tmp_path).write(fails, {})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_file_is_read_by_place_and_has_no_name(tmp_path: Path) -> None:
    scratch = ScratchFile(tmp_path / "new")
    places = [scratch.append(packed) for packed in (b"one", b"", b"two" * 100_000)]
    assert places == [0, 3, 3]
    assert (scratch.read(3, 3), scratch.read(0, 3), len(scratch.read(3, 300_000))) == (b"two", b"one", 300_000)
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(OSError, match="cut off"):
        scratch.read(300_000, 10)
    scratch.close()
