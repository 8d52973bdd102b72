"""The path and query of a URL in one form, so that what means the same compares as the same (RFC 3986 section 6.2.2).

Doubled slashes count as one, as servers read them: nginx (`merge_slashes`) and Apache (`MergeSlashes`) by default,
before they look at dot segments.
"""

from __future__ import annotations

from typing import Final

_DIGITS: Final = "0123456789ABCDEFabcdef"
# By the two digits of its escape: a character that needs none (section 2.3).
_UNRESERVED: Final = {
    f"{ord(char):02X}": char for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-"
}


def normal_path(path: str) -> str:
    """The normal form of a path in origin form, with or without a query; that of a normal form is itself. Takes time
    that grows with the length alone."""
    if "%" not in path and "//" not in path and "/." not in path:
        return path
    if "%" in path:
        first, *others = path.split("%")
        pieces = [first]
        for one in others:
            digits = one[:2]
            if len(digits) == 2 and not digits.strip(_DIGITS):
                digits = digits.upper()  # section 6.2.2.1
                pieces.append(_UNRESERVED.get(digits, "%" + digits) + one[2:])
            else:
                pieces.append("%25" + one)  # no escape: it stands for itself
        path = "".join(pieces)
    end = len(path)
    for mark in "?#":
        at = path.find(mark, 0, end)
        end = at if at >= 0 else end
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
