"""The calendar: what is due, in order of time."""

from __future__ import annotations

from egressd.detect.blocks import Blocks, main_target
from egressd.detect.calendar import MAX_BACK, NEVER_US, Calendar
from egressd.intel.index import Index
from egressd.model import Match
from tests.detect.scene import SUFFIXES, at, listed, when


def test_arrivals_and_lapses_in_order_of_time() -> None:
    lines = f"a.example added={when(10)}\nb.example added={when(10)}\nc.example added={when(30)}\nd.example"
    index = Index.build(listed(lines), SUFFIXES)
    calendar = Calendar(index.pending_after(0))
    blocks = Blocks()
    for line in (f"e.example expires={when(20)}", f"f.example expires={when(10)}", "g.example"):
        (indicator,) = listed(line)
        match = Match("host", indicator, indicator.registered_domain, "example")
        calendar.watch(blocks.add(main_target(match), match, 0))
    said = []
    while calendar.next_us < NEVER_US:
        due_us = calendar.next_us
        lapsing = calendar.lapsing()
        said.append((due_us, lapsing or sorted(one.value for one in calendar.arriving(due_us))))
    assert said == [(at(10), "D2"), (at(10), ["a.example", "b.example"]), (at(20), "D1"), (at(30), ["c.example"])]


def test_nothing_is_ever_due() -> None:
    calendar = Calendar([])
    assert (calendar.next_us, calendar.lapsing(), calendar.arriving(0)) == (NEVER_US, "", set())


def test_what_came_into_force_too_early_is_yet_to_come_once_time_goes_back() -> None:
    index = Index.build(listed(f"a.example added={when(0)}\nb.example added={when(9_000)}"), SUFFIXES)
    calendar = Calendar(index.pending_after(0))
    for _ in range(MAX_BACK):
        while calendar.next_us < NEVER_US:
            calendar.arriving(at(99_000))
        assert calendar.back_us == at(9_000)
        calendar.go_back(at(5))
        assert calendar.next_us == at(9_000), "the other one is in force"
    while calendar.next_us < NEVER_US:
        calendar.arriving(at(99_000))
    assert calendar.back_us == 0, "a capture whose times leap to and fro is not followed for ever"


def test_packets_a_little_out_of_order_are_no_time_that_goes_back() -> None:
    index = Index.build(listed(f"a.example added={when(9_000)}"), SUFFIXES)
    calendar = Calendar(index.pending_after(0))
    calendar.arriving(at(9_001))
    assert calendar.back_us == at(9_000 - 3_600)
