"""README and the generated reference say what is so: they are read, and run, here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from egressd.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """The fenced blocks."""
    return re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_first_screen_has_the_two_commands() -> None:
    first_screen = "\n".join(README.splitlines()[:25])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_report_in_readme_is_what_replay_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    main(["replay", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pcaps" / "jps-2015").glob("*.pcap"))])
    printed = re.sub(r"read in \S+ s", "read in 0.1 s", capsys.readouterr().out)
    shown = next(block for block in blocks(README) if block.startswith("4 files"))
    assert printed.startswith(shown)


def test_list_in_readme_is_read_without_a_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = next(block for block in blocks(README) if "evil.example" in block)
    path = tmp_path / "list.txt"
    path.write_text(shown, encoding="utf-8")
    assert main(["check-config", str(path)]) == 0
    assert "4 indicators" in capsys.readouterr().out


def test_every_verb_is_in_readme() -> None:
    assert set(re.findall(r"^\| `egressd ([a-z-]+)", README, re.MULTILINE)) == set(VERBS)


def test_every_link_leads_somewhere() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {*re.findall(r"`?make ([a-z]+)", README)}
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_cli_reference_is_fresh() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_cli_reference.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run scripts/generate_cli_reference.py"


def test_every_bound_of_the_makefile_runs_as_ci_does() -> None:
    """`.ci/run` calls README's test command and every script it names is there and may be run."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in ci
    for script in re.findall(r"scripts/[a-z-]+\.sh", ci + (ROOT / "Makefile").read_text(encoding="utf-8")):
        assert (ROOT / script).stat().st_mode & 0o111, script
