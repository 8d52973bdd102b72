"""The parser of the command line, as argparse has it but for an output that cannot be written, and slips of a key."""

from __future__ import annotations

import sys
from argparse import Action, ArgumentError, ArgumentParser
from typing import Any


class Parser(ArgumentParser):
    """argparse passes over the first, so that `--help` would say nothing and end well (raises OSError), and lists all
    that can stand somewhere where one of it was mistyped."""

    def _check_value(self, action: Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from difflib import get_close_matches  # only mistakes need it

            near = get_close_matches(str(value), map(str, action.choices), 1)
            if near:
                raise ArgumentError(action, f"{str(value)!r} is none; did you mean {near[0]!r}?")
        super()._check_value(action, value)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            super()._print_message(message, file)
            return
        file.write(message)
        file.flush()
