"""The benchmark's result as text, and two results compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

AIMS: Final = {
    "bulk": {"compiled": 3_000_000, "pure": 1_000_000},
    "names": {"compiled": 700_000, "pure": 200_000},
}
AIM_PEAK_BYTES: Final = 200_000_000
NOISE: Final = 0.1  # a change smaller than this is none, at medians of a few runs on a busy machine
STAGES: Final = ("read", "gate", "dissect", "engine")


def render(result: dict[str, Any]) -> str:
    """The tables."""
    about = result["machine"]
    slowest, quickest = result["loop_ns"][1], result["loop_ns"][0]
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['system']}, load {about['load'][0]} to "
        f"{result['load_after'][0]}",
        f"{result['python']}; " + "; ".join(result["tools"].values()),
        f"not installed, so not measured: {', '.join(result['lacking'])}",
        f"fixed loop: {quickest:.0f} to {slowest:.0f} ns a turn ({slowest / quickest:.1f}x): no difference below that "
        "means anything",
    ]
    for build, told in result["commands"].items():
        lines.append(f"{build}: " + "; ".join(f"{name} {seconds:.2f} s of CPU" for name, seconds in told.items()))
    for told in result["captures"].values():
        lines += ["", *capture_lines(told, result["runs"])]
    for name in ("index", "live"):
        lines += [line for text in result.get(name, []) for line in ("", text)]
    return "\n".join([*lines, "", *verdicts(result)])


def capture_lines(told: dict[str, Any], runs: int) -> list[str]:
    """One capture's table."""
    lines = [
        f"{told['kind']}: {told['packets']:,} packets, {told['octets'] / 1e6:,.0f} MB, {told['name_packets']:,} with a "
        f"name, median of {runs}",
        f"{'':36}{'CPU us/packet':>14}{'best':>9}{'packets/CPU s':>15}{'x egressd':>11}{'MB':>6}{'found':>13}",
    ]
    for row in told["rows"]:
        found = f"{row['found']}/{row['planted']}" if row["planted"] >= 0 else ""
        note = "" if row["packets"] == told["packets"] else f" (first {row['packets']:,})"
        lines.append(
            f"{row['name'] + note:36}{row['us']:14.3f}{row['best_us']:9.3f}{row['per_s']:15,}{row['times']:>11.2f}"
            f"{row['peak_bytes'] / 1e6:6.0f}{found:>13}" + ("" if row["code"] == 0 else f"  exit code {row['code']}")
        )
    floor = told["floor"]
    lines.append("  floor: " + "; ".join(f"{name} {floor[name]} ns" for name in floor))
    for build, one in told["stages"].items():
        spent_us = told["start_up_s"][build] / told["packets"] * 1e6
        lines.append(
            f"  {build}: start {told['start_up_s'][build]:.2f} s ({spent_us:.2f} us/packet); "
            + "; ".join(f"{name} {one[name + '_ns']:,} ns" for name in STAGES if one)
        )
        memory = row_of(told["rows"], f"egressd {build}")["memory_by_quarters"]
        lines.append(f"  {build}: memory by quarters of the run " + ", ".join(f"{one / 1e6:.0f}" for one in memory))
    for build, rows in told.get("parallel", {}).items():
        if not all(rows):
            lines.append(f"  {build}: bench/parallel.py failed, see bench/work/told.errors")
            continue
        alone = rows[0]["judging_s"]
        for one in rows[1:]:
            slower = max(one["judging_s"], one["reader_s"])
            lines.append(
                f"  {build}, --jobs {one['jobs']}: judging {one['judging_s']:.2f}, each reader {one['reader_s']:.2f} s "
                f"of CPU, alone {alone:.2f} s: {alone / slower:.2f} times one process where there is a processor for "
                f"each; wall {one['wall_s']:.2f} s, alone {rows[0]['wall_s']:.2f} s"
            )
    same = len(set(told["digests"].values())) == 1
    lines.append(f"  builds, gate and --jobs agree to the byte: {'yes' if same else 'NO'}")
    return lines


def verdicts(result: dict[str, Any]) -> list[str]:
    """The aims, and whether each is met."""
    lines = []
    for build in result["builds"]:
        rows = {kind: row_of(told["rows"], f"egressd {build}") for kind, told in result["captures"].items()}
        peak = max(row["peak_bytes"] for row in rows.values())
        judged = [
            aim(f"{kind} {rows[kind]['per_s']:,} packets/s", rows[kind]["per_s"], aims[build])
            for kind, aims in AIMS.items()
            if kind in rows
        ]
        judged.append(aim(f"memory {peak:,} bytes", -peak, -AIM_PEAK_BYTES))
        missed = [kind for kind, row in rows.items() if row["found"] < row["planted"]]
        lines.append(
            f"{build}: {'; '.join(judged)}; planted names "
            + (f"NOT all found in {', '.join(missed)}" if missed else "all found")
        )
    return lines


def aim(text: str, found: float, wanted: float) -> str:
    """A figure and what was aimed at."""
    return f"{text} (aim {abs(wanted):,}): {'met' if found >= wanted else 'missed'}"


def row_of(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The row of that name."""
    return next(row for row in rows if row["name"] == name)


def compare(first: Path, second: Path) -> tuple[str, int]:
    """What changed from one result to the other, and how many rows are slower by more than noise. Times are in turns of
    the fixed loop, each by the median of its own run, so that a slower machine is no slower program."""
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (first, second))
    lines = [f"{'turns of the fixed loop a packet':50}{'before':>10}{'after':>10}{'change':>9}"]
    slower = 0
    for kind, told in after["captures"].items():
        old = {row["name"]: row for row in before["captures"].get(kind, {}).get("rows", [])}
        for row in told["rows"]:
            if row["name"] not in old:
                continue
            was, now = old[row["name"]]["turns"], row["turns"]
            worse = now / was - 1 > NOISE and row["name"].startswith("egressd")
            slower += worse
            mark = "  SLOWER" if worse else ""
            lost = "  FINDS LESS" if row["found"] < old[row["name"]]["found"] else ""
            slower += bool(lost)
            lines.append(f"{kind + ': ' + row['name']:50}{was:10.1f}{now:10.1f}{now / was - 1:+9.0%}{mark}{lost}")
    machine = after["loop_ns"][0] / before["loop_ns"][0] - 1
    lines.append(f"The machine itself (fixed loop, best): {machine:+.0%}. Changes below {NOISE:.0%} are none.")
    return "\n".join(lines), slower
