"""Every metric is named and documented as is the custom."""

from __future__ import annotations

import re
from pathlib import Path

from egressd.metrics.reference import render_reference
from egressd.metrics.snapshot import DEFINITIONS

ROOT = Path(__file__).resolve().parents[2]


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
        "run: python -m egressd.metrics.reference > docs/metrics.md"
    )
