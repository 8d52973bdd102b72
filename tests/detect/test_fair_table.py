"""A table that no single source fills: shares, the crowd, and what is held is what was set last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.fair_table import FairTable
from egressd.wire.table import SHARE

FLOOD, OTHER = b"flood", b"other"


def test_a_source_over_its_share_stands_in_the_crowd_and_pushes_out_nobody_else() -> None:
    table: FairTable[int, int] = FairTable(400)
    assert all(table.claim(-number, number, OTHER) for number in range(1, 11))
    within = [table.claim(number, number, FLOOD) for number in range(10_000)]
    assert sum(within) == 400 // SHARE // 2 and not any(within[20:])
    assert table.over_share == 10_000 - 20
    assert all(table.get(-number) == number for number in range(1, 11))
    assert table.get(9_999) == 9_999 and table.get(5_000) is None
    assert len(table) + len(table.crowd) <= 400
    assert table.evicted == 0 and table.crowd.evicted > 9_000


def test_our_own_has_no_bound_but_the_tables() -> None:
    table: FairTable[int, int] = FairTable(400)
    assert all(table.claim(number, number, b"") for number in range(1_000))
    assert len(table) <= 300 and table.over_share == 0


def test_many_sources_are_forgotten_like_entries() -> None:
    table: FairTable[int, int] = FairTable(400)
    for number in range(10_000):
        assert table.claim(number, number, number.to_bytes(4, "big"))
    assert len(table._claimed) <= 400 // SHARE


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "get", "drop"]), st.integers(0, 30), st.integers(0, 9), st.integers(0, 2)),
        max_size=300,
    ),
    st.integers(4, 60),
)
def test_what_is_held_is_what_was_set_last(steps: list[tuple[str, int, int, int]], limit: int) -> None:
    table: FairTable[int, int] = FairTable(limit)
    model: dict[int, int] = {}
    for what, key, value, source in steps:
        held = table.get(key)
        assert held is None or held == model[key]
        if what == "set":
            if held is None:
                table.claim(key, value, bytes([source]) * source)
            else:
                table.renew(key, value)
            model[key] = value
        elif what == "drop" and held is not None:
            table.take(key)
            assert table.get(key) is None
    assert len(table) + len(table.crowd) <= max(4, limit) + 2
