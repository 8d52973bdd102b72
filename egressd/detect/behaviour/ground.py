"""What the detectors share: who contacts what, since when, how often, and how many others do.

A destination is a registered domain, or an address where there is no name. What many clients share is no C&C by itself
(RITA calls that prevalence and lowers its scores by it: github.com/activecm/rita, "Scoring"); what the guard, an
allowance or the protected set names never scores. All tables are bounded; one client cannot fill them alone.
With several packet processes each sees the clients of its share only, and counts by that share.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from egressd.detect.behaviour.dark import Light
from egressd.detect.behaviour.failures import Failures
from egressd.detect.behaviour.opaque import Requests
from egressd.detect.behaviour.sketch import MARKS
from egressd.detect.behaviour.tunnel import Below
from egressd.intel.networks import render_address
from egressd.native import mypyc_attr
from egressd.units import DAY_US, HOUR_US
from egressd.wire.table import RecentTable

if TYPE_CHECKING:  # four bytes to mypyc instead of eight, and nothing at run time
    from mypy_extensions import i32

MAX_CLIENTS: Final = 8_192
MAX_DOMAINS: Final = 32_768
MAX_TRACKS: Final = 100_000  # pairs of client and destination
SHARE_PER_HOUR: Final = 2_000  # new pairs of one client within an hour; what is more is not followed, and counted
MAX_ADDRESSES: Final = 16  # of one machine in a day
SAME_VISIT_US: Final = (
    5_000_000  # contacts that follow each other so closely are one visit: a page, a poll with retries
)
COMPANY_US: Final = 3_000_000  # other destinations that a client visits so close by are loaded together with it
BORN_US: Final = 2_000_000  # what follows the first visit so closely was led to by it: a page that somebody opened
KEPT_VISITS: Final = 25  # times kept of a pair: 24 intervals
TICK_US: Final = 100_000  # visits are kept in tenths of a second
_MAX_TICKS: Final = 0xFFFF_FFFF
_RING: Final = 6

# What systems ask all day to learn whether they are online (RFC 8910 section 1 tells of such probes).
CONNECTIVITY: Final = frozenset(
    ("msftconnecttest.com", "msftncsi.com", "firefox.com", "gnome.org", "networkcheck.kde.org", "captive.apple.com")
)
# Protocols that are regular by nature and lead to no C&C here: DNS (has detectors of its own), DHCP, NTP (RFC 5905),
# NetBIOS, SSDP, mDNS, LLMNR, STUN (calls: RFC 8489).
REGULAR_PORTS: Final = frozenset((53, 67, 68, 123, 137, 138, 139, 546, 547, 1900, 3478, 5353, 5355))


def by_port(ports: frozenset[int]) -> bytes:
    """A byte for each port, 1 for those of `ports`: looked up without an object for the number."""
    marks = bytearray(1 << 16)
    for port in ports:
        marks[port] = 1
    return bytes(marks)


@mypyc_attr(acyclic=True)
class Domain:
    """A destination, and who has contacted it."""

    __slots__ = ("address", "asked", "clients", "first_us", "name", "number")

    def __init__(self, number: int, name: str, address: bytes, first_us: int) -> None:
        self.number = number
        self.name = name
        self.address = address  # packed, when the destination is one
        self.first_us = first_us
        self.clients = 0  # a bit per machine by its number: never counts too many
        self.asked = False  # somebody here asked DNS for it


class Machine:
    """A host, which has as many addresses as it likes: MAX_ADDRESSES of a day are followed apart, what others do is
    done by the last of those. `number` is that of its first address."""

    __slots__ = ("addresses", "client", "number", "since_us")

    def __init__(self, number: int, ts_us: int) -> None:
        self.number = number
        self.since_us = ts_us
        self.addresses = 0
        self.client: Client | None = None


class Client:
    """A client of the network."""

    __slots__ = (
        "address",
        "asked",
        "failures",
        "first_us",
        "light",
        "machine",
        "number",
        "opened",
        "opened_us",
        "ring",
    )

    def __init__(self, number: int, address: bytes, ts_us: int, machine: int) -> None:
        self.number = number
        self.machine = machine  # its number
        self.address = address
        self.first_us = ts_us
        self.opened = 0  # new pairs since `opened_us`
        self.opened_us = ts_us
        self.asked = 0  # DNS questions
        self.ring: list[Track] = []  # pairs visited last
        self.failures: Failures | None = None
        self.light: Light | None = None


@mypyc_attr(acyclic=True)
class Track:
    """One client's contacts with one destination."""

    __slots__ = (
        "accompanied", "below", "born", "company", "domain", "first_us", "last_us", "named", "requests", "times",
        "unnamed", "visit_us", "visits",
    )  # fmt: skip

    def __init__(self, domain: Domain, ts_us: int) -> None:
        self.domain = domain
        self.first_us = ts_us
        self.last_us = ts_us
        self.visit_us = ts_us
        self.visits: i32 = 0
        self.company: i32 = 0  # other destinations visited together with the visit at hand
        self.accompanied: i32 = 0  # visits with two such or more
        self.born: i32 = 0  # other destinations that followed on the first visit at once
        self.unnamed: i32 = 0  # of an address: connections in which no name was seen
        self.named = False  # of an address: a name was seen on it after all
        self.times: array[int] | None = None  # of visits, in ticks since `first_us`
        self.requests: Requests | None = None
        self.below: Below | None = None

    def contact(self, ts_us: int) -> bool:
        """A contact; True when it begins a new visit. What comes late counts as now."""
        gap_us = ts_us - self.last_us
        if gap_us > 0:
            self.last_us = ts_us
        if gap_us <= SAME_VISIT_US and self.visits:
            return False
        if self.company >= 2:
            self.accompanied += 1
        self.company = 0
        self.visits += 1
        self.visit_us = ts_us
        ticks = (ts_us - self.first_us) // TICK_US
        if ticks > _MAX_TICKS:
            self.first_us = ts_us
            self.times = None
            ticks = 0
        if self.visits > 1:
            if self.times is None:
                self.times = array("I", (0,))
            if len(self.times) == KEPT_VISITS:
                del self.times[0]
            self.times.append(ticks)
            if self.visits == KEPT_VISITS:
                self.times = array("I", self.times)  # without room for more
        return True

    def loaded_along(self) -> float:
        """Which part of the visits so far came with the visits of others: a page and what it loads."""
        return int(self.accompanied) / int(self.visits) if self.visits else 0.0


class Ground:
    """The tables."""

    def __init__(self, learning_us: int, limit: int = MAX_TRACKS) -> None:
        self.learning_us = learning_us
        self.started_us = -1
        self.over_share = 0  # new pairs of clients that had more than their share
        self._clients: RecentTable[bytes, Client] = RecentTable(MAX_CLIENTS)
        self._domains: RecentTable[str, Domain] = RecentTable(MAX_DOMAINS)
        self._addresses: RecentTable[bytes, Domain] = RecentTable(MAX_DOMAINS)
        self._tracks: RecentTable[int, Track] = RecentTable(limit)
        self.machine_of: Callable[[bytes], bytes] = _itself  # what an address counts as (Devices.machine_of)
        self._machines: RecentTable[bytes, Machine] = RecentTable(MAX_CLIENTS)
        self._numbered = 0
        self._last: Client | None = None

    @property
    def clients(self) -> int:
        """How many clients are known."""
        return len(self._clients)

    @property
    def evicted(self) -> int:
        """Entries forgotten because a table was full."""
        return self._clients.evicted + self._domains.evicted + self._addresses.evicted + self._tracks.evicted

    def __len__(self) -> int:
        return len(self._tracks)

    def client(self, address: bytes, ts_us: int) -> Client:
        """The client at `address`."""
        last = self._last
        if last is not None and last.address == address:
            return last
        if self.started_us < 0:
            self.started_us = ts_us
        known = self._clients.get(address)
        if known is None:
            known = self._new_client(address, ts_us)
        self._last = known
        return known

    def _new_client(self, address: bytes, ts_us: int) -> Client:
        key = self.machine_of(address)
        machine = self._machines.get(key)
        if machine is None:
            machine = Machine(self._numbered + 1, ts_us)
            self._machines.add(key, machine)
        elif not -DAY_US < ts_us - machine.since_us < DAY_US:
            machine.since_us = ts_us
            machine.addresses = 0
        if machine.client is not None and machine.addresses >= MAX_ADDRESSES:
            return machine.client
        self._numbered += 1
        machine.addresses += 1
        known = machine.client = Client(self._numbered, address, ts_us, machine.number)
        self._clients.add(address, known)
        return known

    def knew(self, name: str, ts_us: int) -> None:
        """`name` was contacted at `ts_us`, before a restart or where another process looks: it is not new since."""
        if self.started_us < 0 or ts_us < self.started_us:
            self.started_us = ts_us
        domain = self.domain(name, ts_us)
        domain.first_us = min(domain.first_us, ts_us)

    def domain(self, name: str, ts_us: int) -> Domain:
        """The registered domain `name` as a destination."""
        known = self._domains.get(name)
        if known is None:
            self._numbered += 1
            known = Domain(self._numbered, name, b"", ts_us)
            self._domains.add(name, known)
        return known

    def address(self, address: bytes, ts_us: int) -> Domain:
        """An address as a destination."""
        known = self._addresses.get(address)
        if known is None:
            self._numbered += 1
            known = Domain(self._numbered, render_address(address), address, ts_us)
            self._addresses.add(address, known)
        return known

    def track(self, client: Client, domain: Domain, ts_us: int) -> Track | None:
        """The pair of `client` and `domain`; None when it is new and the client has had its share of new ones."""
        key = client.number << 40 | domain.number
        track = self._tracks.get(key)
        if track is None:
            if not -HOUR_US < ts_us - client.opened_us < HOUR_US:
                client.opened_us = ts_us
                client.opened = 0
            if client.opened >= SHARE_PER_HOUR:
                self.over_share += 1
                return None
            client.opened += 1
            track = Track(domain, ts_us)
            self._tracks.add(key, track)
            domain.clients |= 1 << client.machine % MARKS
        return track

    def visit(self, client: Client, track: Track, ts_us: int) -> bool:
        """A contact of a pair; True when it begins a visit. Who visits together is noted on both sides."""
        if not track.contact(ts_us):
            return False
        ring = client.ring
        held = -1  # where `track` stands in it
        for at in range(len(ring)):
            other = ring[at]
            if other is track:
                held = at
                continue
            since_us = ts_us - other.visit_us  # negative of a visit that is told late: that keeps nobody company
            if 0 <= since_us <= COMPANY_US:
                other.company += 1
                track.company += 1
                if since_us <= BORN_US and other.visits == 1:
                    other.born += 1
        if held >= 0:
            del ring[held]
        elif len(ring) >= _RING:
            del ring[0]
        ring.append(track)
        return True

    def rarity(self, domain: Domain) -> float:
        """1.0 for what few clients contact, 0.0 for what many do, between them evenly. Few are 3, or 2 % of all; many
        6, or 5 %. (RITA raises scores under 2 % and lowers them over 50 %: its networks are larger than an office.)"""
        clients = len(self._clients)
        few = min(max(3, clients // 50), 20)
        many = min(max(6, clients // 20), 40)
        count = domain.clients.bit_count()
        if count <= few:
            return 1.0
        return max(0.0, (many - count) / (many - few))

    def is_learning(self, ts_us: int) -> bool:
        """Whether too little has been seen to say what is new."""
        return ts_us - self.started_us < self.learning_us

    def is_new(self, domain: Domain) -> bool:
        """Whether nobody here had contacted `domain` before the learning time was over."""
        return domain.first_us - self.started_us >= self.learning_us

    def is_guests(self, client: Client, domain: Domain) -> bool:
        """Whether a client came after the learning time, and `domain` with it: all that it does is new here."""
        came_us = client.first_us
        return came_us - self.started_us >= self.learning_us and domain.first_us - came_us < self.learning_us


def _itself(address: bytes) -> bytes:
    """Nobody knows whose it is."""
    return address
