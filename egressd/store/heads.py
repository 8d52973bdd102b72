"""Heads of the audit chain, outside the ledger: one line `SEQ HASH TS_US` each, only ever appended.

Whoever holds one of these lines can tell that nothing up to it was changed or taken back. So the file belongs where
who can write the ledger cannot write: an append-only file, a log server, a mail.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from egressd.store.errors import IO, StoreError
from egressd.store.syncing import append

MAX_HEADS_BYTES: Final = 64 << 20  # of the file's end are read; a head a minute makes 50 MB a year


class Head(NamedTuple):
    """A row's number and hash (hex), and when it was the newest; 0 = not known."""

    seq: int
    hash: str
    ts_us: int


def render_head(head: Head) -> str:
    """One line, without its end."""
    return f"{head.seq} {head.hash} {head.ts_us}"


def parse_head(text: str) -> Head | None:
    """`SEQ HASH TS_US`, or `SEQ:HASH` as a person gives it; None for anything else."""
    parts = text.replace(":", " ").split()
    if len(parts) == 2:
        parts.append("0")
    if len(parts) != 3 or len(parts[1]) != 64:
        return None
    try:
        head = Head(int(parts[0]), parts[1].lower(), int(parts[2]))
        bytes.fromhex(head.hash)
    except ValueError:
        return None
    return head if head.seq > 0 else None


def append_head(path: Path, head: Head, now_us: int) -> None:
    """Add a line that says `head` was the newest at `now_us`; fsynced. Raises StoreError when it cannot be written."""
    try:
        # The line's end stands before it too: a line torn by a power cut spoils no other. Empty lines are nothing.
        append(path, f"\n{render_head(head._replace(ts_us=now_us))}\n".encode("ascii"))
    except OSError as error:
        raise StoreError(f"{path}: the audit head was not written: {error.strerror}", IO) from error


def load_heads(path: Path) -> tuple[list[Head], list[str]]:
    """Every head of the file, in its order, and what is wrong with it (`file:line: what`). No file: no heads.

    Raises StoreError when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - MAX_HEADS_BYTES))
            lines = file.read(MAX_HEADS_BYTES).decode("ascii", "replace").split("\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}", IO) from error
    heads: list[Head] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        head = parse_head(line)
        if head is None:
            if number > 1 or size_bytes <= MAX_HEADS_BYTES:
                problems.append(f"{path}:{number}: not a head (number, hash, time)")
        elif heads and head.seq < heads[-1].seq:
            problems.append(f"{path}:{number}: row {head.seq} after row {heads[-1].seq}: the ledger went back")
            heads.append(head)
        else:
            heads.append(head)
    return heads, problems
