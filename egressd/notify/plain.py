"""Text from the wire for people to read: lines are ASCII, and bad names in them are defanged, for lines get copied into
mails and chats, where a click would be a contact."""

from __future__ import annotations

from typing import Final

MAX_LINE: Final = 2_000  # characters; a pipe takes up to 4,096 bytes at once or not at all (pipe(7), PIPE_BUF)


def escape(text: str, limit: int = MAX_LINE) -> str:
    """`text` in one line of printable ASCII: everything else as `\\xNN` or `\\uNNNN`, at most `limit` characters."""
    cut = text[: limit + 1]
    safe = "".join(c if " " <= c <= "~" else c.encode("unicode_escape", "replace").decode("ascii") for c in cut)
    return safe if len(safe) <= limit else safe[: limit - 2] + ".."


def defang(text: str) -> str:
    """A bad name, address or URL so that no program takes it for a link: `hxxp://evil[.]example/`."""
    scheme, separator, rest = text.rpartition("://")
    return escape(scheme.replace("tt", "xx") + separator + rest.replace(".", "[.]"), 300)
