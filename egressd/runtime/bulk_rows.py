"""What packet processes tell in bulk, and may be lost: contacts for history, passive DNS, who sent whose frames."""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import Malformed
from egressd.runtime.messages import Values

_MAC: Final = re.compile(r"[0-9a-f]{12}")

# Contacts of a client: its address, registered domain, name, server address, first and last time, how many.
HistoryRow = tuple[bytes, str, str, bytes, int, int, int]
Tenants = tuple[tuple[str, bytes, int], ...]  # (registered domain, address, when)


def unpack_history(packed: object) -> list[HistoryRow]:
    """History rows of a batch. Raises Malformed."""
    values = Values(packed)
    rows: list[HistoryRow] = []
    for _ in range(len(values)):
        one = Values(values.next())
        rows.append(
            (one.address(), one.text(), one.text(), one.address(), one.number(), one.number(), max(0, one.number()))
        )
    return rows


def unpack_spoken(packed: object) -> list[tuple[bytes, bytes, bool, int]]:
    """(MAC, client, attached, when) of a batch: who sent whose frames. Raises Malformed."""
    values = Values(packed)
    rows: list[tuple[bytes, bytes, bool, int]] = []
    for _ in range(len(values)):
        one = Values(values.next())
        mac = one.text()
        if _MAC.fullmatch(mac) is None:
            raise Malformed("a MAC was expected")
        rows.append((bytes.fromhex(mac), one.host(), one.flag(), one.number()))
    return rows


def unpack_tenants(packed: object) -> Tenants:
    """Passive DNS of a batch. Raises Malformed."""
    values = Values(packed)
    rows: list[tuple[str, bytes, int]] = []
    for _ in range(len(values)):
        one = Values(values.next())
        rows.append((one.text(), one.address(), one.number()))
    return tuple(rows)
