"""Numbers of things in words that people read."""

from __future__ import annotations


def count(number: int, one: str, many: str = "") -> str:
    """`1 host`, `2,000 hosts`. `many` is for more than one, when it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
