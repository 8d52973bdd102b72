"""What may stand where a command wants the path of a file."""

from __future__ import annotations

from argparse import ArgumentTypeError


def path_given(text: str) -> str:
    """Any path but an empty one, which a shell makes of a variable that is not set: it was taken for none at all, and
    the command did something else than what was asked. Raises ArgumentTypeError."""
    if not text:
        raise ArgumentTypeError("the path is empty; name a file, or leave the option out")
    return text
