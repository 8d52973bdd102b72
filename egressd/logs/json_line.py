"""One line of JSON as an object whose members are asked for by type. Only Malformed leaves it."""

from __future__ import annotations

import json
from typing import Any

from egressd.errors import Malformed


class Fields:
    """Members of a JSON object; what is absent or of another type is "" or 0 or empty."""

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members

    def text(self, name: str) -> str:
        """A text."""
        value = self.members.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        """A whole number that is not negative."""
        value = self.members.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0

    def inner(self, name: str) -> Fields:
        """An object within."""
        value = self.members.get(name)
        return Fields(value if isinstance(value, dict) else {})

    def objects(self, name: str, most: int) -> list[Fields]:
        """The objects of a list, the first `most`."""
        value = self.members.get(name)
        return [Fields(one) for one in value[:most] if isinstance(one, dict)] if isinstance(value, list) else []

    def texts(self, name: str, most: int) -> list[str]:
        """The texts of a list, the first `most`."""
        value = self.members.get(name)
        return [one for one in value[:most] if isinstance(one, str)] if isinstance(value, list) else []


def parse_object(line: bytes) -> Fields:
    """The object on a line. Raises Malformed when it is none, is nested too deeply or holds a number without end."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError, and so is a number of 5,000 digits
        raise Malformed("a line is no JSON") from None
    if not isinstance(found, dict):
        raise Malformed("a line is no object of JSON")
    return Fields(found)
