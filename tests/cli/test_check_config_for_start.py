"""`egressd check-config --for-start`: what holds up a start, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressd.cli.exit_codes import INVALID, OK, USAGE
from egressd.cli.main import main

CONFIG = "lists: [csirt.txt]\nstate: {directory: state}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "csirt.txt").write_text("bad.example\n")
    path = tmp_path / "egressd.yaml"
    path.write_text(CONFIG)
    (tmp_path / "state").mkdir()
    return path


def test_a_list_with_a_mistake_holds_up_the_first_start_and_no_later_one(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = config.with_name("csirt.txt")
    listed.write_text("bad.example colour=red\n")
    assert main(["check-config", "--for-start", str(config)]) == INVALID
    listed.write_text("bad.example\n")
    assert main(["check-config", "--for-start", str(config)]) == OK
    listed.write_text("bad.example colour=red\n")
    capsys.readouterr()
    assert main(["check-config", "--for-start", str(config)]) == OK
    told = capsys.readouterr()
    assert told.out.startswith("csirt.txt:1:13: ")
    assert "the last good content stands in" in told.err
    assert main(["check-config", str(config)]) == INVALID  # a mistake all the same


def test_a_mistake_in_the_configuration_holds_up_every_start(config: Path) -> None:
    assert main(["check-config", "--for-start", str(config)]) == OK
    config.write_text(CONFIG + "mode: loud\n")
    assert main(["check-config", "--for-start", str(config)]) == INVALID


def test_who_only_looks_leaves_nothing_among_the_daemons_files(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run by root before the first start, it made folders that the daemon's user could not write: no list was kept as
    the last good one, and no index of a long one could be built."""
    state = config.with_name("state")
    monkeypatch.setattr("os.geteuid", lambda: state.stat().st_uid + 1)
    config.with_name("csirt.txt").write_text("".join(f"bad{n}.example\n" for n in range(40_000)))
    assert main(["check-config", "--for-start", str(config)]) == OK
    assert list(state.iterdir()) == []
    monkeypatch.undo()
    assert main(["check-config", "--for-start", str(config)]) == OK
    assert {one.name for one in state.iterdir()} == {"indexes", "last-good"}


def test_it_is_about_one_configuration(config: Path) -> None:
    assert main(["check-config", "--for-start", "--list", str(config.with_name("csirt.txt"))]) == USAGE
