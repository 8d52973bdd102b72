"""What the live benches take and what they tell (bench/live.py)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.netns.scenarios import quantile


class Options(NamedTuple):
    """What all benches take. `code` is where the package lies that the daemon runs."""

    scale: float
    code: Path
    realtime: bool


class Row(NamedTuple):
    """One line of the table. `holds` is None where nothing was promised."""

    what: str
    promised: str
    found: str
    holds: bool | None


def times(values: list[float]) -> str:
    """A distribution in milliseconds."""
    row = (quantile(values, 0.5), quantile(values, 0.9), quantile(values, 0.99), max(values, default=0.0))
    return "p50 {:.2f}  p90 {:.2f}  p99 {:.2f}  max {:.2f} ms".format(*row) + f"  ({len(values)})"


def render(name: str, rows: list[Row]) -> str:
    """A table."""
    width = max(len(row.what) for row in rows)
    promised = max(len(row.promised) for row in rows)
    lines = [name]
    for row in rows:
        mark = {True: "holds", False: "MISSED", None: ""}[row.holds]
        lines.append(f"  {row.what:<{width}}  {row.promised:<{promised}}  {mark:<6}  {row.found}")
    return "\n".join(lines)
