"""The live daemon under measurement: real packets, real kernel, in network namespaces. Needs root and nft.

    python bench/live.py first          # answer to kernel, blocked first connections, against an nft process
    python bench/live.py load           # 20,000 names a second for a minute, and bulk beside it
    python bench/live.py queue          # 100,000 questions a second for the other of two packet processes
    python bench/live.py flows repair restart kill protect outage reload trying flux forged
    python bench/live.py all --out live.json
    python bench/live.py first --compiled FOLDER    # the compiled copy that scripts/compile.py made

Every row of the table says what was promised, what was found, and whether that holds. `--scale 0.1` is a quick look.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.live_queue import queue
from bench.live_rows import Options, Row, render, times
from bench.measure import machine
from tests.netns import attackers, changes, clients, kernel, ledgers, reloads, scenarios, upheaval
from tests.netns.daemon import TREE, until
from tests.netns.ground import WIDE, Ground
from tests.netns.scenarios import quantile
from tests.netns.spaces import missing

EVIL: Final = {"*.evil.example": ["203.0.113.67", "2001:db8:f::67"]}
LISTED: Final = "listed.evil.example\n"
LATER: Final = ("later1", "later2", "later3")
DELAYS_MS: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
MILLISECOND_NS: Final = 1_000_000
NAMES_RATE: Final = 20_000
BULK_RATE: Final = 100_000
LINK_RATE: Final = 400_000  # about what the sender can beside the rest
RELOAD_RATE: Final = 10_000


def first(options: Options) -> list[Row]:
    """Acceptance line 1: first connections, idle and beside 20,000 names a second, and an nft process's."""
    rows: list[Row] = []
    count = max(20, int(100 * options.scale))
    with Ground(("april", "may")) as ground:
        for load, p99 in ((0, 5.0), (NAMES_RATE, 10.0)):
            beside = f"beside {load:,} names/s" if load else "idle"
            found = scenarios.first_connections(
                ground, count, [MILLISECOND_NS], load_rate=load, realtime=options.realtime,
                code=options.code,
            )  # fmt: skip
            rows.append(
                Row(
                    f"{beside}: connections 1 ms after the answer that were blocked",
                    f">= {count * 98 // 100} of {count}",
                    f"{found.blocked()}; requests never answered {found.kept_from_sending()}",
                    found.blocked() >= count * 0.98,
                )
            )
            own = found.status["time_to_block_ms"]
            rows.append(
                Row(
                    f"{beside}: answer to kernel, as another process heard the kernel",
                    f"p50 <= 0.5, p99 <= {p99:g} ms",
                    times(found.pushed_ms),
                    quantile(found.pushed_ms, 0.5) <= 0.5 and quantile(found.pushed_ms, 0.99) <= p99,
                )
            )
            rows.append(
                Row(f"{beside}: the daemon's own histogram", "", f"p50 {own['p50']}  p99 {own['p99']} ms", None)
            )
            drops = sum(one["kernel_drops"] for one in found.status["interfaces"])
            rows.append(Row(f"{beside}: kernel drops", "0", f"{drops}", drops == 0))
        rows += _sweep(ground, options)
        for load in (0, NAMES_RATE):
            tries, took_ms = scenarios.first_by_process(ground, count, [MILLISECOND_NS], load)
            blocked = sum(one.outcome == clients.REFUSED for one in tries)
            beside = f"beside {load:,} names/s" if load else "idle"
            rows.append(
                Row(f"nft process, {beside}: blocked at 1 ms", "", f"{blocked} of {count}; {times(took_ms)}", None)
            )
    return rows


def _sweep(ground: Ground, options: Options) -> list[Row]:
    """By delay, idle."""
    count = max(24, int(scenarios.MOST_FIRST * options.scale) // 6 * 6)
    delays = [round(delay * MILLISECOND_NS) for delay in DELAYS_MS]
    found = scenarios.first_connections(
        ground, count, delays, realtime=options.realtime, watched=False, code=options.code
    )
    rows = []
    for at, delay in enumerate(DELAYS_MS):
        tries = found.tries[at :: len(delays)]
        refused = sum(one.outcome == clients.REFUSED for one in tries)
        unheard = sum(not one.delivered for one in tries)
        told = f"{refused / len(tries):.0%} refused, {unheard / len(tries):.0%} never answered ({len(tries)})"
        rows.append(Row(f"idle: connections {delay:g} ms after the answer", "", told, None))
    return rows


def load(options: Options) -> list[Row]:
    """Acceptance line 2."""
    rows = []
    seconds = max(5.0, 60 * options.scale)
    with Ground(("april", "may"), EVIL) as ground:
        for rates in ({"named": NAMES_RATE}, {"named": NAMES_RATE, "bulk": BULK_RATE}):
            with ground.daemon(LISTED, WIDE, realtime=options.realtime, code=options.code) as daemon:
                found = scenarios.sustained(ground, daemon, seconds, rates)
            beside = " + ".join(f"{rate:,} {kind}/s" for kind, rate in rates.items())
            sent = sum(one.packets for one in found.sent)
            late_ms = max(one.late_us for one in found.sent) / 1000
            named = found.sent[0].packets
            rows.append(
                Row(
                    f"{beside} for {seconds:.0f} s: kernel drops",
                    "0",
                    f"{found.drops:,} of {sent:,} sent, sender late by {late_ms:.0f} ms",
                    found.drops == 0 and found.packets >= named,
                )
            )
            told = f"{found.packets:,} of {named:,}; the last {found.behind_s:.1f} s after the end"
            rows.append(Row(f"{beside}: packets read", "all with a name", told, found.packets >= named))
            told = f"{found.told_s:.1f} s"
            rows.append(Row(f"{beside}: contact to incident", "<= 3 s", told, found.told_s <= 3))
            growth = found.growth_bytes()
            sizes = [
                f"{name} {found.memory_bytes[-1][pid] / 1e6:.0f} MB ({more / 1e6:+.0f})"
                for name, (pid, more) in zip(("core", "packets"), growth.items(), strict=False)
            ]
            flat = max(growth.values(), default=0) < 10_000_000
            rows.append(Row(f"{beside}: memory, growth from a third on", "flat (< 10 MB)", ", ".join(sizes), flat))
            share = ", ".join(f"{value:.0%}" for value in found.cpu_share.values())
            compiled = found.status["packet_processes"][0]["compiled"]
            rows.append(Row(f"{beside}: processor, core and packet process", "", f"{share}; compiled {compiled}", None))
    return rows


def link(options: Options) -> list[Row]:
    """A link as full as the sender can make it, with a list of a million names."""
    names = max(10_000, int(1_000_000 * options.scale))
    seconds = max(5.0, 20 * options.scale)
    rates = {"named": NAMES_RATE, "bulk": LINK_RATE}
    listed = LISTED + reloads.long_list(names)
    with Ground(("april", "may"), EVIL) as ground:
        wanted = {"realtime": options.realtime, "code": options.code, "wait_s": 240}
        with ground.daemon(listed, WIDE, **wanted) as daemon:
            found = scenarios.sustained(ground, daemon, seconds, rates)
    per_s = sum(one.packets / one.took_s for one in found.sent)
    named = found.sent[0].packets
    packets = list(found.memory_bytes[-1])[1:]  # the first is the core
    sizes = ", ".join(f"{found.memory_bytes[-1][one] / 1e6:.0f} MB" for one in packets)
    share = ", ".join(f"{value:.0%}" for value in found.cpu_share.values())
    what = f"{per_s:,.0f} packets/s, {NAMES_RATE:,} of them with names, {names:,} names listed"
    return [
        Row(f"{what}: kernel drops", "0", f"{found.drops:,}", found.drops == 0),
        Row("packets read", "all with a name", f"{found.packets:,} of {named:,}", found.packets >= named),
        Row("memory of a packet process", "<= 150 MB", sizes, found.memory_bytes[-1][packets[0]] <= 150_000_000),
        Row("processor, core and packet process", "", share, None),
    ]


def flows(options: Options) -> list[Row]:
    """Established flows, and promise 15."""
    count = max(4, int(40 * options.scale))
    with Ground(("april", "may"), EVIL) as ground, ground.daemon(LISTED, WIDE) as daemon:
        addresses = [f"203.0.113.{number}" for number in range(100, 100 + count // 2)]
        addresses += [f"2001:db8:f::{number:x}" for number in range(0x100, 0x100 + count // 2)]
        cuts = scenarios.cut_flows(ground, daemon, addresses)
    rows = []
    for family, mark in (("IPv4", "."), ("IPv6", ":")):
        row = [cut for cut in cuts if mark in cut.address]
        last = [1000 * max(cut.heard_s, cut.reached_s) for cut in row]
        rows.append(Row(f"{family}: a flow's last byte after the order", "<= 1000 ms", times(last), max(last) <= 1000))
        asked = [1000 * cut.asked_s for cut in row]
        rows.append(Row(f"{family}: the order's answer (on disk and in the kernel)", "", times(asked), None))
    return rows


def repair(options: Options) -> list[Row]:
    """Foreign hands with 100,000 blocks in force: promise 16."""
    count = max(2_000, int(100_000 * options.scale))
    extra = ("203.0.113.50", "2001:db8:f::50", "203.0.113.51")
    rows = []
    with Ground(("april", "may"), EVIL) as ground:
        daemon = _with_past(ground, count, extra)
        with daemon:
            told = f"ready after {daemon.ready_s:.1f} s"
            rows.append(Row(f"start with {count:,} blocks and an empty kernel", "", told, None))
            until(lambda: len(kernel.blocked(ground.gateway)) == count + len(extra), 60)
            for name, ruleset in (("nft flush ruleset", upheaval.FLUSH), ("a firewall's reload", upheaval.RELOAD)):
                sample = list(ledgers.many_addresses(count))[:: max(1, count // 200)]
                found = upheaval.foreign_hand(ground, list(extra), ruleset, 6.0, sample)
                until(lambda: len(kernel.blocked(ground.gateway)) == count + len(extra), 60)
                rows.append(
                    Row(
                        f"{name}, {count:,} blocks: repaired",
                        "<= 3 s, protected first",
                        f"{found.repaired_s:.2f} s; open {found.open_s:.2f} s ({found.through} of {found.tries} tries)",
                        found.repaired_s <= 3 and found.never_first,
                    )
                )
    return rows


def restart(options: Options) -> list[Row]:
    """kill -9 and a clean stop with 100,000 blocks."""
    count = max(2_000, int(100_000 * options.scale))
    extra = ("203.0.113.50", "2001:db8:f::50")
    rows = []
    with Ground(("april", "may"), EVIL) as ground, _with_past(ground, count, extra) as daemon:
        until(lambda: len(kernel.blocked(ground.gateway)) == count + 2, 60)
        for how in ("stop", "kill -9"):
            with upheaval.knocking(ground, extra) as knocks:
                if how == "stop":
                    daemon.stop()
                else:
                    daemon.kill()
                time.sleep(0.5)
                daemon.start()
                time.sleep(1.0)
            through = len(knocks.through())
            held = daemon.ask("status")["blocks"]["addresses"]
            rows.append(
                Row(
                    f"{how} and start, {count:,} blocks: leaks seen by a 10 ms probe",
                    "0",
                    f"{through} of {len(knocks.seen)}; ready after {daemon.ready_s:.1f} s; {held:,} addresses held",
                    through == 0 and held == count + 2,
                )
            )
    return rows


def _with_past(ground: Ground, count: int, extra: tuple[str, ...]) -> Any:
    options = {**WIDE, "enforce": {"largest_change": 1_000_000}}
    daemon = ground.daemon(ledgers.listed(count + len(extra)), options, wait_s=120)
    ledgers.fill(daemon.folder, count, extra)
    return daemon


def kill(options: Options) -> list[Row]:
    """Promise 19, 200 rounds."""
    rounds = max(10, int(200 * options.scale))
    seed = int(os.environ.get("EGRESSD_SEED", "0")) or random.randrange(1 << 30)
    with Ground(("april", "may"), EVIL) as ground, ground.daemon(LISTED, WIDE) as daemon:
        found = upheaval.killed_at_random(ground, daemon, rounds, random.Random(seed))
        audit = daemon.ask("audit", timeout_s=60.0, verify=True)
    return [
        Row(
            f"{rounds} random kill -9 (seed {seed}): acknowledged decisions lost, phantoms",
            "0, 0",
            f"{len(found.lost)}, {len(found.phantoms)} of {found.acknowledged:,} acknowledged",
            not found.lost and not found.phantoms,
        ),
        Row("leaks seen by a 10 ms probe meanwhile", "0", f"{len(found.leaks)} of {found.probes:,}", not found.leaks),
        Row(
            "start to reconciled", "<= 5 s", times([1000 * s for s in found.reconciled_s]), max(found.reconciled_s) <= 5
        ),
        Row("audit chain afterwards", "valid", f"{audit['ok']}, {audit['rows']:,} rows", audit["ok"]),
    ]


def protect(options: Options) -> list[Row]:
    """Promise 2, for what the machine tells: own addresses, gateways, resolvers."""
    with (
        Ground(("april", "may"), EVIL) as ground,
        changes.own_resolver_file(ground.gateway) as file,
        ground.daemon(LISTED, WIDE) as daemon,
    ):
        took = changes.newly_protected(ground, daemon, file)
    what = "a blocked address becomes one of ours ({}): free and protected in the kernel"
    return [Row(what.format(kind), "<= 5 s", f"{seconds:.2f} s", seconds <= 5) for kind, seconds in took.items()]


def outage(options: Options) -> list[Row]:
    """Promise 17: somebody else owns our table for ten minutes."""
    seconds = max(12.0, 600 * options.scale)
    addresses = [f"203.0.113.{number}" for number in range(100, 150)]
    with Ground(("april", "may"), EVIL) as ground, ground.daemon(LISTED, WIDE) as daemon:
        found = changes.outage(ground, daemon, seconds, addresses, "during.evil.example")
    return [
        Row(f"the kernel refuses for {seconds:.0f} s: alarm", "<= 30 s", f"{found.alarm_s:.1f} s", found.alarm_s <= 30),
        Row(
            f"{found.decided} blocks decided meanwhile, in the kernel after its end",
            "<= 60 s",
            f"{found.drained_s:.1f} s; alarm over: {found.alarm_ended}",
            found.drained_s <= 60 and found.alarm_ended,
        ),
    ]


def reload(options: Options) -> list[Row]:
    """A list of a million names is saved while 10,000 names a second pass."""
    names = max(10_000, int(1_000_000 * options.scale))
    with Ground(("april", "may")) as ground:
        found = reloads.reload_long(ground, names, RELOAD_RATE, options.code)
    what = f"a list of {names:,} names saved beside {RELOAD_RATE:,} names/s"
    asked = len(found.late_ms)
    return [
        Row(f"{what}: in force", "<= 10 s", f"{found.in_force_s:.1f} s after the save", found.in_force_s <= 10),
        Row("packets lost meanwhile", "0", f"{found.drops:,} of {found.sent:,}", found.drops == 0),
        Row("siblings asked for meanwhile that were not blocked", "0", f"{found.missed} of {asked}", not found.missed),
        Row("question to kernel meanwhile (with the starting of a client)", "", times(found.late_ms), None),
    ]


def trying(options: Options) -> list[Row]:
    """An hour of three hosts that try every three seconds, in a minute."""
    count = max(60, int(1200 * options.scale))
    with Ground(("may", *LATER), EVIL) as ground, ground.daemon(LISTED, WIDE) as daemon:
        found = attackers.three_hosts_trying(ground, daemon, LATER, "203.0.113.67", count, 0.05)
    made = sum(found.tries.values())
    told = sum(one["attempts"] for one in found.incidents)
    counted = f"{made}, {found.kernel_packets}, {told}"
    numbers = (len(found.incidents), len({one["campaign"] for one in found.incidents}))
    return [
        Row("three hosts: incidents, campaigns", "3, 1", f"{numbers[0]}, {numbers[1]}", numbers == (3, 1)),
        Row(
            "tries made, counted by the kernel, told by incidents",
            "equal",
            counted,
            made == found.kernel_packets == told,
        ),
        Row("events a person is told of", "<= 6", f"{found.alerts}", found.alerts <= 6),
        Row("got through", "0", f"{found.got_through}", found.got_through == 0),
    ]


def flux(options: Options) -> list[Row]:
    """Promise 4, 10,000 answers."""
    answers = max(200, int(10_000 * options.scale))
    with Ground(("april", "may")) as ground, ground.daemon("listed.flux.example\n") as daemon:
        found = attackers.flux(ground, daemon, answers)
    what = f"{answers:,} answers in flux ({found.took_s:.0f} s): addresses blocked"
    return [
        Row(what, "<= 16", f"{found.addresses}", found.addresses <= 16),
        Row("incidents", "1", f"{len(found.incidents)}", len(found.incidents) == 1),
        Row("refusals told of", "", f"{found.refused:,}", None),
    ]


def forged(options: Options) -> list[Row]:
    """Promise 5, 10,000 forged names."""
    count = max(200, int(10_000 * options.scale))
    with Ground(("april", "may", "beacon"), EVIL) as ground, ground.daemon(LISTED) as daemon:
        found = attackers.forge(ground, count)
        status = daemon.ask("status")
    mine = {pair.partition(">")[0] for pair in found.pairs}
    return [
        Row(
            f"{count:,} forged names and answers: blocks of the innocent server for everybody",
            "0",
            f"{int(attackers.VICTIM in found.blocked)}; pairs of {len(mine)} host(s)",
            attackers.VICTIM not in found.blocked and mine <= {attackers.FORGER},
        ),
        Row("incidents", "", f"{status['incidents']['open']}", None),
    ]


BENCHES: Final[dict[str, Callable[[Options], list[Row]]]] = {
    "first": first, "queue": queue, "load": load, "link": link, "flows": flows, "repair": repair,
    "restart": restart, "kill": kill, "protect": protect, "outage": outage, "reload": reload, "trying": trying,
    "flux": flux, "forged": forged,
}  # fmt: skip


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the live daemon in network namespaces.")
    parser.add_argument(
        "names", nargs="+", metavar="NAME", choices=[*BENCHES, "all"], help=", ".join([*BENCHES, "all"])
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts and times (default 1)")
    parser.add_argument("--compiled", type=Path, help="folder with the compiled copy of the package")
    parser.add_argument("--no-realtime", action="store_true", help="run the daemon without CAP_SYS_NICE")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    args = parser.parse_args(argv)
    reason = missing()
    if reason:
        print(f"bench/live.py {reason}", file=sys.stderr)
        return 1
    options = Options(args.scale, args.compiled.resolve() if args.compiled else TREE, not args.no_realtime)
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    described = machine()
    processor, load_now = described["processor"], described["load"][0]
    print(f"{when}; {processor}, {described['cores']} cores, {described['system']}, load {load_now}")
    told: dict[str, Any] = {"when": when, "machine": described, "scale": args.scale, "results": {}}
    missed = 0
    for name in BENCHES if "all" in args.names else args.names:
        rows = BENCHES[name](options)
        missed += sum(row.holds is False for row in rows)
        told["results"][name] = [row._asdict() for row in rows]
        print(render(name, rows), flush=True)
    if args.out:
        args.out.write_text(json.dumps(told, indent=1) + "\n")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
