"""scripts/compile.py: what it compiles exists, what it made it can remove, and without a compiler nothing changes."""

from __future__ import annotations

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


def test_up_to_date_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiling.copy(tmp_path)
    (tmp_path / compiling.STAMP).write_text(compiling.state(ROOT), encoding="ascii")
    assert compiling.main(["--into", str(tmp_path)]) == 0
    assert "already" in capsys.readouterr().out
