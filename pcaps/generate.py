"""Writes the captures and READMEs of the cases: `python -m pcaps.generate [CASE]...` from the repository's root.

What a case must show stands beside its capture in expect.yaml, written by hand.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from textwrap import fill

from pcaps.cases import CASES, Case

HERE = Path(__file__).parent
# Each registers its cases when it is imported.
MODULES = tuple(import_module(f"pcaps.{path.stem}") for path in sorted(HERE.glob("cases_*.py")))


def readme(case: Case) -> bytes:
    """What the case shows and where it comes from."""
    text = f"# {case.name}\n\n{fill(case.about, 120, break_on_hyphens=False)}\n\n"
    return f"{text}Origin: made by `pcaps/{case.module}.py`; nothing in it was captured anywhere.\n".encode()


def main(names: list[str]) -> int:
    """Write the cases named, or all."""
    for name in names or CASES:
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        for file, octets in {**CASES[name].files(), "README.md": readme(CASES[name])}.items():
            (folder / file).write_bytes(octets)
            print(f"{name}/{file}: {len(octets)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
