"""First connections of one host while another has a flood, each with a packet process of its own (bench/live.py queue).

Which of two processes gets a host's packets follows from its address (egressd/capture/fanout.py), so the flood's
addresses are chosen. What the sender cannot send on this machine is told as what it was.
"""

from __future__ import annotations

from typing import Final

from bench.live_rows import Options, Row, times
from tests.netns import scenarios
from tests.netns.ground import Ground
from tests.netns.load import QUEUES
from tests.netns.topology import NOWHERE

RATE: Final = 100_000
MILLISECOND_NS: Final = 1_000_000


def queue(options: Options) -> list[Row]:
    """First connections of a host whose packet process has nothing else, while the other one has a flood."""
    rows: list[Row] = []
    count = max(20, int(300 * options.scale))
    capture = {"capture": {"processes": QUEUES}}
    with Ground(("april", "may")) as ground:
        ground.gateway.run("ip", "route", "add", "blackhole", NOWHERE)  # forwarding the flood is not what is measured
        for rate in (0, RATE):
            found = scenarios.first_connections(
                ground, count, [MILLISECOND_NS], load_rate=rate, apart=bool(rate), realtime=options.realtime,
                options=capture, code=options.code,
            )  # fmt: skip
            beside = "two processes, idle"
            if rate:
                sent = found.sent[0]
                beside = f"beside {sent.packets / sent.took_s:,.0f} questions/s for the other process"
            own = found.status["time_to_block_ms"]
            bounds = (1.0, 5.0) if rate else (0.3, 1.0)
            rows.append(
                Row(
                    f"{beside}: answer to kernel, the daemon's own histogram",
                    f"p99 <= {bounds[1]:g} ms" if rate else f"p50 <= {bounds[0]:g}, p99 <= {bounds[1]:g} ms",
                    f"p50 {own['p50']}  p99 {own['p99']} ms ({own['count']})",
                    own["p99"] <= bounds[1] and (bool(rate) or own["p50"] <= bounds[0]),
                )
            )
            rows.append(
                Row(f"{beside}: the same as another process heard the kernel", "", times(found.pushed_ms), None)
            )
            rows.append(Row(f"{beside}: blocked at 1 ms", "", f"{found.blocked()} of {count}", None))
            if found.sent:
                rows += _queues(beside, found)
    return rows


def _queues(beside: str, found: scenarios.First) -> list[Row]:
    """What was offered to the two packet processes, and what became of it."""
    sent = found.sent[0]
    told = f"{sent.packets / sent.took_s:,.0f}/s for {sent.took_s:.0f} s, at worst {sent.late_us / 1000:.0f} ms late"
    rows = [Row(f"{beside}: offered", f"{RATE:,}/s", told, sent.packets >= 0.98 * RATE * sent.took_s)]
    processes = sorted(found.status["packet_processes"], key=lambda one: -int(one["packets"]))
    for which, one in zip(("flooded", "the host's"), processes, strict=True):
        told = (
            f"{one['packets']:,} read, {one['drops']:,} lost, {found.cpu_share.get(one['pid'], 0):.0%} of a processor"
        )
        rows.append(Row(f"{beside}: {which} process", "0 lost", told, one["drops"] == 0))
    return rows
