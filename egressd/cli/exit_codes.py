"""What each exit code means: scripts rest on them."""

from __future__ import annotations

from typing import Final

OK: Final = 0
RUNTIME: Final = 1
USAGE: Final = 2
INVALID: Final = 3
UNREACHABLE: Final = 4
FINDINGS: Final = 10

EPILOG: Final = (
    "exit codes: 0 ok, 1 runtime error or refused, 2 usage, 3 config or list invalid, 4 daemon unreachable,"
    " 10 findings (with --exit-code)"
)
