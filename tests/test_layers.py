"""The import rule of the house (DESIGN section 3): own folder, else downwards only; no I/O below layer 3."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "egressd"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {
    "model": 0,
    "errors": 0,
    "names": 0,
    "native": 0,
    "clock": 0,
    "plural": 0,
    "units": 0,
    "wire": 1,
    "intel": 1,
    "logs": 2,  # reads what wire and intel have parsers for
    "config.schema": 1,
    "config.kinds": 1,
    "config.behaviour_options": 1,
    "config.capture_options": 1,
    "config.enforce_options": 1,
    "config.feed_options": 1,
    "config.guard_options": 1,
    "config.policy_options": 1,
    "config.volume_options": 1,
    "config.sensor_options": 1,
    "enforce.adapter": 1,
    "enforce.plan": 1,
    "detect": 2,
    "capture": 3,
    "store": 3,
    "web": 3,
    "notify": 3,
    "metrics": 3,
    "config": 3,
    "enforce": 3,
    "intel.feeds": 3,
    "runtime": 4,
    "cli": 5,
    "__main__": 6,
    "": 0,
}
# What makes a module do I/O or read a clock: not for layers 0 to 2.
FORBIDDEN_BELOW_3 = {
    *("asyncio", "socket", "sqlite3", "aiohttp", "subprocess", "logging", "time", "os", "threading", "multiprocessing"),
    *("select", "selectors", "signal", "random", "scapy", "dns", "requests", "yaml"),
}
LAZY_ONLY = {"scapy", "tldextract", "yaml", "cryptography", "idna", "dns", "aiohttp", "prometheus_client"}

READ_YAML = ("config.document", "config.yaml_text", "config.policy_file", "config.policy_conditions")


def dotted(path: Path) -> str:
    """The module's name inside the package: `wire.tcp`, `cli.main`, "" for the package itself."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int:
    """The layer that a module stands in, by its longest known prefix."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        known = LAYERS.get(".".join(parts[:size]))
        if known is not None:
            return known
    raise AssertionError(f"{module} stands in no layer: add it to LAYERS where DESIGN section 3 has it")


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """Every import as (line, absolute module name, at module level)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(tree.body)
    found: list[tuple[int, str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "egressd":
                found += [(node.lineno, f"egressd.{alias.name}", node in top) for alias in node.names]
            else:
                found.append((node.lineno, module, node in top))
    return found


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_downwards(path: Path) -> None:
    me = dotted(path)
    my_folder = me.split(".")[0]
    for line, name, _ in imports(path):
        if not name.startswith("egressd"):
            continue
        other = name.removeprefix("egressd").lstrip(".")
        if other in ("", "__version__") or other.split(".")[0] == my_folder:
            continue
        assert layer(other) < layer(me) or layer(other) == layer(me) == 0, (
            f"{path.name}:{line}: {me} (layer {layer(me)}) imports {other}"
        )


@pytest.mark.parametrize("path", [path for path in MODULES if layer(dotted(path)) < 3], ids=dotted)
def test_no_io_and_no_clock_below_layer_3(path: Path) -> None:
    for line, name, _ in imports(path):
        if (dotted(path), name) == ("clock", "time"):
            continue  # the one place that reads clocks; who needs the time is given it
        assert name.split(".")[0] not in FORBIDDEN_BELOW_3, f"{path.name}:{line}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    """`--help` and `check` must stay fast, and scapy (GPL-2.0-only) must not be loaded by anything but `decode`."""
    for line, name, top in imports(path):
        if name.split(".")[0] in LAZY_ONLY:
            heavy_module = dotted(path) in READ_YAML  # are imported lazily themselves
            assert not top or heavy_module, f"{path.name}:{line}: {name} at module level"
        if name.split(".")[0] == "scapy":
            assert dotted(path) == "cli.decode", f"{path.name}:{line}: scapy"


def test_the_rule_catches_what_it_is_for(tmp_path: Path) -> None:
    """A check that cannot fail is none."""
    bad = tmp_path / "bad.py"
    bad.write_text("import socket\nfrom egressd.cli import main\n\ndef f():\n    import yaml\n")
    assert imports(bad) == [(1, "socket", True), (2, "egressd.cli", True), (5, "yaml", False)]
    assert layer("cli.main") > layer("detect.engine") > layer("wire.tcp") > layer("model")
