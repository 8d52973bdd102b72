"""The service as it is installed: units that promise what they should, a script that installs and takes away again, and
alert rules and a dashboard that name metrics that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from egressd.metrics.definition import HISTOGRAM
from egressd.metrics.snapshot import DEFINITIONS

ROOT = Path(__file__).resolve().parent.parent
SYSTEMD = ROOT / "systemd"
MONITORING = ROOT / "monitoring"
UNITS = sorted([*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.path")])
MOST_EXPOSURE = {"egressd.service": 2.0, "egressd-check.service": 0.5}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: install systemd"
)
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: install prometheus")


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Every value of every setting, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in unit.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


SERVICE = settings_of(SYSTEMD / "egressd.service")

# -- units


@needs_systemd
@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_exposure(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSURE[unit.name], done.stdout


@needs_systemd
def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    for unit in UNITS:  # the command need not be installed here
        (tmp_path / unit.name).write_text(unit.read_text(encoding="utf-8").replace("/usr/bin/egressd", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "egressd" in line]
    assert (ours, done.returncode) == ([], 0), done.stderr


def test_two_capabilities_and_no_more() -> None:
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert SERVICE[key] == ["CAP_NET_RAW CAP_NET_ADMIN"]
    assert SERVICE["User"] == ["egressd"] and SERVICE["NoNewPrivileges"] == ["yes"]
    assert set(SERVICE["RestrictAddressFamilies"][0].split()) == {
        "AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET",
    }  # fmt: skip


def test_realtime_without_a_capability() -> None:
    """SCHED_FIFO needs its limit, no seccomp rule against it, and the system call, which @resources holds."""
    from egressd.runtime.packet_process import REALTIME_PRIORITY

    assert int(SERVICE["LimitRTPRIO"][0]) == REALTIME_PRIORITY
    assert SERVICE["RestrictRealtime"] == ["no"]
    assert "@resources" in SERVICE["SystemCallFilter"][1]
    assert "sched_setscheduler" in SERVICE["SystemCallFilter"][2].split()


def test_stopping_deletes_nothing() -> None:
    assert not SERVICE["ExecStop"] and not SERVICE["ExecStopPost"]


def test_it_is_restarted_but_for_mistakes_of_people() -> None:
    from egressd.cli.exit_codes import INVALID, USAGE

    assert SERVICE["Restart"] == ["always"] and SERVICE["StartLimitIntervalSec"] == ["0"]
    assert SERVICE["RestartPreventExitStatus"] == [f"{USAGE} {INVALID}"]
    assert SERVICE["Type"] == ["notify"] and SERVICE["WatchdogSec"] == ["30"]


def test_it_starts_after_who_flushes_rules_and_before_the_network() -> None:
    assert {"nftables.service", "firewalld.service"} <= set(" ".join(SERVICE["After"]).split())
    assert "network-pre.target" in SERVICE["Before"] and SERVICE["Wants"] == ["network-pre.target"]
    # Waiting for the network, or for anything that may wait for it, would be a circle.
    assert not {"network.target", "network-online.target", "basic.target"} & set(" ".join(SERVICE["After"]).split())


def test_folders_fit_the_configuration() -> None:
    from egressd.config.schema import Config

    config = Config()
    for path, key in (
        (config.state.directory, "StateDirectory"),
        (str(Path(config.state.events).parent), "LogsDirectory"),
        (str(Path(config.state.heads).parent), "LogsDirectory"),
        (str(Path(config.control.socket).parent), "RuntimeDirectory"),
    ):
        assert SERVICE[key] == ["egressd"] and path.endswith("/egressd"), path
    tmpfiles = (SYSTEMD / "tmpfiles.d" / "egressd.conf").read_text(encoding="utf-8")
    for folder, mode in (("/var/lib", "StateDirectoryMode"), ("/var/log", "LogsDirectoryMode")):
        assert re.search(rf"^d +{folder}/egressd +{SERVICE[mode][0]} egressd egressd", tmpfiles, re.M)


def test_logrotate_moves_the_event_file_of_the_configuration() -> None:
    from egressd.config.schema import Config

    text = (SYSTEMD / "logrotate.d" / "egressd").read_text(encoding="utf-8")
    assert f"\n{Config().state.events} {{\n" in text and "--signal=HUP egressd.service" in text


@needs_systemd
def test_sysusers_understands_its_file() -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is missing: install systemd")
    file = SYSTEMD / "sysusers.d" / "egressd.conf"
    done = subprocess.run(["systemd-sysusers", "--dry-run", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "egressd" in done.stdout + done.stderr


# -- the script


def run_script(what: str, tree: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    environ |= {"DESTDIR": str(tree), "DEPENDENCIES": "none", "COMPILE": "no", "PYTHON": sys.executable, **more}
    return subprocess.run(
        [str(ROOT / "scripts" / "install.sh"), what], env=environ, capture_output=True, text=True, check=False,
        cwd="/", timeout=600,
    )  # fmt: skip


def files_of(tree: Path) -> set[str]:
    return {f"/{path.relative_to(tree)}" for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()}


def call_installed(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed program, with this test's third-party packages."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    code = (
        f"import sys; sys.path += {packages!r}; import egressd; assert egressd.__file__.startswith({str(tree)!r}); "
        f"from egressd.cli.main import main; sys.exit(main({list(words)!r}))"
    )
    return subprocess.run(
        [str(tree / "opt/egressd/bin/python"), "-I", "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("installed")
    done = run_script("install", tree)
    assert done.returncode == 0, done.stderr
    return tree


def test_what_is_installed_where(installed: Path) -> None:
    found = files_of(installed)
    units = {f"/usr/lib/systemd/system/{unit.name}" for unit in UNITS}
    assert units <= found
    assert {"/usr/lib/sysusers.d/egressd.conf", "/usr/lib/tmpfiles.d/egressd.conf", "/etc/logrotate.d/egressd"} <= found
    assert {"/etc/egressd/egressd.yaml", "/etc/egressd/lists.d/local.txt", "/etc/egressd/allow.d/local.txt"} <= found
    assert {
        "/opt/egressd/share/doc/egressd/install.md",
        "/opt/egressd/share/doc/egressd/monitoring/alerts.yml",
        "/opt/egressd/share/doc/egressd/config/egressd.reference.yaml",
        "/opt/egressd/share/doc/egressd/config/feeds.example.yaml",
        "/opt/egressd/share/doc/egressd/config/policy.yaml",
    } <= found
    assert str((installed / "usr/bin/egressd").readlink()) == "/opt/egressd/bin/egressd"
    command = installed / "opt/egressd/bin/egressd"
    assert os.access(command, os.X_OK) and command.read_text().startswith("#!/opt/egressd/bin/python -I\n")
    assert not [path for path in found if path.endswith(".so") or "/tests/" in path]
    told = {f"/{part}" for part in ("etc", "opt/egressd", "usr/bin/egressd", "usr/lib/sys", "usr/lib/tmpfiles.d")}
    assert all(path.startswith(tuple(told)) for path in found)


def test_what_is_installed_runs_and_its_configuration_is_valid(installed: Path) -> None:
    done = call_installed(installed, "check-config", str(installed / "etc/egressd/egressd.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mode monitor" in done.stdout
    done = call_installed(installed, "version")
    assert done.returncode == 0 and "pure Python" in done.stdout


def test_it_runs_on_when_python3_is_another_version_by_now(tmp_path: Path) -> None:
    """An update of the system turns /usr/bin/python3 to the next version, which does not find what was installed."""
    link = tmp_path / "bin" / "python3"
    link.parent.mkdir()
    link.symlink_to(os.path.realpath(sys.executable))
    tree = tmp_path / "tree"
    assert run_script("install", tree, PYTHON=str(link)).returncode == 0
    link.unlink()
    done = call_installed(tree, "version")
    assert done.returncode == 0 and "pure Python" in done.stdout, done.stderr


def test_nothing_names_the_place_it_was_made_in(installed: Path) -> None:
    for file in (installed / "opt/egressd").rglob("*"):
        if file.is_file() and not file.is_symlink() and file.name != "pyvenv.cfg":
            assert os.fsencode(installed) not in file.read_bytes(), file


def test_a_second_installation_keeps_what_an_operator_wrote(tmp_path: Path) -> None:
    assert run_script("install", tmp_path).returncode == 0
    config, listed = tmp_path / "etc/egressd/egressd.yaml", tmp_path / "etc/egressd/lists.d/local.txt"
    config.write_text("mode: enforce\n")
    listed.write_text("evil.example\n")
    stale = tmp_path / "opt/egressd/lib/stale"
    stale.write_text("")
    assert run_script("install", tmp_path).returncode == 0
    assert (config.read_text(), listed.read_text()) == ("mode: enforce\n", "evil.example\n")
    assert not stale.exists() and not (tmp_path / "opt/egressd.old").exists()
    assert run_script("uninstall", tmp_path).returncode == 0
    assert files_of(tmp_path) == {
        "/etc/egressd/egressd.yaml", "/etc/egressd/lists.d/local.txt", "/etc/egressd/allow.d/local.txt",
        "/etc/logrotate.d/egressd",
    }  # fmt: skip
    assert run_script("uninstall", tmp_path).returncode == 0  # again: nothing to do


def test_another_prefix_is_in_every_file(tmp_path: Path) -> None:
    assert run_script("install", tmp_path, PREFIX="/srv/egress").returncode == 0
    assert (tmp_path / "srv/egress/bin/egressd").read_text().startswith("#!/srv/egress/bin/python -I\n")
    assert "/srv/egress" in (tmp_path / "usr/lib/systemd/system/egressd.service").read_text()
    for file in (tmp_path / "usr").rglob("*"):
        assert not file.is_file() or "/opt/egressd" not in file.read_text(), file


@pytest.mark.parametrize("prefix", ["/", "/opt", "opt/egressd", "/opt/e gress", "/opt/$(id)"])
def test_odd_prefixes_are_refused(tmp_path: Path, prefix: str) -> None:
    for what in ("install", "uninstall"):
        done = run_script(what, tmp_path, PREFIX=prefix)
        assert done.returncode == 1 and "PREFIX=" in done.stderr
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["install", "uninstall"])
@pytest.mark.parametrize("theirs", ["opt/egressd/precious", "usr/bin/egressd"])
def test_what_is_not_ours_is_not_touched(tmp_path: Path, what: str, theirs: str) -> None:
    precious = tmp_path / theirs
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    done = run_script(what, tmp_path)
    assert done.returncode == 1 and "not touched" in done.stderr
    assert files_of(tmp_path) == {f"/{theirs}"}


def test_other_words_are_wrong_usage(tmp_path: Path) -> None:
    assert run_script("remove", tmp_path).returncode == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="is root here: run as another user to see it refuse")
def test_without_root_the_system_is_not_touched() -> None:
    environ = {key: value for key, value in os.environ.items() if key != "DESTDIR"}
    done = subprocess.run(
        [str(ROOT / "scripts" / "install.sh"), "install"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "needs root" in done.stderr


# -- monitoring

SUFFIXES = ("_bucket", "_sum", "_count")
LABELS = {metric.name: {*metric.labels, "instance", "job"} for _, metric in DEFINITIONS}
for _, one in DEFINITIONS:
    if one.kind == HISTOGRAM:
        LABELS |= {one.name + suffix: {*LABELS[one.name], "le"} for suffix in SUFFIXES}
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def check_expression(expression: str) -> None:
    """Every metric in it exists, and has the labels that it is asked for."""
    named = re.findall(r"\b(egressd_[a-z_]+)(?:\{([^}]*)\})?", expression)
    assert named or "up{" in expression, expression
    for name, matchers in named:
        assert name in LABELS, f"{name}: {expression}"
        for label in re.findall(r"([a-z_]+)\s*[=!]~?\"", matchers):
            assert label in LABELS[name], f"{name} has no {label}: {expression}"
    known = set.union(*(LABELS[name] for name, _ in named)) if named else {"instance", "job"}
    for grouped in re.findall(r"(?:by|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= known, expression
    assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert(rule: dict[str, Any]) -> None:
    check_expression(rule["expr"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description"}
    for label in re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"])):
        assert label == "instance" or label in str(LABELS), label


def test_alerts_are_those_that_were_promised() -> None:
    names = {rule["alert"] for rule in RULES}
    assert len(names) == len(RULES)
    assert {f"Egressd{name}" for name in (
        "Down", "NoPackets", "SensorDown", "PacketsDropped", "ListStale", "PushFailing", "Drift", "Leak",
        "ReconnectBurst", "CanaryFailing",
    )} <= names  # fmt: skip


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".") and panel["targets"]
    for target in panel["targets"]:
        check_expression(target["expr"])
        assert 'instance=~"$instance"' in target["expr"]
        named = set(re.findall(r"\{\{([a-z]+)\}\}", target["legendFormat"]))
        assert all(any(label in labels for labels in LABELS.values()) for label in named)


def test_dashboard_is_of_the_classic_schema() -> None:
    assert "panels" in DASHBOARD and "elements" not in DASHBOARD and DASHBOARD["schemaVersion"] < 42
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


@needs_promtool
def test_prometheus_understands_the_rules_and_they_fire_when_they_should() -> None:
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(["promtool", *words], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_installation_document_names_what_is_there() -> None:
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    files, targets = re.findall(r"`((?:scripts|monitoring)/[a-z.]+)`", text), re.findall(r"make ([a-z]+)", text)
    assert files and targets
    for file in files:
        assert (ROOT / file).exists(), file
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
