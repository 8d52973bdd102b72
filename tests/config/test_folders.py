"""Folders that patterns name: absent is one thing, closed to us another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from egressd.config.folders import ABSENT, may_be_file, why_closed


def refuse(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def test_what_is_absent_and_what_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert why_closed(tmp_path) == ""
    assert why_closed(tmp_path / "no") == why_closed(tmp_path / "file") == why_closed(tmp_path / "file" / "x") == ABSENT
    monkeypatch.setattr(os, "scandir", refuse)  # root, who may run this, is refused nothing
    assert why_closed(tmp_path) == "Permission denied"


def test_what_is_no_file_and_what_nobody_can_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert may_be_file(tmp_path / "file")
    assert all(may_be_file(tmp_path / name) for name in ("loop", "lost"))  # reading them tells what is wrong
    assert not any(may_be_file(tmp_path / name) for name in ("pipe", "no", ".", "x" * 300))
    monkeypatch.setattr(Path, "stat", refuse)
    assert may_be_file(tmp_path / "file")
