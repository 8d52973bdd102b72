"""Commands as the tests run them: in this process, or in one of their own to see what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from egressd.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent

HEAVY = ("scapy", "yaml", "tldextract", "aiohttp", "cryptography", "asyncio")
LOADS = """
import sys
from egressd.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules)
"""


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run a command in this process: exit code, standard output, standard error."""
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def loaded(*argv: str) -> tuple[list[str], str]:
    """The modules that a command loads, and its standard output."""
    done = subprocess.run([sys.executable, "-c", LOADS, *argv], capture_output=True, text=True, cwd=ROOT, check=True)
    out, _, modules = done.stdout.rstrip("\n").rpartition("\n")
    return modules.split(), out


def of(modules: list[str], *packages: str) -> list[str]:
    """Those of the modules that are one of these packages, or lie in one."""
    return [one for one in modules if any(one == name or one.startswith(name + ".") for name in packages)]
