"""A long list is saved while packets pass: how long until it is in force, and whether anything is missed meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.netns import kernel
from tests.netns.clients import AAAA
from tests.netns.daemon import Daemon, until
from tests.netns.ground import WIDE, Ground
from tests.netns.scenarios import background

EVIL: Final = "listed.evil.example\n"
WORSE: Final = "listed.worse.example\n"
TRIES: Final = 1_200
FIRST: Final = 0x1000
LOOK_S: Final = 0.002
PAUSE_S: Final = 0.1


def zone() -> dict[str, list[str]]:
    """Siblings of the two listed names, each at an address of its own."""
    names = {f"s{number}.evil.example": [f"2001:db8:f::{FIRST + number:x}"] for number in range(TRIES)}
    return names | {"b.worse.example": ["2001:db8:f::66"]}


def long_list(names: int) -> str:
    """So many registered domains."""
    return "".join(f"long{number}.example\n" for number in range(names))


class Reloaded(NamedTuple):
    """`in_force_s` from the save until the new list was in force. Meanwhile siblings of a name that was listed before
    and after were asked for: `late_ms` is how long after the answer each one's address was in the kernel, `missed` were
    not within two seconds. `sent` and `drops` are packets of the load beside it."""

    in_force_s: float
    late_ms: list[float]
    missed: int
    sent: int
    drops: int


def reload_long(ground: Ground, names: int, rate: int, code: Path) -> Reloaded:
    """Save a list of so many names anew, with one more, beside so many name-carrying packets a second."""
    text = long_list(names)
    ground.zone(zone())
    with ground.daemon(EVIL + text, WIDE, code=code, wait_s=240) as daemon:
        before = _drops(daemon)
        with background(ground, "named", rate, 120) as sent:
            fresh = daemon.list_file.with_name("4913")
            fresh.write_text(EVIL + text + WORSE)
            fresh.rename(daemon.list_file)
            saved_s = time.monotonic()
            late_ms: list[float] = []
            missed = number = 0
            while _indicators(daemon) != names + 2:  # then the packet processes are told, in a moment
                late = _block(ground, number)
                late_ms.append(late)
                missed += late < 0
                number += 1
                time.sleep(PAUSE_S)  # who measures must not be what is measured
            until(lambda: _is_listed(ground), why="the new line is not in force")
            in_force_s = time.monotonic() - saved_s
            for more in range(number, number + 20):  # while packet processes follow the swap up
                late = _block(ground, more)
                late_ms.append(late)
                missed += late < 0
        time.sleep(1.5)  # numbers are told once a second
        return Reloaded(in_force_s, late_ms, missed, sum(one.packets for one in sent), _drops(daemon) - before)


def _block(ground: Ground, number: int) -> float:
    """A host asks for a sibling that nobody asked for before; milliseconds until its address is in the kernel, -1 when
    it is not within two seconds."""
    address = f"2001:db8:f::{FIRST + number % TRIES:x}"
    began_s = time.monotonic()
    ground.resolve("may", f"s{number % TRIES}.evil.example", rrtype=AAAA)
    while not kernel.holds(ground.gateway, [address]):
        if time.monotonic() - began_s > 2:
            return -1.0
        time.sleep(LOOK_S)
    return 1000 * (time.monotonic() - began_s)


def _is_listed(ground: Ground) -> bool:
    ground.resolve("may", "b.worse.example", rrtype=AAAA)
    return kernel.holds(ground.gateway, ["2001:db8:f::66"])


def _drops(daemon: Daemon) -> int:
    return sum(int(one["kernel_drops"]) for one in daemon.ask("status")["interfaces"])


def _indicators(daemon: Daemon) -> int:
    return sum(int(one["indicators"]) for one in daemon.ask("status")["lists"])
