"""The comparison of builds: the same is the same, what differs is shown, and there must be one build of each kind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from scripts import differ
from scripts.differ import ROOT, blocks, capture_blocks, captures_in

WHAT = ["--packets", "1500", "--seed", "3"]


def copied(tmp_path: Path, file: str, before: str, after: str) -> Path:
    """A copy of the package in which one thing is otherwise."""
    shutil.copytree(ROOT / "egressd", tmp_path / "egressd", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    path = tmp_path / "egressd" / file
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    return tmp_path


@pytest.mark.pure
def test_what_differs_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The copy stands for the compiled build: it says so, and takes one name for another.
    tree = copied(tmp_path, "wire/tls.py", "hello = ClientHello(sni, ", "hello = ClientHello('other.example', ")
    monkeypatch.setattr(differ, "SHOWN", 1)
    found = differ.differ({"pure": ROOT, "compiled": tree}, WHAT, 2)
    assert found == "wanted pure and compiled, found pure and pure"
    dissector = tree / "egressd" / "wire" / "dissector.py"
    dissector.write_text(dissector.read_text(encoding="utf-8") + '\n__file__ = "compiled.so"\n', encoding="utf-8")
    found = differ.differ({"pure": ROOT, "compiled": tree}, WHAT, 2)
    assert re.match(r"block 0:\npure: .*\ncompiled: .*other\.example", found)


@pytest.mark.pure
def test_the_same_is_the_same(tmp_path: Path) -> None:
    tree = copied(tmp_path, "wire/dissector.py", "from __future__ import annotations\n",
                  'from __future__ import annotations\n__file__ = "compiled.so"\n')  # fmt: skip
    assert differ.differ({"pure": ROOT, "compiled": tree}, WHAT, 2) == ""
    assert differ.differ({"pure": ROOT, "compiled": tree}, WHAT, 3) == "ended after 2 blocks"


def test_blocks_hold_something() -> None:
    told = [len(lines) for lines in (list(one) for one in blocks(2_000, 5))]
    assert len(told) == 3 and min(told[:2]) > 100


def test_captures_are_read_as_they_are(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "pcaps" / "vlan", tmp_path / "vlan")
    (tmp_path / "broken.pcap").write_bytes(b"no capture")
    assert len(captures_in([tmp_path])) == 2
    broken, vlan = (list(lines) for lines in capture_blocks([tmp_path]))
    assert "is not a capture" in broken[1] and len(vlan) > 3


def test_without_a_compiled_build_there_is_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert differ.main(["--compiled", str(tmp_path)]) == 0
    assert "nothing is compiled" in capsys.readouterr().err
