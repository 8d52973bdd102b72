"""The ground with everything on it: topology, servers, and daemons started on its gateway."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.netns import clients, servers
from tests.netns.daemon import SOON_S, Daemon
from tests.netns.spaces import Running
from tests.netns.topology import FEW, GATEWAY4, GATEWAY6, JPS, Host, Topology

RESOLVER: Final = GATEWAY4[JPS]
AUTHORITY: Final = "192.0.2.53"  # beyond the gateway
RESOLVER6: Final = GATEWAY6[JPS]
# What is measured is not the budgets, unless a test says so.
WIDE: Final = {"policy": {"blocks_per_hour": 100_000, "addresses_per_indicator_hour": 4_096}}


class Ground:
    """A context. `names` is the LAN's resolver on the gateway, `wan` every server beyond it."""

    def __init__(
        self,
        people: tuple[str, ...] = FEW,
        zone: servers.Zone | None = None,
        *,
        second_line: str = "",
        unbound: bool = False,
    ) -> None:
        """With `unbound` the LAN's resolver is Unbound on the gateway, which asks a server beyond it."""
        self.topology = Topology(people, second_line=second_line)
        self._zone = dict(zone or {})
        self._unbound = unbound
        self._stack = ExitStack()
        self.wan: Running
        self.names: Running

    def __enter__(self) -> Ground:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            topology = stack.enter_context(self.topology)
            certificate = servers.make_certificate(folder)
            self.wan = stack.enter_context(topology.wan.start(servers.serve_wan, certificate))
            addresses = [*GATEWAY4.values(), *GATEWAY6.values()]
            if self._unbound:
                self.names = stack.enter_context(topology.wan.start(servers.serve_names, [AUTHORITY], self._zone))
                resolver = servers.start_unbound(topology.gateway, addresses, AUTHORITY, folder)
                stack.callback(resolver.wait)
                stack.callback(resolver.kill)
            else:
                self.names = stack.enter_context(topology.gateway.start(servers.serve_names, addresses, self._zone))
            assert self.wan.receive() == self.names.receive() == "ready"
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Host:
        return self.topology[name]

    @property
    def gateway(self) -> Any:
        """The gateway's namespace."""
        return self.topology.gateway

    def daemon(self, listed: str, options: Mapping[str, Any] | None = None, **more: Any) -> Daemon:
        """A daemon for this gateway, not started. What an earlier one left in force is gone: blocks outlive daemons."""
        self.gateway.run("nft", "delete", "table", "inet", "egressd", check=False)
        return Daemon(self.topology.gateway, listed, options, **more)

    def zone(self, zone: servers.Zone) -> None:
        """Change or add names."""
        self.names.ask("change", zone)

    def resolve(self, host: str, name: str, *, rrtype: int = clients.A) -> list[str] | None:
        """A host asks the LAN's resolver."""
        found: list[str] | None = self[host].space.call(clients.resolve, name, GATEWAY4[self[host].segment], rrtype)
        return found

    def get(self, host: str, address: str, name: str) -> tuple[str, bool]:
        """A host asks a server for a page."""
        told: tuple[str, bool] = self[host].space.call(clients.get, address, name)
        return told

    def visit(self, host: str, name: str, path: str = "") -> tuple[str, bool]:
        """A host resolves a name and asks for a page at once."""
        told: tuple[str, bool] = self[host].space.call(clients.visit, name, GATEWAY4[self[host].segment], path)
        return told

    def kept_out(self, host: str, name: str, rrtype: int = clients.A, timeout_s: float = SOON_S) -> bool:
        """Whether a host that resolves a name cannot connect, from some moment within the time on."""
        addresses = self.resolve(host, name, rrtype=rrtype) or []
        end_s = time.monotonic() + timeout_s
        while addresses and any(self.get(host, one, name)[0] == clients.ESTABLISHED for one in addresses):
            if time.monotonic() > end_s:
                return False
        return bool(addresses)

    def hits(self, after: int = 0) -> list[dict[str, Any]]:
        """What reached servers beyond the gateway, except the first `after`."""
        found: list[dict[str, Any]] = self.wan.ask("hits", after)
        return found
