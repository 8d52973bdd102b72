"""Histograms: quantiles lie where they should, cells add up, nonsense is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.metrics.histogram import BOUNDS_S, Histogram

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.floats(min_value=0, max_value=9.9), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_lies_in_the_cell_of_the_true_one(durations: list[float], p: float) -> None:
    histogram = Histogram()
    for one in durations:
        histogram.observe(one)
    found = histogram.quantile(p)
    assert found is not None
    rank = max(1, -(-p * len(durations) // 1))
    true = sorted(durations)[int(rank) - 1]
    upper = next(bound for bound in BOUNDS_S if true <= bound)
    lower = max((bound for bound in BOUNDS_S if bound < upper), default=0.0)
    assert lower <= found <= upper


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_histograms_merge(ones: list[float], others: list[float]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for seconds in ones:
        one.observe(seconds)
        both.observe(seconds)
    for seconds in others:
        other.observe(seconds)
        both.observe(seconds)
    one.merge(other.cells)
    assert one.cells == both.cells
    assert Histogram(both.cells).count == len(ones) + len(others)
    assert Histogram(both.cells).cells is not both.cells


@pytest.mark.parametrize("cells", [[1], [0] * (len(BOUNDS_S) + 3), [-1] + [0] * (len(BOUNDS_S) + 1)])
def test_what_is_no_histogram_is_refused(cells: list[int]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram().merge(cells)


def test_odd_durations_are_counted() -> None:
    histogram = Histogram()
    for seconds in (-1.0, float("nan"), float("inf")):
        histogram.observe(seconds)
    assert histogram.count == 3
    assert histogram.cells[0] == 2 and histogram.cells[-2] == 1
    assert histogram.quantile(1.0) == BOUNDS_S[-1]
    assert Histogram().quantile(0.5) is None


def test_importing_them_loads_no_library() -> None:
    """Packet processes use them."""
    heavy = "'prometheus_client' in sys.modules or 'asyncio' in sys.modules"
    code = f"import sys, egressd.metrics.histogram; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
