"""index_build: long lists become a file, once; short ones stay in memory; all of them answer as before."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from egressd.config import large_lists
from egressd.config.large_lists import ListFile, choose_large
from egressd.errors import ConfigError
from egressd.intel.layered import LayeredIndex
from egressd.runtime import index_build
from egressd.runtime.knowledge import Loaded, Surroundings, combine, files_lost, load_texts
from tests.runtime.test_knowledge import entry

NOTHING = Surroundings((), frozenset())
LONG = "".join(f"www.n{number}.example threat=t{number % 3}\n" for number in range(200))


@pytest.fixture(autouse=True)
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_lists, "SMALL_BYTES", 1_000)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for every child that was started."""
    started: list[Any] = []
    really = subprocess.run

    def run(*args: Any, **more: Any) -> Any:
        started.append(args)
        return really(*args, **more)

    monkeypatch.setattr(subprocess, "run", run)
    return started


def site(folder: Path, long: str = LONG, short: str = "c2.bad.example threat=case\n", more: str = "") -> Path:
    (folder / "feed.txt").write_text(long, encoding="utf-8")
    (folder / "csirt.txt").write_text(short)
    path = folder / "egressd.yaml"
    path.write_text(f"lists: [feed.txt, csirt.txt]\nstate:\n  directory: state\n{more}")
    return path


def level(loaded: Loaded, name: str) -> str:
    match = loaded.texts.intel.index.match_name(name, 1_800_000_000)
    return f"{match.level} {match.indicator.source}:{match.indicator.line}" if match is not None else ""


def test_a_file_that_somebody_took_away_is_missed_and_built_anew(tmp_path: Path, builds: list[Any]) -> None:
    loaded = load_texts(site(tmp_path))
    index = loaded.texts.intel.index
    assert files_lost(index) == []
    for path in (tmp_path / "state" / "indexes").iterdir():
        path.unlink()
    assert files_lost(index) == ["index-1.idx"]
    assert level(loaded, "n7.example")  # who has it open goes on
    again = load_texts(site(tmp_path))
    assert files_lost(again.texts.intel.index) == []
    assert len(builds) == 2


def test_long_lists_lie_in_a_file(tmp_path: Path, builds: list[Any]) -> None:
    loaded = load_texts(site(tmp_path))
    index = loaded.texts.intel.index
    assert isinstance(index, LayeredIndex)
    assert (index.upper.size, index.lowers[0].size, index.size) == (1, 200, 201)
    assert [(one.name, one.indicators) for one in loaded.texts.lists] == [("feed.txt", 200), ("csirt.txt", 1)]
    assert level(loaded, "mail.n7.example") == "sibling feed.txt:8"
    assert level(loaded, "c2.bad.example") == "host csirt.txt:1"
    assert level(loaded, "n7.fine.example") == ""
    assert len(builds) == 1
    assert sorted(path.name for path in index_build.index_folder(tmp_path / "state").iterdir()) == [
        "index-1.idx",
        "index-1.json",
    ]


def test_built_anew_only_when_a_long_list_changes(tmp_path: Path, builds: list[Any]) -> None:
    load_texts(site(tmp_path))
    loaded = load_texts(site(tmp_path, short="c2.bad.example\nc3.bad.example\n"))
    assert level(loaded, "c3.bad.example") == "host csirt.txt:2"
    assert loaded.texts.lists[0].indicators == 200
    assert len(builds) == 1
    loaded = load_texts(site(tmp_path, LONG + "new.example\n"))
    assert level(loaded, "new.example") == "host feed.txt:201"
    assert len(builds) == 2
    loaded = load_texts(site(tmp_path))  # as it was: that one is still there
    assert level(loaded, "new.example") == ""
    assert len(builds) == 2


@pytest.mark.parametrize("more", ["own_domains: [n7.example]\n", "nat64_prefixes: ['2001:db8::/96']\n"])
def test_what_decides_how_lines_are_read_counts_too(tmp_path: Path, builds: list[Any], more: str) -> None:
    load_texts(site(tmp_path))
    loaded = load_texts(site(tmp_path, more=more))
    assert len(builds) == 2
    assert level(loaded, "mail.n7.example") == ("" if "own" in more else "sibling feed.txt:8")


def test_what_operators_add_leaves_the_file_alone(tmp_path: Path, builds: list[Any]) -> None:
    loaded = load_texts(site(tmp_path))
    knowledge = combine(loaded, (entry("worse.example"),), NOTHING, "monitor")
    index = knowledge.intel.index
    assert isinstance(index, LayeredIndex) and isinstance(loaded.texts.intel.index, LayeredIndex)
    assert index.lowers == loaded.texts.intel.index.lowers
    assert index.match_name("worse.example", 1_800_000_000) is not None
    assert len(builds) == 1


def test_problems_are_told_as_those_of_short_lists(tmp_path: Path, builds: list[Any]) -> None:
    path = site(tmp_path, LONG + "com\n")
    for _ in range(2):  # the second time from what was kept
        with pytest.raises(ConfigError, match=r"feed\.txt:201:1: .* public suffix"):
            load_texts(path)
    assert len(builds) == 1
    site(tmp_path)
    (tmp_path / "feed.txt").write_bytes(LONG.encode() + b"\xff\n")
    with pytest.raises(ConfigError, match=r"feed\.txt:201:1: .* not UTF-8"):
        load_texts(path)
    (tmp_path / "feed.txt").write_bytes(b"\x1f\x8b" + LONG.encode())
    with pytest.raises(ConfigError, match=r'egressd\.yaml:1:\d+: lists\[0\]: "feed\.txt" is compressed'):
        load_texts(path)


def test_of_very_many_problems_the_first_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_texts(site(tmp_path, "com\n" * 3 + "x y\n" * 1_200))
    told = caught.value.problems
    assert len(told) == index_build.MAX_PROBLEMS_TOLD + 1
    assert str(told[-1]) == "feed.txt: and 203 lines more that cannot be used; mend these first"


def test_where_no_index_can_be_built_the_lists_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = site(tmp_path)
    (tmp_path / "state").write_text("not a directory")
    with pytest.raises(ConfigError, match="could not be made an index; see what was logged above"):
        load_texts(path)
    assert "no index could be written: Not a directory" in capfd.readouterr().err


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressd.runtime.child.MAX_S", 0.0)
    with pytest.raises(ConfigError, match="it took longer than 0 s"):
        load_texts(site(tmp_path))


@pytest.mark.parametrize(
    ("sizes", "large"),
    [
        ([400, 500], []),
        ([600, 500], [0]),
        ([500, 600], [1]),
        ([5_000, 800, 300], [0, 1]),
        ([900, 50, 900, 50], [0]),
        ([900, 901, 900, 50], [0, 1]),
    ],
)
def test_the_longest_go_until_the_rest_is_short(tmp_path: Path, sizes: list[int], large: list[int]) -> None:
    files = []
    for number, size in enumerate(sizes):
        path = tmp_path / str(number)
        path.write_bytes(bytes(size))
        files.append(ListFile("", str(number), path))
    files += [ListFile("", "missing", tmp_path / "missing"), ListFile("", "folder", tmp_path)]
    assert [int(one.name) for one in choose_large(files)] == large


def test_long_lists_are_shared_out_by_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for number, lines in enumerate((10, 400, 30, 390)):
        path = tmp_path / f"l{number}.txt"
        path.write_text("".join(f"n{number}-{line}.example\n" for line in range(lines)))
        files.append(ListFile("lists", path.name, path))
    assert index_build.share_out(tuple(files), 2) == [files]  # not worth it
    monkeypatch.setattr(index_build, "WORTH_SHARING_BYTES", 1_000)
    shares = index_build.share_out(tuple(files), 2)
    assert [[one.name for one in share] for share in shares] == [["l1.txt", "l0.txt"], ["l3.txt", "l2.txt"]]
    assert [len(share) for share in index_build.share_out(tuple(files[:1]), 4)] == [1]


def test_several_processes_build_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"l{number}.txt").write_text(
            "".join(f"www.n{number}-{line}.example threat=t{line % 3}\n" for line in range(300))
        )
    path = tmp_path / "egressd.yaml"
    path.write_text("lists: [l0.txt, l1.txt, l2.txt, gone.txt]\nstate:\n  directory: state\n")
    monkeypatch.setattr(index_build, "ask_child", lambda module, job: index_build.run_job(job))
    monkeypatch.setattr(index_build, "WORTH_SHARING_BYTES", 1)
    monkeypatch.setattr(index_build, "processors", lambda: 2)
    (tmp_path / "gone.txt").write_text("".join(f"g{line}.example\n" for line in range(300)))
    several = load_texts(path)
    for file in (tmp_path / "state" / "indexes").iterdir():
        file.unlink()
    monkeypatch.setattr(index_build, "processors", lambda: 1)
    alone = load_texts(path)
    assert several.texts.lists == alone.texts.lists
    assert [str(one) for one in several.kept] == [str(one) for one in alone.kept]
    found = several.texts.intel.index
    assert found.size == alone.texts.intel.index.size == 1_200
    for number in range(3):
        for line in range(0, 300, 7):
            name = f"x.n{number}-{line}.example"
            assert level(several, name) == level(alone, name) == f"sibling l{number}.txt:{line + 1}"
