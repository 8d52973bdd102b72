"""The claim to the kernel's table is tried again for as long as somebody else has its name."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import socket

import pytest

from egressd.enforce.table_lock import TableHeld, TableLock
from egressd.runtime.table_claim import TableClaim
from tests.loops import in_loop


@pytest.fixture
def name() -> bytes:
    return b"\0egressd-test-" + secrets.token_hex(8).encode()


TAKEN = "another egressd would not be noticed: its name is taken (Connection refused)"


@in_loop
async def test_a_squatter_that_goes_leaves_the_name_to_us(name: bytes) -> None:
    """It was taken at the start or never: after a restart of whatever squatted, a second egressd was not noticed."""
    told: list[str] = []
    claim = TableClaim(told.append, TableLock(name))
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(name)
        claim.take()
        claim.look()
        claim.look()
        assert told == [TAKEN], "once"
    claim.look()
    claim.look()
    assert told == [TAKEN, ""]
    for _ in range(40):  # more than wait to be answered
        with pytest.raises(TableHeld):
            TableLock(name).take()
        await asyncio.sleep(0)
    claim.let_go()
    told.clear()
    claim.look()  # in mode monitor nothing is claimed
    other = TableLock(name)
    other.take()
    assert other.is_held and told == []
    other.release()


@in_loop
async def test_without_a_file_descriptor_who_asks_waits_and_costs_nothing(name: bytes) -> None:
    """The socket stays readable: it was asked again in each turn of the loop, and took a core for as long as that."""

    class Counting(TableLock):
        answers = 0

        def answer(self) -> bool:
            self.answers += 1
            return super().answer()

    lock = Counting(name)
    claim = TableClaim(lambda text: None, lock)
    claim.take()
    with pytest.raises(TableHeld):
        TableLock(name).take()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_free = os.dup(0)
    os.close(next_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, hard))
    try:
        for _ in range(50):
            await asyncio.sleep(0)
        claim.look()
        for _ in range(50):
            await asyncio.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert lock.answers == 2
    claim.look()
    for _ in range(40):  # more than wait to be answered
        with pytest.raises(TableHeld):
            TableLock(name).take()
        await asyncio.sleep(0)
    claim.let_go()


@in_loop
async def test_another_egressd_that_was_quicker_is_told(name: bytes) -> None:
    told: list[str] = []
    claim = TableClaim(told.append, TableLock(name))
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(name)
        claim.take()
        claim.look()
    other = TableLock(name)
    other.take()
    claim.look()
    other.answer()
    claim.look()
    assert len(told) == 2 and "has the table inet egressd: two would take back each other's blocks" in told[1]
    other.release()
    claim.look()
    assert told[2:] == [""]
    claim.let_go()


@in_loop
async def test_who_is_refused_claims_nothing(name: bytes) -> None:
    told: list[str] = []
    claim = TableClaim(told.append, TableLock(name))
    other = TableLock(name)
    other.take()
    with pytest.raises(TableHeld):
        claim.take()
    other.release()
    claim.look()
    other.take()
    assert other.is_held and told == []
    other.release()
