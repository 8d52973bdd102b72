"""Writes egressd/intel/data/suffixes.txt from the Public Suffix List beside it; --check only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
DATA: Final = ROOT / "egressd" / "intel" / "data"
TARGET: Final = DATA / "suffixes.txt"


def render() -> str:
    """The file's text."""
    from egressd.names import Suffixes

    return Suffixes.parse((DATA / "public_suffix_list.dat").read_text(encoding="utf-8")).grouped()


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the Public Suffix List as commands read it.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    if parser.parse_args(argv).check:
        current = TARGET.read_text(encoding="ascii") == render()
        print("up to date" if current else f"{TARGET} is out of date: run scripts/generate_suffixes.py")
        return 0 if current else 1
    TARGET.write_text(render(), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
