"""Where this host stands: its networks, gateways and resolvers, and which of its interfaces face the clients.

What is found here is protected: egressd never blocks its own addresses, gateways or resolvers, also not new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from egressd.capture.forwarders import read_forwarders
from egressd.capture.rtnetlink import (
    HALF_OF_ALL,
    Address,
    Link,
    Route,
    read_addresses,
    read_links,
    read_routes,
)
from egressd.capture.sessions import read_sessions
from egressd.capture.timeservers import read_time_servers
from egressd.capture.tunnel_ends import read_tunnel_ends
from egressd.intel.networks import parse_address, render_address
from egressd.wire.direction import is_private

# Networks behind routers of ours: prefix lengths of IPv4 and IPv6, and how many there are in an organisation.
LEAST_LENGTH_4: Final = 8
LEAST_LENGTH_6: Final = 32
MAX_BEHIND: Final = 256

# The second holds the servers that systemd-resolved really asks, where the first names only its stub on loopback.
RESOLVER_FILES: Final = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
MAX_RESOLVER_FILE_BYTES: Final = 65_536
MAX_RESOLVERS: Final = 64

# What stands on another interface and shows its packets a second time.
_ON_TOP: Final = ("vlan", "macvlan", "ipvlan")


class Surroundings(NamedTuple):
    """One look at the host. `resolvers` are packed addresses, in order of the files; `sessions` are those that people
    are logged in from; `time_servers` are addresses as text and names; `tunnel_ends` are far ends of own tunnels,
    `forwarders` whom a resolver on this machine asks."""

    links: list[Link]
    addresses: list[Address]
    routes: list[Route]
    resolvers: list[bytes]
    sessions: list[bytes]
    time_servers: list[str]
    tunnel_ends: Sequence[bytes] = ()
    forwarders: Sequence[bytes] = ()

    def gateways(self) -> list[bytes]:
        """Every next hop of every route, also of those that lead to other own networks; each once."""
        return list(dict.fromkeys(route.gateway for route in self.routes if route.gateway))

    def own_addresses(self) -> list[bytes]:
        """The host's addresses, those of loopback too; each once."""
        return list(dict.fromkeys(one.address for one in self.addresses))

    def networks_of(self, names: Sequence[str]) -> list[tuple[bytes, int]]:
        """(first address, length) of the networks on these interfaces, and of those that routers of ours there lead to,
        in order: an interface with a default route leads to everybody, and so does one with very many routes."""
        faces = {link.ifindex for link in self.links if link.name in names}
        leads_out = {route.ifindex for route in self.routes if route.length <= HALF_OF_ALL}
        found = {(one.network, one.length) for one in self.addresses if one.ifindex in faces}
        behind = {
            (route.target, route.length)
            for route in self.routes
            if route.gateway
            and not route.is_told  # by whoever may sit there
            and route.ifindex in faces - leads_out
            and route.length >= (LEAST_LENGTH_4 if len(route.target) == 4 else LEAST_LENGTH_6)
        }
        return sorted(found | behind if len(behind) <= MAX_BEHIND else found)

    def protected(self) -> list[tuple[bytes, str]]:
        """(packed address, what it is) of own addresses, gateways, resolvers and what they ask, administrators and
        tunnels; each once."""
        what: dict[bytes, str] = {}
        for reason, addresses in (
            ("own address of this machine", self.own_addresses()),
            ("gateway of this machine", self.gateways()),
            ("resolver of this machine", self.resolvers),
            ("somebody is logged in from there", self.sessions),
            ("far end of a tunnel of this machine", self.tunnel_ends),
            ("asked by a resolver on this machine", self.forwarders),
        ):
            for address in addresses:
                what.setdefault(address, reason)
        return list(what.items())


class Judged(NamedTuple):
    """Whether an interface is taken as one that faces clients, and why."""

    name: str
    faces_clients: bool
    reason: str


class LanChoice(NamedTuple):
    """The interfaces to capture on, and the judgement on each interface there is, in the kernel's order."""

    names: tuple[str, ...]
    judged: tuple[Judged, ...]

    def explain(self) -> list[str]:
        """One line for each interface."""
        return [f"{one.name}: {'yes' if one.faces_clients else 'no'}, {one.reason}" for one in self.judged]


def read_surroundings(resolver_files: Sequence[str] = RESOLVER_FILES) -> Surroundings:
    """Look at the host now. Raises OSError when the kernel does not answer; resolver files that cannot be read count
    as empty. May take a while (see rtnetlink.py): call it from a thread."""
    links, routes = read_links(), read_routes()
    return Surroundings(
        links, read_addresses(), routes, read_resolvers(resolver_files), read_sessions(), read_time_servers(),
        read_tunnel_ends(links, routes), read_forwarders(),
    )  # fmt: skip


def lan_interfaces(links: Sequence[Link], addresses: Sequence[Address], routes: Sequence[Route]) -> LanChoice:
    """The interfaces that face clients, when nobody has said which do: those that are up, lead to no default route and
    have a private address; of interfaces that would show the same packets twice only one."""
    by_index = {link.ifindex: link for link in links}
    private: dict[int, list[bytes]] = {}
    for one in addresses:
        if _tells_a_lan(one.address):
            private.setdefault(one.ifindex, []).append(one.address)
    leads_out = {route.ifindex for route in routes if route.length <= HALF_OF_ALL}
    judged = {link.ifindex: _judge(link, by_index, private.get(link.ifindex, []), leads_out) for link in links}
    for link in links:
        parent = judged.get(link.parent)
        if judged[link.ifindex].faces_clients and link.kind in _ON_TOP and parent is not None and parent.faces_clients:
            judged[link.ifindex] = Judged(
                link.name, False, f"its packets are seen on {parent.name}, which it stands on"
            )
    verdicts = tuple(judged[link.ifindex] for link in links)
    return LanChoice(tuple(one.name for one in verdicts if one.faces_clients), verdicts)


def _judge(link: Link, by_index: dict[int, Link], private: list[bytes], leads_out: set[int]) -> Judged:
    master = by_index.get(link.master)
    if link.is_loopback:
        return Judged(link.name, False, "it is the loopback")
    if not link.is_up:
        return Judged(link.name, False, "it is not up")
    if master is not None and master.kind != "vrf":
        return Judged(link.name, False, f"it is a part of {master.name}")
    if link.ifindex in leads_out:
        return Judged(link.name, False, "a default route leads out through it")
    if not private:
        return Judged(link.name, False, "it has no private address")
    return Judged(link.name, True, f"it has the private address {render_address(private[0])} and no default route")


def _tells_a_lan(address: bytes) -> bool:
    """Whether hosts of an own network have addresses of this kind. Link-local ones say nothing, every interface has
    one (RFC 3927, RFC 4291 section 2.5.6)."""
    return is_private(address) and address[:2] != b"\xa9\xfe" and address[0] != 0xFE


def read_resolvers(files: Sequence[str] = RESOLVER_FILES) -> list[bytes]:
    """The resolvers that this host asks, each once, at most MAX_RESOLVERS; stubs on loopback included."""
    found: list[bytes] = []
    for name in files:
        with suppress(OSError), Path(name).open("rb") as file:
            found += parse_resolvers(file.read(MAX_RESOLVER_FILE_BYTES))
    return list(dict.fromkeys(found))[:MAX_RESOLVERS]


def parse_resolvers(octets: bytes) -> list[bytes]:
    """The addresses of the `nameserver` lines of a resolv.conf (resolv.conf(5)); a zone behind % is left out."""
    found: list[bytes] = []
    for line in octets.decode("ascii", "replace").splitlines():
        words = line.split(None, 2)
        if len(words) >= 2 and words[0] == "nameserver":
            address = parse_address(words[1].partition("%")[0])
            if address:
                found.append(address)
    return found
