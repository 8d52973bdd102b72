"""What the scripts that write a file of the tree share: `--check` only compares, and exits 1 when it is out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def write_or_check(target: Path, text: str) -> int:
    """The exit code: `text` is in `target` now, or with --check on the command line whether it was."""
    parser = argparse.ArgumentParser(description=f"Write {target.name}.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the file is out of date")
    if not parser.parse_args().check:
        target.write_text(text, encoding="utf-8")
        return 0
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return 0
    print(f"{target} is out of date: run scripts/{Path(sys.argv[0]).name}", file=sys.stderr)
    return 1
