"""Ledgers with a past: many blocks in force, as a gateway has after years."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from egressd.model import Decision, Indicator, Match, Target
from egressd.store import decisions
from egressd.store.decisions import NewTarget
from egressd.store.ledger import open_ledger
from egressd.units import DAY_US
from tests.netns.daemon import NOBODY

EACH: Final = 100  # addresses of a decision


def many_addresses(count: int) -> Iterator[str]:
    """Addresses that nothing protects and nobody has: of 45.0.0.0/8 and up; one in eight is IPv6."""
    for number in range(count):
        if number % 8 == 7:
            yield str(ip_address(0x2A0F0001 << 96 | number + 1))
        else:
            yield f"45.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def listed(count: int) -> str:
    """The list that those blocks come from."""
    return "".join(f"{_domain(first)} confidence=90\n" for first in range(0, count + 1, EACH))


def _domain(first: int) -> str:
    return f"past{first}.example"


def fill(folder: Path, count: int, extra: tuple[str, ...] = ()) -> None:
    """Make the ledger in a daemon's state folder hold `count` blocked addresses and `extra` ones. For a daemon that is
    not running."""
    path = folder / "state" / "ledger.db"
    now_us = time.time_ns() // 1000
    ledger = open_ledger(path, now_us)
    addresses = [*many_addresses(count), *extra]
    try:
        for first in range(0, len(addresses), EACH):
            domain = _domain(first)
            indicator = Indicator(
                "domain", domain, "registered", "", domain, "*", "block.txt", 1 + first // EACH, "", 90, 0, 0, "", ""
            )
            match = Match("host", indicator, domain, "*")
            targets = [NewTarget(Target("registered_domain", domain))]
            targets += [NewTarget(Target("address", one), now_us + DAY_US) for one in addresses[first : first + EACH]]
            decision = Decision(
                "", now_us, 0, "block", tuple(one.target for one in targets), "a past", "listed", "E2", "enforce",
                match, b"", domain, "",
            )  # fmt: skip
            ledger.call(decisions.commit, decision, targets, "policy")
    finally:
        ledger.close()
    for file in path.parent.iterdir():
        os.chown(file, NOBODY, NOBODY)
