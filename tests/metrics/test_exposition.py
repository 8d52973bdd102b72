"""What is rendered is what was counted, and bounded whatever traffic does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from egressd.metrics.definition import FACTS, HISTOGRAM, ONE_OF
from egressd.metrics.exposition import render
from egressd.metrics.histogram import Histogram
from egressd.metrics.snapshot import DEFINITIONS, Snapshot, most_series


def samples(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """(name, label values...) to number, of the rendered text."""
    text = render(snapshot)[0].decode()
    return {(one.name, *one.labels.values()): one.value for family in parse_text(text) for one in family.samples}


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
    text, content_type = render(Snapshot(packets=5), accept)
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(text.decode())}
    assert families["egressd_packets"].samples[0].value == 5
    assert render(Snapshot())[1].startswith("text/plain; version=0.0.4")


def test_an_empty_snapshot_has_every_metric() -> None:
    text = render(Snapshot())[0].decode()
    for _, metric in DEFINITIONS:
        assert f"# TYPE {metric.name} " in text


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
