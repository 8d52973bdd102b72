"""The collector in a packet process: few objects at each look, though tables free as many as they take in."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator

import pytest

from egressd.runtime.young import PACKETS_PER_LOOK, YoungObjects


@pytest.fixture
def young() -> Iterator[YoungObjects]:
    yield YoungObjects()
    gc.unfreeze()
    gc.enable()


def test_young_objects_do_not_heap_up_in_tables_that_are_full(young: YoungObjects) -> None:
    table = deque(([number] for number in range(20_000)), maxlen=20_000)
    gc.freeze()
    most = 0
    for packets in range(1, 50 * PACKETS_PER_LOOK):
        for number in range(5):
            table.append([number])  # and another is freed: gc.get_count stays where it was
        most = max(most, len(gc.get_objects(0)))
        young.look(packets)
    assert most <= 6 * PACKETS_PER_LOOK


def test_a_look_frees_cycles(young: YoungObjects) -> None:
    before = len(gc.get_objects())
    for packets in range(1, 4 * PACKETS_PER_LOOK + 1):
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert young.look(packets) == (packets % PACKETS_PER_LOOK == 0)
    assert len(gc.get_objects()) < before + 10


def test_what_an_order_brought_is_not_looked_at(young: YoungObjects) -> None:
    brought = [[number] for number in range(10_000)]
    young.keep()
    assert len(gc.get_objects(0)) < 100 and len(brought) == 10_000
