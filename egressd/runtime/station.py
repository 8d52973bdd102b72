"""Where this gateway stands: its interfaces, addresses, gateways and resolvers, and the hosts that it depends on.

Read from the kernel and the system's files, again and again; never learned from traffic.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from egressd.capture.rtnetlink import LinkWatch
from egressd.capture.surroundings import lan_interfaces, read_surroundings
from egressd.config.feed_options import feed_host
from egressd.config.schema import Config
from egressd.detect.devices import Devices
from egressd.intel.networks import NetworkTable, parse_address
from egressd.runtime.enforcement import Network
from egressd.runtime.knowledge import Surroundings
from egressd.runtime.named_hosts import NamedHosts
from egressd.runtime.whose import Whose

LINKS_S: Final = 2.0  # interfaces, addresses and resolvers are also looked at without being told

log = logging.getLogger("egressd")


class Station:
    """What was seen last. `on_elsewhere` hears that other interfaces than before face the hosts."""

    def __init__(self, devices: Devices, on_elsewhere: Callable[[bool], None]) -> None:
        """`on_elsewhere` is told whether packets were captured before."""
        self.around = Surroundings((), frozenset())
        self.named = NamedHosts()
        self.own: tuple[Network, ...] = ()
        self.interfaces: tuple[str, ...] = ()
        self.judged: list[str] = []  # how it was found which interfaces face the hosts, a line each
        self.whose = Whose()
        self._devices = devices
        self._on_elsewhere = on_elsewhere

    async def look(self, config: Config, segments: NetworkTable[str]) -> bool:
        """Read interfaces, addresses, gateways, resolvers, time servers, feeds' hosts and who is logged in; returns
        whether anything is other than it was. Raises OSError when the kernel does not tell."""
        found = await asyncio.to_thread(read_surroundings)
        feeds = {feed_host(one): f"feed {name}" for name, one in config.feeds.items() if one.enabled}
        self.named.want({**feeds, **dict.fromkeys(found.time_servers, "time server")})
        depended_on = [*found.protected(), *self.named.addresses()]
        own = {*found.own_addresses(), *found.gateways(), *found.resolvers}
        resolvers = frozenset((*found.own_addresses(), *found.resolvers))
        self._devices.exclude(frozenset(link.mac for link in found.links))
        choice = lan_interfaces(found.links, found.addresses, found.routes)
        self.judged = choice.explain()
        interfaces = config.capture.interfaces or choice.names
        if interfaces != self.interfaces:
            self._capture_on(interfaces)
        lan = tuple((*one, "") for one in found.networks_of(self.interfaces))
        self.whose = Whose(frozenset(found.own_addresses()), NetworkTable(lan), segments)
        never = tuple((address, 8 * len(address), what) for address, what in depended_on)
        around = Surroundings(never, resolvers, lan)
        if around == self.around:
            return False
        self.around = around
        self.own = tuple(sorted((address, 8 * len(address)) for address in own))
        return True

    async def follow(self, look: Callable[[], Awaitable[None]]) -> None:
        """Call `look` whenever the kernel tells of a change, and now and then: new addresses, gateways and resolvers
        are protected within seconds. Until cancelled."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        watch = LinkWatch()

        def hear() -> None:
            if watch.drain():
                changed.set()

        loop.add_reader(watch.fileno(), hear)
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINKS_S):
                        await changed.wait()
                changed.clear()
                try:
                    await look()
                except OSError as error:
                    log.error("interfaces and addresses cannot be read: %s; what was known stays protected", error)
        finally:
            loop.remove_reader(watch.fileno())
            watch.close()

    def name(self, segments: NetworkTable[str]) -> None:
        """An operator named other segments."""
        self.whose = Whose(self.whose.own, self.whose.lan, segments)

    def is_own(self, address: bytes) -> bool:
        """Whether an address is this machine's, its gateway's or its resolver's."""
        return (address, 8 * len(address)) in self.own

    def may_isolate(self, text: str) -> bool:
        """Whether policy may isolate who has an address, in text: a host of ours as far as addresses tell. Anybody can
        send under the address of a server outside, which would be cut off from everybody."""
        address = parse_address(text)
        return bool(address) and not self.is_own(address) and self.whose.is_host(address)

    def _capture_on(self, interfaces: tuple[str, ...]) -> None:
        """Other interfaces face the hosts now. None at all is no reason to stop looking where we look: an interface
        that is down comes back."""
        if not set(interfaces) - set(self.interfaces):
            return  # one that went away may come back: its packet processes wait for it
        before, self.interfaces = self.interfaces, interfaces
        if before:
            log.warning("capturing on %s (before: %s)", ", ".join(interfaces), ", ".join(before))
        self._on_elsewhere(bool(before))
