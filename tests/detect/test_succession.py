"""Ids of what was taken over lead to what it is part of by now."""

from __future__ import annotations

from egressd.detect.succession import Succession


def test_who_took_over_whom() -> None:
    succession = Succession()
    assert (succession.current("C2"), len(succession)) == ("C2", 0)
    succession.takes_over("C2", "C3")
    succession.takes_over("C1", "C2")
    assert [succession.current(one) for one in ("C1", "C2", "C3", "C4")] == ["C1", "C1", "C1", "C4"]
    assert len(succession) == 2


def test_a_long_row_is_walked_once() -> None:
    """Whoever owns the names chooses the order: to walk the row again for each contact would cost more and more."""
    succession = Succession()
    for number in range(49, 0, -1):
        succession.takes_over(f"C{number}", f"C{number + 1}")
    assert succession.current("C50") == succession.current("C30") == "C1"
    assert {succession._into[f"C{number}"] for number in range(2, 51)} == {"C1"}
