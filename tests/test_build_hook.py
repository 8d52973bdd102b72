"""A wheel holds the compiled packet path where that can be made, else pure Python, and says which; hatchling stood in
for, since it is there only while a wheel is built. The slow test builds and installs a real one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.loops import HANG_S

ROOT = Path(__file__).parent.parent


class Told:
    """hatchling's application: keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.display_info = self.display_warning = self.lines.append


class Compiling:
    """scripts/compile.py, as far as the hook asks it."""

    def __init__(self, lacking: str = "", wrong: str = "", unprofiled: str = "") -> None:
        self.lacking, self.wrong, self.unprofiled = lacking, wrong, unprofiled
        self.built: list[bool] = []  # with a profile?

    def missing(self) -> str:
        return self.lacking

    def copy(self, tree: Path) -> None:
        (tree / "egressd" / "wire").mkdir(parents=True)

    def build(self, tree: Path, profile: bool = False) -> str:
        self.built.append(profile)
        if profile and self.unprofiled:
            return self.unprofiled
        if not self.wrong:
            (tree / "abc__mypyc.so").touch()
            (tree / "egressd" / "wire" / "tcp.so").touch()
        return self.wrong


@pytest.fixture
def hook_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # type: ignore[attr-defined]
    for at in range(1, 6):
        name = ".".join(interface.__name__.split(".")[:at])
        monkeypatch.setitem(sys.modules, name, interface if at == 5 else ModuleType(name))
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "scripts" / "build_hook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(
    module: ModuleType, compiling: Compiling, monkeypatch: pytest.MonkeyPatch, version: str = "standard"
) -> tuple[dict[str, Any], list[str]]:
    """What the hook makes of a build: its data, and what it said."""
    hook = module.CompiledPacketPath()
    hook.root, hook.target_name, hook.app = str(ROOT), "wheel", Told()
    monkeypatch.setattr(hook, "_compile_script", lambda: compiling)
    data: dict[str, Any] = {"force_include": {}, "pure_python": True, "infer_tag": False}
    hook.initialize(version, data)
    assert all(Path(made).exists() for made in data["force_include"])
    hook.finalize(version, data, "x.whl")
    assert not any(Path(made).exists() for made in data["force_include"])
    return data, hook.app.lines


def test_compiled_modules_go_into_the_wheel(hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EGRESSD_PURE", raising=False)
    monkeypatch.delenv("EGRESSD_PROFILE", raising=False)
    data, _ = build(hook_module, Compiling(), monkeypatch)
    assert sorted(data["force_include"].values()) == ["abc__mypyc.so", "egressd/wire/tcp.so"]
    assert data["infer_tag"] and not data["pure_python"]


def test_a_wheel_by_a_profile(hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EGRESSD_PURE", raising=False)
    monkeypatch.setenv("EGRESSD_PROFILE", "1")
    compiling = Compiling()
    assert build(hook_module, compiling, monkeypatch)[0]["infer_tag"] and compiling.built == [True]
    compiling = Compiling(unprofiled="the code wrote no profile")
    data, lines = build(hook_module, compiling, monkeypatch)
    assert data["infer_tag"] and compiling.built == [True, False]
    assert lines[-1] == "not by a profile: the code wrote no profile"


@pytest.mark.parametrize(
    ("compiling", "pure", "why"),
    [
        (Compiling(lacking="no C compiler (cc)"), "", "no C compiler (cc)"),
        (Compiling(wrong="error: it is unwell"), "", "error: it is unwell"),
        (Compiling(), "1", "EGRESSD_PURE is set"),
    ],
)
def test_else_it_is_pure_and_says_why(
    hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch, compiling: Compiling, pure: str, why: str
) -> None:
    monkeypatch.setenv("EGRESSD_PURE", pure)
    monkeypatch.delenv("EGRESSD_PROFILE", raising=False)
    data, lines = build(hook_module, compiling, monkeypatch)
    assert data == {"force_include": {}, "pure_python": True, "infer_tag": False}
    assert lines[-1].startswith(f"not compiled: {why}\n") and "pure Python" in lines[-1]


def test_an_editable_installation_is_left_alone(hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    compiling = Compiling()
    assert build(hook_module, compiling, monkeypatch, "editable")[1] == [] and not compiling.built


def test_the_script_is_found(hook_module: ModuleType) -> None:
    hook = hook_module.CompiledPacketPath()
    hook.root = str(ROOT)
    assert hook._compile_script().MODULES


@pytest.mark.slow
def test_a_wheel_is_compiled_and_runs(tmp_path: Path) -> None:
    where = {name: value for name, value in os.environ.items() if name not in ("EGRESSD_PURE", "PYTHONPATH")}
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, env=where, timeout=1_800)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    where["PYTHONPATH"] = str(tmp_path / "site")
    asked = [sys.executable, "-m", "egressd", "version", "--json"]
    told = subprocess.run(asked, check=True, env=where, cwd=tmp_path, capture_output=True, timeout=HANG_S)
    assert json.loads(told.stdout)["packet_path"] == "compiled"
    assert "-none-any" not in wheel.name


def test_a_source_distribution_holds_what_installing_and_testing_need() -> None:
    """`make install` from an unpacked one copies units and alert rules; hatchling adds LICENSE, README and itself."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    held = set(built["targets"]["sdist"]["include"])
    ours = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert held >= {f"/{name}" for name in ours - {"build", "dist"}} | {"/.ci"}
