"""Numbers of things: one is one, and no sentence brings its own way of saying so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from egressd.plural import count

PACKAGE = Path(__file__).resolve().parent.parent / "egressd"
# `1 files`, and what stands for not having asked how many: `1 file(s)`, `file{"" if n == 1 else "s"}`
BY_HAND = re.compile(r"[a-z]\(s\)|\bif [^:]{1,40} == 1 else ['\"]e?s['\"]")


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 tries"), (1, "1 try"), (2, "2 tries"), (2_000, "2,000 tries"), (-1, "-1 tries")]
)
def test_count(number: int, told: str) -> None:
    assert count(number, "try", "tries") == told
    assert count(number, "host").endswith("host" if number == 1 else "hosts")


def test_nobody_makes_plurals_by_hand() -> None:
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BY_HAND.search(line)
    ]
    assert found == []
