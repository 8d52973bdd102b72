"""The path and query of a URL in one form, so that what means the same compares as the same (RFC 3986 section 6.2.2).

Doubled slashes count as one, as servers read them: nginx (`merge_slashes`) and Apache (`MergeSlashes`) by default,
before they look at dot segments.
"""

from __future__ import annotations

import re
from typing import Final

_ODD: Final = re.compile(r"%|//|/\.")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")  # section 2.3
# By the two digits behind a percent sign: the character, if it needs no escape; capitals if it does (section 6.2.2.1).
_FORMS: Final = {
    digits: chr(code) if _UNRESERVED.match(chr(code)) is not None else f"%{code:02X}"
    for code in range(256)
    for high in {f"{code:02x}"[0], f"{code:02X}"[0]}
    for digits in (high + f"{code:02x}"[1], high + f"{code:02X}"[1])
}
_QUERY: Final = re.compile(r"[?#]")


def normal_path(path: str) -> str:
    """The normal form of a path in origin form, with or without a query; that of a normal form is itself. Takes time
    that grows with the length alone."""
    if _ODD.search(path) is None:
        return path
    if "%" in path:
        first, *others = path.split("%")
        pieces = [first]
        for one in others:
            form = _FORMS.get(one[:2])
            pieces.append(form + one[2:] if form is not None else "%25" + one)  # no escape: it stands for itself
        path = "".join(pieces)
    found = _QUERY.search(path)
    end = found.start() if found is not None else len(path)
    kept: list[str] = []
    last = ""
    for last in path[:end].split("/"):
        if last == "..":
            if kept:
                kept.pop()
        elif last and last != ".":
            kept.append(last)
    if kept and last in ("", ".", ".."):
        kept.append("")  # a folder
    return "/" + "/".join(kept) + path[end:]
