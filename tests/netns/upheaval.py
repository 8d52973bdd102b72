"""What happens to rulesets and daemons: foreign hands, and deaths at random moments. In the caller's size."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from tests.netns import clients, kernel
from tests.netns.daemon import Daemon, until
from tests.netns.ground import Ground
from tests.netns.spaces import Failed
from tests.netns.topology import HOST_RULES


class Repair(NamedTuple):
    """What a probe saw around a foreign hand on the ruleset. `open_s` is from the deed to the last try that got
    through, 0 when none did; `tries` after the deed."""

    open_s: float
    tries: int
    through: int
    repaired_s: float
    never_first: bool


PEOPLE: Final = 3  # who block and unblock at the same time
FLUSH: Final = "flush ruleset\n"
RELOAD: Final = "flush ruleset\n" + HOST_RULES  # as a firewall's reload does, in one transaction


class Knocks:
    """A host knocks at addresses every 10 ms. `seen`, in the end, has (when it began in ns, address, outcome) of each
    try."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, str]] = []

    def through(self, since_ns: int = 0) -> list[int]:
        """When the tries began that were let through, from a time on."""
        return [
            began_ns for began_ns, _, outcome in self.seen if outcome == clients.ESTABLISHED and began_ns >= since_ns
        ]


@contextlib.contextmanager
def knocking(ground: Ground, addresses: Iterable[str], host: str = "may") -> Iterator[Knocks]:
    """Knock while the block runs."""
    knocks = Knocks()
    with ground[host].space.start(clients.probe, list(addresses)) as probe:
        assert probe.receive() == "probing"
        yield knocks
        probe.channel.send("stop")
        knocks.seen = probe.result()


def foreign_hand(
    ground: Ground, addresses: list[str], ruleset: str, seconds: float = 5.0, others: Iterable[str] = ()
) -> Repair:
    """Load a foreign ruleset while a host knocks at blocked addresses every 10 ms. `others` are blocked too, and are
    looked for afterwards."""
    with knocking(ground, addresses) as knocks:
        time.sleep(0.2)
        deed_ns = time.time_ns()
        ground.gateway.run("nft", "-f", "-", text=ruleset)
        wanted = [*addresses, *others]
        until(lambda: kernel.holds(ground.gateway, wanted), 20.0, "blocks were not repaired")
        repaired_s = (time.time_ns() - deed_ns) / 1e9
        time.sleep(max(0.0, seconds - (time.time_ns() - deed_ns) / 1e9))
    if ruleset == FLUSH:  # its owner puts the host's rules back
        ground.gateway.run("nft", "-f", "-", text=HOST_RULES)
    through = knocks.through(deed_ns)
    open_s = (max(through) - deed_ns) / 1e9 if through else 0.0
    tries = sum(began_ns >= deed_ns for began_ns, _, _ in knocks.seen)
    return Repair(open_s, tries, len(through), repaired_s, never_is_first(ground))


def never_is_first(ground: Ground) -> bool:
    """Whether the first rule about destinations asks for protected ones, and what must be protected is in its set."""
    rules = ground.gateway.run("nft", "list", "chain", "inet", kernel.TABLE, "guard", check=False).stdout.splitlines()
    asks = [line.strip() for line in rules if "daddr" in line]
    never = ground.gateway.run("nft", "list", "set", "inet", kernel.TABLE, "never4", check=False).stdout
    return bool(asks) and "@never4" in asks[0] and "10.0.0.0/8" in never


class Killed(NamedTuple):
    """Daemons killed while people work. `lost` are acknowledged decisions that a restart did not know, `phantoms` those
    whose end was acknowledged and that stood again; `leaks` are when tries of the probe got through."""

    rounds: int
    acknowledged: int
    lost: list[str]
    phantoms: list[str]
    leaks: list[int]
    probes: int
    reconciled_s: list[float]


class _People:
    """Blocks and unblocks as fast as it is answered, until the daemon is gone."""

    def __init__(self, daemon: Daemon, number: int, first: int) -> None:
        self._network = f"45.{7 + number}"
        self.standing: dict[str, str] = {}
        self.ended: set[str] = set()
        self.unsure: set[str] = set()  # asked for, and never answered: either may be
        self.next = first
        self._daemon = daemon
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            address = f"{self._network}.{self.next >> 8 & 255}.{self.next & 255}"
            self.next += 1
            self.unsure.add(address)
            try:
                made = self._daemon.ask("block", what=address, reason="acknowledged", for_s=86_400)
                self.unsure.discard(address)
                self.standing[address] = made["decision_id"]
                if self.next % 3 == 0:
                    self.unsure.add(address)
                    self._daemon.ask("undo", id=self.standing.pop(address), reason="acknowledged")
                    self.ended.add(address)
                    self.unsure.discard(address)
            except (OSError, ValueError):
                return

    def join(self) -> None:
        """The daemon is dead; wait until this has seen it."""
        self._thread.join(20)


def killed_at_random(ground: Ground, daemon: Daemon, rounds: int, draw: random.Random) -> Killed:
    """Kill the daemon so many times, at random moments of its work, and start it again. A probe knocks at what was
    blocked before the first round, all the time."""
    probed = ["203.0.113.61", "2001:db8:f::61"]
    for address in probed:
        daemon.ask("block", what=address, reason="must hold all the time")
    until(lambda: set(probed) <= set(kernel.blocked(ground.gateway)))
    standing: dict[str, str] = {}
    ended: set[str] = set()
    lost: list[str] = []
    phantoms: list[str] = []
    reconciled: list[float] = []
    following = [0] * PEOPLE
    with knocking(ground, probed) as knocks:
        for number in range(rounds):
            people = [_People(daemon, at, first) for at, first in enumerate(following)]
            time.sleep(draw.uniform(0.0, 0.4))
            daemon.kill(everything=bool(number % 2))
            for at, person in enumerate(people):
                person.join()
                following[at] = person.next
                standing.update(person.standing)
                ended |= person.ended
            began_s = time.monotonic()
            daemon.start(wait=False)
            if number % 4 == 3:  # also while it starts
                time.sleep(draw.uniform(0.0, 0.6))
                daemon.kill()
                daemon.start(wait=False)
            daemon.wait_ready()
            try:
                until(lambda: standing.keys() <= kernel.blocked(ground.gateway).keys())
            except Failed:
                missing = sorted(standing.keys() - kernel.blocked(ground.gateway).keys())
                said = [f"{address} ({standing[address]}): {_state_of(daemon, address)}" for address in missing]
                raise Failed(f"round {number}: not in the kernel: {', '.join(said)}\n{daemon.tail(15)}") from None
            reconciled.append(time.monotonic() - began_s)
            held = {
                target["value"]
                for row in daemon.ask("decisions", state="active")["decisions"]
                for target in row["targets"]
            }
            lost += sorted(standing.keys() - held)
            phantoms += sorted(ended & held)
    acknowledged = len(standing) + len(ended)
    return Killed(rounds, acknowledged, lost, phantoms, knocks.through(), len(knocks.seen), reconciled)


def _state_of(daemon: Daemon, address: str) -> str:
    """What the daemon says of an address."""
    for row in daemon.ask("decisions")["decisions"]:
        for target in row["targets"]:
            if target["value"] == address:
                return f"{row['id']} {row['state']}, {target['state']} {target['enforcements']}"
    return "unknown"
