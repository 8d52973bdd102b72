"""The incident of 2015 with real packets, the real daemon and the real kernel, in network namespaces: five beats.

Needs root and nft; `--check` only says whether both are there (exit 1 and why when not). Everything said here is looked
up, not assumed: what is not as it should be ends the demonstration with exit 1.

What public reports state is the order of events, the GETs with unknown strings appended, that only the subdomain was
blocked two hours after, that the next attack used another subdomain, that three machines failed to get out, and that
nobody watched. Names, addresses and times are invented.
"""

from __future__ import annotations

import base64
import contextlib
import random
import shutil
import sqlite3
import sys
import tempfile
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.netns import clients, kernel
from tests.netns.attackers import knock
from tests.netns.daemon import NOBODY, Daemon, until
from tests.netns.ground import RESOLVER, Ground
from tests.netns.servers import PULSE_PORT
from tests.netns.spaces import missing
from tests.netns.topology import GATEWAY4, HOST_RULES, JPS, MHLW
from tests.netns.upheaval import knocking

EVIL: Final = "news-portal.example"
UNLISTED: Final = "weather-sync.example"
FIRST, SECOND, BEACON = "203.0.113.66", "203.0.113.67", "203.0.113.99"
CDN: Final = "192.0.2.80"
CDN_NAMES: Final = ("static.shop.example", "img.photos.example", "media.school.example", "files.library.example")
SITES: Final = {"www.cityoffice.example": "192.0.2.21", "www.timetable.example": "192.0.2.22"}
ZONE: Final = {
    f"a.{EVIL}": [FIRST],
    f"b.{EVIL}": [SECOND],
    f"c.{EVIL}": [SECOND],
    f"d.{EVIL}": [GATEWAY4[JPS]],
    f"f.{EVIL}": ["8.8.8.8"],
    f"g.{EVIL}": [CDN],
    f"cdn.{UNLISTED}": [BEACON],
    **{name: [CDN] for name in CDN_NAMES},
    **{name: [address] for name, address in SITES.items()},
}
PEOPLE: Final = ("april", "clerk", "may", "office", "later1", "later2", "later3", "beacon")
LATER: Final = ("later1", "later2", "later3")
TRIES: Final = 40
MAIL_SERVER: Final = "192.0.2.25"


class Untrue(Exception):
    """Something that the demonstration says is not so."""


class Show:
    """Tells, and looks whether it is true."""

    def __init__(self, daemon: Daemon, ground: Ground) -> None:
        self.daemon = daemon
        self.ground = ground

    def beat(self, title: str, text: str) -> None:
        """The head of a beat."""
        print(f"\n== {title}")
        self.say(text)

    def say(self, text: str) -> None:
        """Narration."""
        print(textwrap.fill(" ".join(text.split()), 100), flush=True)

    def fact(self, true: Any, text: str) -> None:
        """Something that was looked up."""
        print(textwrap.fill(f"{'ok ' if true else 'NOT SO:'} {text}", 100, subsequent_indent="   "), flush=True)
        if not true:
            raise Untrue(text)

    def screen(self, *argv: str) -> None:
        """What an operator sees."""
        print(f"\n$ egressd {' '.join(argv)}")
        print(self.daemon.command(*argv).rstrip(), flush=True)

    def delivered(self, host: str, address: str) -> int:
        """Requests of a host that a server got; hosts are told apart by the tail of their path."""
        return sum(hit["address"] == address and f"who={host}" in hit["what"] for hit in self.ground.hits())


def opaque(draw: random.Random, host: str) -> str:
    """A path with an unknown string appended: the one trait that the reports give."""
    tail = base64.urlsafe_b64encode(draw.randbytes(draw.randrange(18, 60))).decode().rstrip("=")
    return f"info/index.php?id={tail}&who={host}"


def visit(ground: Ground, host: str, name: str, draw: random.Random) -> tuple[str, bool]:
    """A host resolves a name and sends a GET with an opaque tail."""
    resolver = GATEWAY4[ground[host].segment]
    told: tuple[str, bool] = ground[host].space.call(clients.visit, name, resolver, opaque(draw, host))
    return told


def browse(ground: Ground) -> bool:
    """Everybody's innocent pages; whether all of them came."""
    good = True
    for host in ("april", "clerk", "office", "may"):
        resolver = GATEWAY4[ground[host].segment]
        for name in (*SITES, *CDN_NAMES):
            good &= ground[host].space.call(clients.visit, name, resolver) == (clients.ESTABLISHED, True)
    return good


def april(show: Show, draw: random.Random) -> None:
    """Beat a."""
    ground = show.ground
    show.beat(
        "22 April. A machine of the ministry reports to its controller",
        f"""Host A ({ground["april"].v4}, segment {MHLW}) sends GETs with unknown strings to a.{EVIL}. No list knows the
        name; nothing is blocked. Two hours later (here: a second) a notice comes and the one subdomain is listed.""",
    )
    sent = sum(visit(ground, "april", f"a.{EVIL}", draw)[1] for _ in range(6))
    show.fact(sent == show.delivered("april", FIRST) == 6, f"{sent} reports of host A reached {FIRST}")
    with ground["april"].space.start(clients.hold_flow, FIRST, PULSE_PORT) as flow:
        flow.receive()
        show.daemon.list_file.write_text(f'a.{EVIL} threat="jps-2015" confidence=90\n')
        before_ns = time.time_ns()
        show.daemon.ask("reload", timeout_s=60.0, reason="notice of the national centre")
        told = flow.result(20)
    dead_s = max(0.0, (told["heard_ns"] - before_ns) / 1e9)
    found = until(lambda: [one for one in show.daemon.ask("incidents")["incidents"] if one["retro"]], 10)[0]
    show.fact(
        found["client"] == ground["april"].v4 and found["contacts"] >= 6,
        f"history names host A at once: {found['contacts']} earlier contacts, incident {found['id']}",
    )
    show.fact(told["end"] != "stopped", f"its open connection died {dead_s:.2f} s after the notice was read")
    outcome, got = visit(ground, "april", f"a.{EVIL}", draw)
    show.fact(not got, f"its next report is {outcome}")


def may(show: Show, draw: random.Random) -> None:
    """Beat b."""
    ground = show.ground
    show.beat(
        "8 May. Another house, another subdomain",
        f"""Host B ({ground["may"].v4}, segment {JPS}) asks for b.{EVIL}: never listed, same registered domain, new
        address. In 2015 this went on for four hours. It connects one millisecond after the answer.""",
    )
    tried = ground["may"].space.call(clients.tries, [f"b.{EVIL}"], RESOLVER, [1_000_000])[0]
    what = "refused" if tried.outcome == clients.REFUSED else f"{tried.outcome}, and dead before a byte was sent on it"
    show.fact(not tried.delivered, f"the first connection, {tried.delay_ns / 1e6:.2f} ms after the answer, is {what}")
    show.fact(not show.delivered("may", SECOND), f"{SECOND} has heard nothing of host B")
    took = until(lambda: _took(show.daemon), 5)
    show.fact(took["p50"] < 50, f"from the answer to the kernel's word: p50 {took['p50']} ms of {took['count']} blocks")
    rows = until(lambda: _incidents(show.daemon, 2), 10)
    show.fact(len({one["campaign"] for one in rows}) == 1, f"host A and host B are one campaign: {rows[0]['campaign']}")


def later(show: Show, draw: random.Random) -> None:
    """Beat c."""
    ground, daemon = show.ground, show.daemon
    show.beat(
        "18 May. Three machines keep trying, and somebody watches",
        f"""Three hosts of {JPS} try b. and c.{EVIL}, {TRIES} times each. In 2015 every try failed and nobody looked:
        nobody learned that they were infected.""",
    )
    before = kernel.blocked(ground.gateway)[SECOND].packets
    with ExitStack() as stack:
        for number, host in enumerate(LATER):
            ground.resolve(host, f"{'bc'[number % 2]}.{EVIL}")
        runs = [stack.enter_context(ground[host].space.start(knock, SECOND, TRIES, 0.05)) for host in LATER]
        outcomes = [outcome for running in runs for outcome in running.result()]
    show.fact(set(outcomes) == {clients.REFUSED}, f"{len(outcomes)} of {len(outcomes)} connections refused")
    counted = kernel.blocked(ground.gateway)[SECOND].packets - before
    show.fact(counted == len(outcomes), f"the kernel's own counter says the same: {counted}")
    rows = until(lambda: _incidents(daemon, 5), 10)
    new = [one for one in rows if one["client"] in {ground[host].v4 for host in LATER}]
    show.fact(
        len(new) == 3 and len({one["campaign"] for one in rows}) == 1,
        "three new incidents in the same campaign, not 120 alerts",
    )
    show.screen("incidents")
    show.say("""Then the attacker turns the names on us: d. answers with the resolver's address, f. with 8.8.8.8, g.
        with an address that four innocent names share.""")
    for label in "dfg":
        ground.resolve("later3", f"{label}.{EVIL}")
    until(lambda: len(daemon.events("decision", action="refuse")) >= 3, 10)
    held = set(kernel.blocked(ground.gateway))
    refused = sorted({one["egressd"]["targets"][0]["value"] for one in daemon.events("decision", action="refuse")})
    show.fact(not held & {GATEWAY4[JPS], "8.8.8.8", CDN}, f"refused, each with its reason: {', '.join(refused)}")
    show.fact(browse(ground), "everybody's pages, resolver and shared addresses still work")
    show.screen("watch")


def unlisted(show: Show, draw: random.Random) -> None:
    """Beat d."""
    ground = show.ground
    show.beat(
        "20 May. The same habit, a domain that nobody listed",
        f"""Host D ({ground["beacon"].v4}) sends the same kind of GETs to cdn.{UNLISTED}. No list knows it, so it is
        seen and recorded, and nothing is blocked for anybody on a habit alone.""",
    )
    sent = sum(visit(ground, "beacon", f"cdn.{UNLISTED}", draw)[1] for _ in range(5))
    show.fact(sent == 5 and BEACON not in kernel.blocked(ground.gateway), f"{sent} GETs pass, and no rule was made")
    show.say("What would it hit, if somebody listed it? History answers before anything is changed:")
    until(lambda: show.daemon.ask("list-preview", lines=[f"+{UNLISTED}"])["hosts"] == 1, 30, "history is not written")
    show.screen("list", "preview", f"+{UNLISTED}")
    told = show.daemon.ask("list-preview", lines=[f"+{UNLISTED}"])
    counted = direct_count(show.daemon, UNLISTED)
    show.fact(
        (told["hosts"], told["contacts"]) == counted,
        f"counted in the history by hand: {counted[0]} host, {counted[1]} contacts",
    )
    show.say("When a list names it tomorrow, history will name host D, as it named host A.")


def direct_count(daemon: Daemon, domain: str) -> tuple[int, int]:
    """(hosts, contacts) of a registered domain, by one question to a copy of the daemon's history."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("history.db", "history.db-wal"):
            if (daemon.folder / "state" / name).exists():
                shutil.copy(daemon.folder / "state" / name, folder)
        with contextlib.closing(sqlite3.connect(f"{folder}/history.db")) as connection:
            row = connection.execute(
                "SELECT count(DISTINCT c.client), total(c.count) FROM contacts c JOIN names n ON n.id = c.name"
                " WHERE n.registered_domain = ?",
                (domain,),
            ).fetchone()
    return int(row[0]), int(row[1])


def hurt(show: Show) -> None:
    """What happens to gateways: the ruleset is flushed by another program, the daemon is killed."""
    ground, daemon = show.ground, show.daemon
    show.beat(
        "Meanwhile, on the gateway",
        "Another program flushes every rule of the kernel; then the daemon is killed with kill -9.",
    )
    began_s = time.monotonic()
    ground.gateway.run("nft", "-f", "-", text="flush ruleset\n" + HOST_RULES)
    until(lambda: SECOND in kernel.blocked(ground.gateway), 10)
    show.fact(True, f"our rules are back after {time.monotonic() - began_s:.2f} s, the host's own left as they are")
    with knocking(ground, [SECOND], "later1") as knocks:
        daemon.kill()
        time.sleep(0.5)
        daemon.start()
        time.sleep(0.5)
    through = len(knocks.through())
    show.fact(
        not through,
        f"killed and started again ({daemon.ready_s:.1f} s): {len(knocks.seen)} tries meanwhile, {through} got through",
    )
    show.fact(len(daemon.ask("incidents")["incidents"]) == 5, "every incident and every count is still there")


def cut(show: Show) -> None:
    """Beat e."""
    ground = show.ground
    show.beat(
        "29 May. The full cut that nobody proposed",
        f"One command cuts segment {JPS}, with its name typed again. What still flows is told, not hoped.",
    )
    with ground["office"].space.start(clients.hold_flow, SITES["www.cityoffice.example"], PULSE_PORT) as flow:
        flow.receive()
        show.screen("cut", JPS, "--for", "1h", "--confirm", JPS, "--reason", "data is leaving")
        told = flow.result(10)
    show.fact(told["end"] != "stopped", f"an open connection of {JPS} is dead ({told['end']})")
    page = ground.get("office", SITES["www.cityoffice.example"], "www.cityoffice.example")
    show.fact(page[0] != clients.ESTABLISHED, f"{JPS}: new connections are {page[0]}")
    page = ground.get("april", SITES["www.cityoffice.example"], "www.cityoffice.example")
    show.fact(page == (clients.ESTABLISHED, True), f"{MHLW}: goes on as before")
    line = ground["office"].space.call(clients.connect, MAIL_SERVER, 81)[0]
    show.fact(
        line == clients.REFUSED and not any(hit["port"] == 81 for hit in ground.hits()),
        f"and one line is still open: the mail line of {ground['office'].v4} does not pass this gateway. Pull its plug",
    )
    show.screen("hosts")
    until(lambda: all(one["packets"] for one in show.daemon.ask("status")["interfaces"]), 10)  # told once a second
    show.screen("status")


def _took(daemon: Daemon) -> dict[str, Any]:
    took: dict[str, Any] = daemon.ask("status")["time_to_block_ms"]  # told once a second
    return took if took["count"] else {}


def _incidents(daemon: Daemon, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = daemon.ask("incidents")["incidents"]
    return rows if len(rows) >= count else []


def play() -> None:
    """All beats."""
    draw = random.Random(2015)
    began_s = time.monotonic()
    with (
        Ground(PEOPLE, ZONE, second_line="office") as ground,
        ground.daemon("nothing-yet.example\n", realtime=True) as daemon,
    ):
        show = Show(daemon, ground)
        show.say(f"""A gateway with two segments ({MHLW}, {JPS}), eight hosts, a resolver, and servers beyond it, all in
            network namespaces; nothing leaves this machine. egressd runs on the gateway as user {NOBODY}, in mode
            enforce.""")
        show.fact(browse(ground), "all hosts browse; the shared address serves four innocent names")
        april(show, draw)
        may(show, draw)
        later(show, draw)
        unlisted(show, draw)
        hurt(show)
        cut(show)
    print(f"\nAll of it in {time.monotonic() - began_s:.0f} s; namespaces and rules are gone again.")


def main(argv: list[str]) -> int:
    """Command line."""
    reason = missing()
    if "--check" in argv:
        if reason:
            print(reason)
        return int(bool(reason))
    if reason:
        print(f"the live demonstration {reason}", file=sys.stderr)
        return 1
    try:
        play()
    except Untrue as untrue:
        print(f"demonstration ended: this is not so: {untrue}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
