"""What is tried, in a size that the caller chooses: tests run it small, bench/live.py in full.

Each returns what it found; who calls judges.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.netns import clients, kernel, load
from tests.netns.daemon import TREE, Daemon, until
from tests.netns.ground import RESOLVER, WIDE, Ground
from tests.netns.servers import PULSE_PORT, Zone
from tests.netns.topology import JPS, MHLW

REST_S: Final = 2.5
MOST_FIRST: Final = 480  # addresses that there are for scenarios which need a new one for each try


def quantile(values: list[float], share: float) -> float:
    """The value that a share of all does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def campaign_domain(number: int) -> str:
    """A registered domain of its own for each try, so that each is a first one."""
    return f"evil{number:03}.example"


def first_zone(count: int) -> Zone:
    """Every name under each of those domains, at an address of its own."""
    zone: Zone = {}
    for number in range(count):
        block, host = (("203.0.113", number + 1), ("192.0.2", number - 239))[number >= 240]
        zone[f"*.{campaign_domain(number)}"] = [f"{block}.{host}", f"2001:db8:f::{number + 1:x}"]
    return zone


def first_list(count: int) -> str:
    """Lists one name of each; the one that is asked for is a sibling."""
    return "".join(f"listed.{campaign_domain(number)}\n" for number in range(count))


class First(NamedTuple):
    """First connections to never-listed siblings. `pushed_ms` is the time from the kernel's stamp of the answer to the
    kernel's word about the element, as another process heard it: later than it was so."""

    tries: list[clients.Try]
    pushed_ms: list[float]
    status: dict[str, Any]
    sent: list[load.Sent]
    cpu_share: dict[int, float]  # of each packet process, meanwhile

    def blocked(self) -> int:
        """Connections that did not come about."""
        return sum(
            one.outcome not in (clients.ESTABLISHED, clients.NO_ANSWER, clients.NO_ADDRESS) for one in self.tries
        )

    def kept_from_sending(self) -> int:
        """Requests that were never answered: one that slips through the door dies at its next packet."""
        return sum(not one.delivered for one in self.tries)


@contextmanager
def background(
    ground: Ground, kind: str, rate: int, seconds: float, segment: str = MHLW, apart_from: str = ""
) -> Iterator[list[load.Sent]]:
    """Load beside something else; what was sent is in the list afterwards. No load at rate 0."""
    sent: list[load.Sent] = []
    if not rate:
        yield sent
        return
    asked = (kind, segment, rate, int(rate * seconds), apart_from)
    with ground.topology.switch.start(load.send, *asked) as sending:
        assert sending.receive() == "sending"
        time.sleep(0.5)
        yield sent
        if not sending.channel.poll():
            sending.channel.send("stop")
        sent.append(sending.result())


def first_connections(
    ground: Ground, count: int, delays_ns: list[int], *, load_rate: int = 0, apart: bool = False,
    realtime: bool = False, watched: bool = True, options: dict[str, Any] | None = None, code: Path = TREE,
    pause_s: float = 0.02,
) -> First:  # fmt: skip
    """`count` times: a host asks for a sibling of a listed name and connects so long after the answer. Delays take
    turns. With `apart` the load is for that of two packet processes which does not have this host."""
    ground.zone(first_zone(count))
    names = [f"n{number}.{campaign_domain(number)}" for number in range(count)]
    delays = [delays_ns[number % len(delays_ns)] for number in range(count)]
    may = ground["may"].space
    beside = ("repeated", load_rate, JPS, ground["may"].v4) if apart else ("named", load_rate, MHLW, "")
    with ExitStack() as stack:
        daemon = stack.enter_context(
            ground.daemon(first_list(count), {**WIDE, **(options or {})}, realtime=realtime, code=code)
        )
        may.call(clients.get, "192.0.2.250", "warm.example")  # neighbours are known
        watching = stack.enter_context(ground.gateway.start(kernel.watch, "jps0")) if watched else None
        if watching is not None:
            assert watching.receive() == "watching"
        seconds = 120.0 if apart else count * (pause_s + 0.02) + 30  # at most: load ends with the tries
        kind, rate, segment, host = beside
        with background(ground, kind, rate, seconds, segment, host) as sent:
            used_s = {pid: kernel.cpu_s(pid) for pid in daemon.packet_pids()}
            began_s = time.monotonic()
            tries = may.call(lambda: clients.tries(names, RESOLVER, delays, pause_s=pause_s), timeout_s=seconds + 60)
            took_s = time.monotonic() - began_s
            share = {pid: (kernel.cpu_s(pid) - used) / took_s for pid, used in used_s.items()}
        time.sleep(1.5)  # its numbers are told once a second
        status = daemon.ask("status")
        pushed: list[float] = []
        if watching is not None:
            watching.channel.send("stop")
            answered, told = watching.result()
            pushed = [(told[address] - answered[address]) / 1e6 for address in answered if address in told]
    return First(tries, pushed, status, sent, share)


def first_by_process(
    ground: Ground, count: int, delays_ns: list[int], load_rate: int = 0
) -> tuple[list[clients.Try], list[float]]:
    """The same with a block by an `nft` process for each address; tries, and milliseconds from answer to its end."""
    ground.zone(first_zone(count))
    names = [f"n{number}.{campaign_domain(number)}" for number in range(count)]
    delays = [delays_ns[number % len(delays_ns)] for number in range(count)]
    ground.gateway.run("nft", "delete", "table", "inet", kernel.TABLE, check=False)
    with ground.gateway.start(kernel.block_by_process, "jps0") as blocking:
        assert blocking.receive() == "ready"
        with background(ground, "named", load_rate, count * 0.05 + 30):
            tries = ground["may"].space.call(clients.tries, names, RESOLVER, delays)
        blocking.channel.send("stop")
        took = blocking.result()
    return tries, [ns / 1e6 for ns in took]


class Cut(NamedTuple):
    """An established flow when its address was blocked. `asked_s` is how long the daemon took to answer; `heard_s` and
    `reached_s` how long after the request the client last heard the server and the server the client (0: never)."""

    address: str
    end: str
    asked_s: float
    heard_s: float
    reached_s: float


def cut_flows(ground: Ground, daemon: Daemon, addresses: list[str]) -> list[Cut]:
    """Open a flow to each address, block the address, see what is left of the flow."""
    cuts = []
    for address in addresses:
        with ground["may"].space.start(clients.hold_flow, address, PULSE_PORT) as flow:
            assert flow.receive() == "open"
            before_ns = time.time_ns()
            daemon.ask("block", what=address, reason="an established flow must die")
            asked_s = (time.time_ns() - before_ns) / 1e9
            told = flow.result(10.0)
        time.sleep(0.3)  # whatever is under way arrives
        hit = next(hit for hit in reversed(ground.hits()) if hit["port"] == PULSE_PORT and hit["address"] == address)
        reached_s = hit.get("last_us", 0) / 1e6 - before_ns / 1e9
        heard_s = (told["heard_ns"] - before_ns) / 1e9
        cuts.append(Cut(address, told["end"], asked_s, max(0.0, heard_s), max(0.0, reached_s)))
    return cuts


class Sustained(NamedTuple):
    """Load for a while. `drops` are the kernel's; `behind_s` is how long after its end the counts still grew; `told_s`
    is how long after a contact in the midst of it people could see the incident; memory is of all of the daemon's
    processes, a sample a second."""

    sent: list[load.Sent]
    packets: int
    drops: int
    behind_s: float
    told_s: float
    loss_ratio: float
    memory_bytes: list[dict[int, int]]
    cpu_share: dict[int, float]
    status: dict[str, Any]

    def growth_bytes(self) -> dict[int, int]:
        """What each process grew by from a third of the time on: before that, tables fill."""
        third = self.memory_bytes[len(self.memory_bytes) // 3]
        return {pid: size - third.get(pid, size) for pid, size in self.memory_bytes[-1].items()}


def sustained(ground: Ground, daemon: Daemon, seconds: float, rates: dict[str, int]) -> Sustained:
    """Load of each kind at its rate, all at once, on a daemon that runs."""
    before = daemon.ask("status")
    pids = [daemon.pid, *daemon.packet_pids()]
    memory: list[dict[int, int]] = []
    told_s = 0.0
    with ExitStack() as stack:
        runs = []
        for kind, rate in rates.items():
            segment = MHLW if kind == "named" else JPS
            running = stack.enter_context(
                ground.topology.switch.start(load.send, kind, segment, rate, int(rate * seconds))
            )
            running.receive()
            runs.append(running)
        used_s = {pid: kernel.cpu_s(pid) for pid in pids}
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            memory.append(daemon.memory_bytes())
            if not told_s and time.monotonic() - began_s > seconds * 0.7:
                told_s = _contact(ground, daemon)
            time.sleep(min(1.0, seconds / 10))
        took_s = time.monotonic() - began_s
        share = {pid: (kernel.cpu_s(pid) - used_s[pid]) / took_s for pid in pids}
        sent = [running.result(seconds + 60) for running in runs]
    began_s = time.monotonic()
    after = _at_rest(daemon)
    memory.append(daemon.memory_bytes())
    return Sustained(
        sent,
        _sum(after, "packets") - _sum(before, "packets"),
        _sum(after, "kernel_drops") - _sum(before, "kernel_drops"),
        time.monotonic() - began_s - REST_S,
        told_s,
        after["loss_ratio"],
        memory,
        share,
        after,
    )


def _contact(ground: Ground, daemon: Daemon) -> float:
    """A host asks for a sibling of listed.evil.example; seconds until there is an incident."""
    began_s = time.monotonic()
    ground.resolve("may", "b.evil.example")
    until(lambda: daemon.ask("incidents")["incidents"], 60)
    return time.monotonic() - began_s


def _at_rest(daemon: Daemon) -> dict[str, Any]:
    """Its status when nothing has been read for a while; counts are told once a second."""
    before, since_s = -1, time.monotonic()
    while True:
        status = daemon.ask("status")
        packets = _sum(status, "packets")
        if packets != before:
            before, since_s = packets, time.monotonic()
        elif time.monotonic() - since_s > REST_S:
            return status
        time.sleep(0.2)


def _sum(status: dict[str, Any], key: str) -> int:
    return sum(int(one[key]) for one in status["interfaces"])
