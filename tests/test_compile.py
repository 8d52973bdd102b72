"""scripts/compile.py: what it compiles exists, what it made it can remove, and without a compiler nothing changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts import compile as compiling

ROOT = Path(__file__).parent.parent


def test_every_pattern_finds_the_packet_path() -> None:
    assert all(list(ROOT.glob(pattern)) for pattern in compiling.MODULES)
    found = compiling.sources(ROOT)
    assert {"egressd/wire/tcp.py", "egressd/capture/pcapfile.py", "egressd/detect/engine.py"} <= set(found)
    assert not [path for path in found if path.endswith("__init__.py") or "/cli/" in path]


def test_clean_leaves_the_sources(tmp_path: Path) -> None:
    compiling.copy(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    made = ["abc__mypyc.cpython-311-x86_64-linux-gnu.so", "egressd/wire/tcp.cpython-311-x86_64-linux-gnu.so"]
    for name in [*made, compiling.STAMP]:
        (tmp_path / name).touch()
    assert compiling.main(["--clean", "--into", str(tmp_path)]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert compiling.state(tmp_path) == compiling.state(ROOT)


def test_without_a_compiler_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda _: None)
    assert compiling.main(["--into", str(tmp_path / "tree")]) == 0
    assert "no C compiler" in capsys.readouterr().out
    assert not (tmp_path / "tree").exists()


def test_a_failed_build_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "missing", lambda: "")
    monkeypatch.setattr(compiling, "BUILD", "raise SystemExit('the compiler is unwell')")
    assert compiling.main(["--into", str(tmp_path)]) == 1
    assert "the compiler is unwell" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.so")) and not (tmp_path / compiling.STAMP).exists()


# Instead of mypyc: says what it was asked for, and leaves what a build leaves.
BUILD_NOTHING = """
import sys, pathlib
with open({told!r}, "a") as told:
    print(sys.argv[1], file=told)
pathlib.Path("abc__mypyc.so").touch()
if "-fprofile-generate" in sys.argv[1] and {counts}:
    pathlib.Path("abc.gcda").touch()
"""


@pytest.mark.parametrize("counts", [True, False])
def test_a_profile_takes_two_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], counts: bool
) -> None:
    tree, told = tmp_path / "tree", tmp_path / "told"
    monkeypatch.setattr(compiling, "missing", lambda: "")
    monkeypatch.setattr(compiling, "BUILD", BUILD_NOTHING.format(told=str(told), counts=counts))
    monkeypatch.setattr(compiling, "TRAINING", {"bulk": 300, "names": 30})
    code = compiling.main(["--profile", "--into", str(tree)])
    built = [flags.rpartition(" ")[2] for flags in told.read_text().splitlines()]
    if not counts:
        assert code == 1 and "wrote no profile" in capsys.readouterr().err and built == ["-fprofile-generate"]
        assert not list(tree.rglob("*.so")) and not (tree / compiling.STAMP).exists()
        return
    assert code == 0 and built == ["-fprofile-generate", "-Wno-missing-profile"]
    assert compiling.main(["--into", str(tree)]) == 0  # it is compiled, and better than asked for
    assert "already" in capsys.readouterr().out
    (tree / compiling.STAMP).write_text(compiling.state(ROOT), encoding="ascii")
    assert compiling.main(["--profile", "--into", str(tree)]) == 0  # compiled, but not by a profile
    assert len(told.read_text().splitlines()) == 4


def test_training_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "TRAINING", {"no such kind": 1})
    assert "no such kind" in compiling.train(tmp_path)


def test_up_to_date_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiling.copy(tmp_path)
    (tmp_path / compiling.STAMP).write_text(compiling.state(ROOT), encoding="ascii")
    assert compiling.main(["--into", str(tmp_path)]) == 0
    assert "already" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None or bool(compiling.missing()), reason="needs gcc, mypy and setuptools")
@pytest.mark.parametrize("how", [["--profile"], []])
def test_gcc_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]) -> None:
    """By what was counted, and without."""
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr(compiling, "MODULES", ("egressd/wire/octets.py", "egressd/wire/quiet.py"))
    monkeypatch.setattr(compiling, "TRAINING", {"bulk": 2000})
    assert compiling.main([*how, "--into", str(tmp_path)]) == 0
    assert list((tmp_path / "egressd" / "wire").glob("quiet*.so"))
