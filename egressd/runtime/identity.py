"""Whose addresses are whose, while the daemon runs: the kernel's neighbour table, DHCP leases, names, and what follows.

What frames show comes from the packet processes (intake). All of it meets in one `Devices`; every few seconds it is
looked at again which incidents a device turns out to be behind, and whether an isolated one has new addresses.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from egressd.capture.neighbours import NeighbourWatch, read_confirmed
from egressd.capture.rtnetlink import Neighbour
from egressd.clock import Clock
from egressd.config.schema import DeviceOptions
from egressd.config.texts import escape_path
from egressd.detect.devices import Devices, Lease
from egressd.detect.leases import MAX_LEASE_BYTES, NO_LEASES, is_of_leases, parse_leases
from egressd.detect.mac import render_mac
from egressd.intel.networks import render_address
from egressd.units import DAY_US

LOOK_S: Final = 5.0
DUMP_S: Final = 60.0  # the whole neighbour table, beside what it tells by itself
ASKED_AGAIN_US: Final = DAY_US
MAX_ASKED: Final = 4_096  # addresses whose name was asked for
RESOLVE_S: Final = 3.0

log = logging.getLogger("egressd")
Sign = tuple[int, int, int]


class Identity:
    """`on_look` is called after each look; `resolve` tells an address's name, or raises OSError."""

    def __init__(
        self,
        devices: Devices,
        clock: Clock,
        options: Callable[[], DeviceOptions],
        base_dir: Path,
        on_look: Callable[[], None],
        resolve: Callable[[bytes], str] | None = None,
    ) -> None:
        self.devices = devices
        self.problems: dict[str, str] = {}  # lease file -> why it cannot be read
        self._clock = clock
        self._options = options
        self._base_dir = base_dir
        self._on_look = on_look
        self._resolve = resolve or resolve_pointer
        self._signs: dict[str, Sign] = {}
        self._strange: dict[str, Sign] = {}  # of files that are none of leases
        self._leased: dict[str, frozenset[bytes]] = {}  # by file: the addresses that it named last
        self._asked_us: dict[bytes, int] = {}
        self.wanted: Callable[[], Iterable[tuple[bytes, bytes]]] = tuple  # (MAC, address) of devices without a name

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        watch = self._listen(loop)
        asking = ThreadPoolExecutor(1, thread_name_prefix="reverse-zone")
        dump_s = 0.0
        try:
            while True:
                if self._options().neighbours and loop.time() >= dump_s:
                    dump_s = loop.time() + DUMP_S
                    with suppress(OSError):  # said already, by who looks at links
                        self.met(await asyncio.to_thread(read_confirmed))
                await self.look()
                await self._ask_names(asking)
                await asyncio.sleep(LOOK_S)
        finally:
            asking.shutdown(wait=False, cancel_futures=True)
            if watch is not None:
                loop.remove_reader(watch.fileno())
                watch.close()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> NeighbourWatch | None:
        if not self._options().neighbours:
            return None
        try:
            watch = NeighbourWatch()
        except OSError as error:
            log.error("the kernel's neighbour table cannot be followed: %s", error)
            return None
        loop.add_reader(watch.fileno(), lambda: self.met(watch.drain()))
        return watch

    def met(self, neighbours: Sequence[Neighbour]) -> None:
        """The kernel has just confirmed who has an address."""
        now_us = self._clock.now_us()
        for one in neighbours:
            self.devices.spoke(one.mac, one.address, now_us, is_attached=True, is_asked=True)

    async def look(self) -> None:
        """Read lease files that changed, then let incidents and isolations follow."""
        for name in self._options().leases:
            await self._read(name)
        for gone in self._leased.keys() - set(self._options().leases):
            self._take(gone, [])
            del self._leased[gone], self._signs[gone]
        self.problems = {name: why for name, why in self.problems.items() if name in self._options().leases}
        self._strange = {name: sign for name, sign in self._strange.items() if name in self.problems}
        self._on_look()

    async def _read(self, name: str) -> None:
        path = self._base_dir / name
        try:
            status = await asyncio.to_thread(path.stat)
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
                raise OSError(errno.EINVAL, "is no file")
            sign = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._signs.get(name) == sign:
                self.problems.pop(name, None)  # another file was there meanwhile, or none
                return
            if name in self.problems and self._strange.get(name) == sign:
                return
            text = await asyncio.to_thread(_text_of, path)
            if not await asyncio.to_thread(is_of_leases, text):  # what was read before stays in force
                self._strange[name] = sign  # a large one takes more than a second to read
                raise OSError(errno.EINVAL, NO_LEASES)
        except OSError as error:
            if name not in self.problems:
                log.error("the lease file %s cannot be read: %s", escape_path(name), error.strerror)
            self.problems[name] = str(error.strerror)
            return
        self.problems.pop(name, None)
        self._signs[name] = sign
        self._take(name, await asyncio.to_thread(parse_leases, text))

    def _take(self, name: str, leases: Sequence[Lease]) -> None:
        now_us = self._clock.now_us()
        named = self._options().names
        for lease in leases:
            # dnsmasq does not say since when: what is leased now says nothing of who had it before.
            since = lease if lease.from_us else lease._replace(from_us=self.devices.lease_since(lease, now_us))
            self.devices.leased(since if named else since._replace(name=""))
        addresses = frozenset(lease.address for lease in leases)
        for address in self._leased.get(name, frozenset()) - addresses:
            self.devices.forget_lease(address)
        self._leased[name] = addresses

    async def _ask_names(self, asking: ThreadPoolExecutor) -> None:
        """The reverse zone's name of hosts with incidents; one question at a time, each address once a day."""
        options = self._options()
        if not (options.names and options.reverse_zone):
            return
        now_us = self._clock.now_us()
        for mac, address in self.wanted():
            if now_us - self._asked_us.get(address, -ASKED_AGAIN_US) < ASKED_AGAIN_US:
                continue
            while len(self._asked_us) >= MAX_ASKED:
                del self._asked_us[next(iter(self._asked_us))]
            self._asked_us[address] = now_us
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(RESOLVE_S):
                    name = await asyncio.get_running_loop().run_in_executor(asking, self._resolve, address)
                    self.devices.named(mac, name)
            return


def follow_isolated(devices: Devices, isolated: Iterable[tuple[str, bytes]], since_us: int) -> dict[str, list[bytes]]:
    """New addresses of isolated devices, by decision. `isolated` are (decision, address) pairs."""
    macs: dict[str, set[bytes]] = {}
    held: dict[str, set[bytes]] = {}
    for decision, address in isolated:
        held.setdefault(decision, set()).add(address)
        mac = devices.device_of(address, devices.now_us)
        if mac:
            macs.setdefault(decision, set()).add(mac)
    found: dict[str, list[bytes]] = {}
    for decision, of in macs.items():
        new = [one for mac in sorted(of) for one in devices.addresses_of(mac, since_us) if one not in held[decision]]
        if new:
            found[decision] = new
    return found


def device_text(devices: Devices, mac: bytes) -> str:
    """A device for people: its name and MAC."""
    name = devices.name_of(mac)
    return f"{name} ({render_mac(mac)})" if name else render_mac(mac)


def resolve_pointer(address: bytes) -> str:
    """The name of an address by the machine's own resolver. Blocks; raises OSError."""
    try:
        return socket.getnameinfo((render_address(address), 0), socket.NI_NAMEREQD)[0]
    except UnicodeError as error:  # whoever answered it, it is decoded as UTF-8
        raise OSError(errno.EILSEQ, "the name is no text") from error


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_LEASE_BYTES).decode("utf-8", "replace")
