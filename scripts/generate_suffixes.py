"""Writes egressd/intel/data/suffixes.txt from the Public Suffix List beside it; --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from egressd.names import Suffixes
from scripts.generated import write_or_check

DATA: Final = ROOT / "egressd" / "intel" / "data"
TARGET: Final = DATA / "suffixes.txt"


def render() -> str:
    """The file's text."""
    return Suffixes.parse((DATA / "public_suffix_list.dat").read_text(encoding="utf-8")).grouped()


if __name__ == "__main__":
    sys.exit(write_or_check(TARGET, render()))
