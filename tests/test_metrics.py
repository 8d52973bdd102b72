"""The daemon's metrics: what is rendered is what was counted, bounded, and as documented."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from egressd.metrics import (
    BOUNDS_S,
    DEFINITIONS,
    FACTS,
    HISTOGRAM,
    ONE_OF,
    Health,
    Histogram,
    LossWindow,
    Snapshot,
    health_of,
    most_series,
    render,
    render_reference,
)

ROOT = Path(__file__).resolve().parent.parent
SECOND_US = 1_000_000


def samples(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """(name, label values...) to number, of the rendered text."""
    text = render(snapshot)[0].decode()
    return {(one.name, *one.labels.values()): one.value for family in parse_text(text) for one in family.samples}


def seeing(**changes: Any) -> Snapshot:
    """A daemon that is well."""
    well = Snapshot(sensor_up={"lan0": 1, "lan1": 1}, sensor_shown_s={"lan0": 0.1, "lan1": 2.0}, packet_processes=2)
    return replace(well, **changes)


# -- rendering


def test_every_kind_of_metric_is_rendered() -> None:
    histogram = Histogram()
    for seconds in (0.00005, 0.00025, 0.4, 100.0):
        histogram.observe(seconds)
    found = samples(
        Snapshot(
            packets=7,
            packets_dropped={"kernel": 3},
            sightings={"sibling": 2},
            blocks={("nftables", "active"): 5, ("rpz", "failed"): 1},
            list_age_s={"lists.d/c2.txt": 12.5},
            time_to_block=histogram,
            mode="approve",
            build={"version": "1.0", "python": "3.11.7", "compiled": "yes"},
        )
    )
    assert found["egressd_packets_total",] == 7
    assert found["egressd_packets_dropped_total", "kernel"] == 3
    assert found["egressd_sightings_total", "sibling"] == 2
    assert found["egressd_sightings_total", "host"] == 0  # known values are there before their first count
    assert found["egressd_blocks", "nftables", "active"] == 5
    assert found["egressd_blocks", "rpz", "failed"] == 1
    assert found["egressd_list_age_seconds", "lists.d/c2.txt"] == 12.5
    assert [found["egressd_mode", mode] for mode in ("monitor", "approve", "enforce")] == [0, 1, 0]
    assert found["egressd_build_info", "yes", "3.11.7", "1.0"] == 1
    assert found["egressd_time_to_block_seconds_count",] == 4
    assert found["egressd_time_to_block_seconds_sum",] == pytest.approx(100.4003)
    cumulative = [
        found["egressd_time_to_block_seconds_bucket", one] for one in ("0.0001", "0.0003", "0.5", "10.0", "+Inf")
    ]
    assert cumulative == [1, 2, 3, 3, 4]


def test_both_formats_are_offered() -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    text, content_type = render(seeing(packets=5), accept)
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(text.decode())}
    assert families["egressd_packets"].samples[0].value == 5
    assert render(seeing())[1].startswith("text/plain; version=0.0.4")


def test_an_empty_snapshot_has_every_metric() -> None:
    text = render(Snapshot())[0].decode()
    for _, metric in DEFINITIONS:
        assert f"# TYPE {metric.name} " in text


# -- bounds


def flood(number: int) -> Any:
    return {f"word_{one}": one for one in range(number)}


def test_no_flood_of_labels_makes_more_series_than_the_bound() -> None:
    filled: dict[str, Any] = {}
    for name, metric in DEFINITIONS:
        if metric.kind in (HISTOGRAM, FACTS, ONE_OF) or not metric.labels:
            continue
        if len(metric.labels) == 2:
            filled[name] = {(f"a{one}", state): 1 for one in range(1000) for state in ("active", "odd")}
        else:
            filled[name] = flood(1000)
    assert len(samples(Snapshot(**filled))) <= most_series() < 500


def test_what_is_beyond_a_bound_adds_up() -> None:
    found = samples(Snapshot(decisions=flood(100), sensor_shown_s=flood(50), sensor_up={**flood(40), "x": 0}))
    total = sum(number for (name, *_), number in found.items() if name == "egressd_decisions_total")
    assert total == sum(range(100))
    assert found["egressd_sensor_shown_seconds", "other"] == 49  # the worst, not the sum
    assert found["egressd_sensor_up", "other"] == 0


@pytest.mark.parametrize(
    "hostile", ["evil.example", "192.0.2.1", "2001:db8::1", "UPPER", "", "a b", 'x"} 1\n', "x" * 41]
)
def test_no_name_and_no_address_becomes_the_word_of_a_label(hostile: str) -> None:
    found = samples(
        Snapshot(decisions={hostile: 4}, sightings={hostile: 5}, blocks={("nftables", hostile): 6}, mode=hostile)
    )
    assert found["egressd_decisions_total", "other"] == 4
    assert found["egressd_sightings_total", "other"] == 5
    assert found["egressd_blocks", "nftables", "other"] == 6
    assert sum(number for (name, *_), number in found.items() if name == "egressd_mode") == 0


@given(st.text(max_size=200))
def test_configured_names_cannot_break_the_format(name: str) -> None:
    (found,) = [
        labels for labels in samples(Snapshot(list_indicators={name: 1})) if labels[0] == "egressd_list_indicators"
    ]
    assert len(found[1]) <= 80 and found[1].isprintable()


# -- definitions


def test_names_follow_the_conventions() -> None:
    names = [metric.name for _, metric in DEFINITIONS]
    assert len(set(names)) == len(names)
    for _, metric in DEFINITIONS:
        assert re.fullmatch(r"egressd_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.doc.endswith("."), metric.name
        assert not {"name", "domain", "client", "address", "host"} & set(metric.labels)
        for unit in ("_ms", "_us", "_kb", "_mb"):
            assert not metric.name.endswith(unit), "base units"


def test_reference_is_fresh() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == render_reference(), (
        "run: python -m egressd.metrics > docs/metrics.md"
    )


def test_importing_it_loads_no_library() -> None:
    """Packet processes use Histogram."""
    code = "import sys, egressd.metrics; sys.exit('prometheus_client' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# -- histogram


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


# -- loss


def lose(window: LossWindow, seconds: range, received: int, lost: int) -> None:
    """A steady stream over some seconds: `received` and `lost` each second."""
    for second in seconds:
        window.note(second * received, second * lost, second * SECOND_US)


@pytest.mark.parametrize(
    ("received", "lost", "degraded"),
    [(1000, 0, False), (1000, 9, False), (1000, 11, True), (0, 5, True), (0, 0, False)],
)
def test_loss_over_one_percent_for_a_minute_is_degraded(received: int, lost: int, degraded: bool) -> None:
    window = LossWindow()
    lose(window, range(60), received, lost)
    assert not window.degraded(59 * SECOND_US)  # not a minute yet
    window.note(60 * received, 60 * lost, 60 * SECOND_US)
    assert window.degraded(60 * SECOND_US) is degraded


def test_loss_ends_when_the_minute_is_over() -> None:
    window = LossWindow()
    lose(window, range(100), 1000, 50)
    assert window.degraded(99 * SECOND_US) and window.ratio(99 * SECOND_US) == pytest.approx(50 / 1050)
    for second in range(100, 161):
        window.note(99_000 + (second - 99) * 1000, 99 * 50, second * SECOND_US)
    assert not window.degraded(160 * SECOND_US) and window.ratio(160 * SECOND_US) == 0.0


def test_what_was_not_told_for_a_minute_is_not_known() -> None:
    window = LossWindow()
    lose(window, range(100), 1000, 50)
    assert window.degraded(150 * SECOND_US)
    assert not window.degraded(159 * SECOND_US) and window.ratio(159 * SECOND_US) == 0.0


def test_totals_or_clocks_that_go_back_begin_anew() -> None:
    window = LossWindow()
    lose(window, range(100), 1000, 50)
    window.note(10, 0, 101 * SECOND_US)
    assert window.ratio(101 * SECOND_US) == 0.0 and not window.degraded(101 * SECOND_US)
    window.note(20, 10, 50 * SECOND_US)
    assert window.ratio(50 * SECOND_US) == 0.0


def test_frequent_notes_are_bounded() -> None:
    window = LossWindow()
    for milli in range(0, 130_000, 10):
        window.note(milli * 10, milli, milli * 1000)
    assert len(window._samples) <= 130
    assert window.degraded(130 * SECOND_US) and window.ratio(130 * SECOND_US) == pytest.approx(1 / 11, abs=0.001)


# -- health


@pytest.mark.parametrize(
    ("snapshot", "status", "reason"),
    [
        (seeing(), "ok", ""),
        (Snapshot(), "down", "no interface is captured from"),
        (seeing(packet_processes=0), "down", "no packet process runs"),
        (seeing(sensor_up={"lan0": 0, "lan1": 0}), "down", "interface lan0 is not captured from"),
        (seeing(sensor_shown_s={"lan0": 301, "lan1": 9999}), "down", "lan1 has shown no packet for 9999 s"),
        (seeing(sensor_shown_s={"lan0": 301, "lan1": 0}), "degraded", "lan0 has shown no packet for 301 s"),
        (seeing(sensor_up={"lan0": 1, "lan1": 0}), "degraded", "lan1 is not captured"),
        (seeing(sensor_up={"lan0": 1, "lan1": 0}, sensor_shown_s={"lan0": 301, "lan1": 400}), "down", "lan1 is"),
        (seeing(degraded=1, loss_ratio=0.042), "degraded", "4.2% of packets"),
        (seeing(enforcement_gap_s={"nftables": 61.0, "rpz": 0.0}), "degraded", "adapter nftables"),
        (seeing(canary_enabled=1), "degraded", "self-test fails"),
        (seeing(canary_enabled=1, canary_up=1), "ok", ""),
        (seeing(list_problems=3), "degraded", "3 mistakes"),
    ],
)  # fmt: skip
def test_health(snapshot: Snapshot, status: str, reason: str) -> None:
    found = health_of(snapshot)
    assert found.status == status
    assert reason in "; ".join(found.reasons)
    assert bool(found.reasons) == (status != "ok")


def test_health_bounds_can_be_set() -> None:
    quiet = seeing(sensor_shown_s={"lan0": 20, "lan1": 20}, enforcement_gap_s={"nftables": 5.0})
    assert health_of(quiet) == Health("ok", ())
    assert health_of(quiet, silent_after_s=10).status == "down"
    assert health_of(quiet, gap_after_s=1).status == "degraded"
