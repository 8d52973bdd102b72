"""The parser of the command line, as argparse has it but for an output that cannot be written."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any


class Parser(ArgumentParser):
    """argparse passes over that, so that `--help` would say nothing and end well. Raises OSError."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            super()._print_message(message, file)
            return
        file.write(message)
        file.flush()
