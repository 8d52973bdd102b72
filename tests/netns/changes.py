"""What changes around a daemon that runs: addresses that must be protected from now on, and a kernel that refuses for
as long as somebody else owns the table. In the caller's size."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.netns import kernel
from tests.netns.daemon import Daemon, until
from tests.netns.ground import Ground
from tests.netns.spaces import Namespace

# An address of the provider's, and what makes it one that must be protected; `ip` in the gateway's namespace.
NEWLY: Final = {
    "own address": ("203.0.113.91", "address add 203.0.113.91/32 dev lo"),
    "own address, IPv6": ("2001:db8:f::91", "address add 2001:db8:f::91/128 dev lo nodad"),
    "gateway": ("203.0.113.92", "route add 198.18.0.0/15 via 203.0.113.92 dev wan0 onlink"),
    "gateway, IPv6": ("2001:db8:f::92", "route add 2001:db8:ff::/48 via 2001:db8:f::92 dev wan0 onlink"),
    "resolver": ("203.0.113.93", ""),
    "resolver, IPv6": ("2001:db8:f::93", ""),
}


FEED: Final = "203.0.113.94"


@contextlib.contextmanager
def own_resolver_file(gateway: Namespace) -> Iterator[Path]:
    """A resolv.conf of its own for whatever is started in a namespace (ip-netns(8)); to be written in place."""
    folder = Path("/etc/netns") / gateway.name
    folder.mkdir(parents=True)
    file = folder / "resolv.conf"
    try:
        file.write_text("")
        yield file
    finally:
        file.unlink()
        folder.rmdir()
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # somebody else's may be in it


def newly_protected(ground: Ground, daemon: Daemon, resolver_file: Path) -> dict[str, float]:
    """Block addresses, then make each one that must be protected; seconds until the kernel lets it be, by kind."""
    took: dict[str, float] = {}
    for kind, (address, change) in NEWLY.items():
        daemon.ask("block", what=address, reason="before it became ours")
        until(lambda address=address: kernel.holds(ground.gateway, [address]))
        began_s = time.monotonic()
        if change:
            ground.gateway.run("ip", *(["-6"] if ":" in address else []), *change.split())
        else:
            with resolver_file.open("a") as file:
                file.write(f"nameserver {address}\n")
        until(_is_free(ground, address), why=f"{kind} {address} is not protected")
        took[kind] = time.monotonic() - began_s
    took["feed"] = _feed_protected(ground, daemon)
    return took


def _feed_protected(ground: Ground, daemon: Daemon) -> float:
    """A feed is configured whose server is blocked; seconds from the reload."""
    daemon.ask("block", what=FEED, reason="before a feed came from there")
    until(lambda: kernel.holds(ground.gateway, [FEED]))
    daemon.configure({"feeds": {"partner": {"url": f"https://{FEED}/c2.txt"}}})
    began_s = time.monotonic()
    daemon.ask("reload", timeout_s=60.0, reason="a feed")
    until(_is_free(ground, FEED), why="the feed's server is not protected")
    return time.monotonic() - began_s


def _is_free(ground: Ground, address: str) -> Callable[[], bool]:
    never = "never6" if ":" in address else "never4"

    def ask() -> bool:
        get = ("get", "element", "inet", kernel.TABLE, never, f"{{ {address} }}")
        protected = ground.gateway.run("nft", *get, check=False).returncode == 0
        return protected and not kernel.holds(ground.gateway, [address])

    return ask


class Outage(NamedTuple):
    """Seconds from the first refusal to the alarm, from the end of the outage until all that was decided in it was in
    the kernel, and how much that was; `alarm_ended` when nothing is failing afterwards."""

    alarm_s: float
    drained_s: float
    decided: int
    alarm_ended: bool


@contextlib.contextmanager
def foreign_owner(gateway: Namespace) -> Iterator[None]:
    """Somebody else owns a table of our name, so that the kernel refuses all that we write (NFT_TABLE_F_OWNER,
    linux/netfilter/nf_tables.h). It goes when its owner does."""
    owner = gateway.popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert owner.stdin is not None
        owner.stdin.write(f"delete table inet {kernel.TABLE}\n")
        owner.stdin.write(f"add table inet {kernel.TABLE} {{ flags owner; }}\n")
        owner.stdin.flush()
        until(lambda: _is_owned(gateway), why="the table could not be taken over")
        yield
    finally:
        owner.kill()
        owner.wait()


def _is_owned(gateway: Namespace) -> bool:
    told = gateway.run("nft", "list", "table", "inet", kernel.TABLE, check=False).stdout
    return "owner" in told


def outage(ground: Ground, daemon: Daemon, seconds: float, addresses: list[str], name: str) -> Outage:
    """The kernel refuses for some time; meanwhile people block `addresses`, and a host asks for the listed `name`."""
    found = ground.resolve("may", name) or []
    decided = [*addresses, *found]
    with foreign_owner(ground.gateway):
        began_s = time.monotonic()
        ground.resolve("may", name)
        until(lambda: _state(daemon) == "failing", 60, "no alarm")
        alarm_s = time.monotonic() - began_s
        for address in addresses:  # each waits for the kernel, and for no more than some seconds
            daemon.ask("block", what=address, reason="while the kernel refuses")
        assert not kernel.holds(ground.gateway, decided)
        for parts in (2, 1):  # somebody tries: an address that was found out is forgotten after ten quiet minutes
            time.sleep(max(0.0, began_s + seconds - time.monotonic()) / parts)
            ground.visit("may", name)
    ended_s = time.monotonic()
    until(lambda: kernel.holds(ground.gateway, decided), 120, "what was decided meanwhile is not in the kernel")
    drained_s = time.monotonic() - ended_s
    with contextlib.suppress(AssertionError):
        until(lambda: _state(daemon) == "ok")
    return Outage(alarm_s, drained_s, len(decided), _state(daemon) == "ok")


def _state(daemon: Daemon) -> str:
    rows = daemon.ask("status")["adapters"]
    return next((str(one["state"]) for one in rows if one["name"] == "nftables"), "")
