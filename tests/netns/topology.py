"""The proving ground: LAN hosts in two segments, a gateway, and everything beyond it.

    host -- switch (bridge a segment) -- mhlw0 |         |
                                               | gateway | wan0 -- wan (all servers, on any address of its ranges)
    host -- switch                    -- jps0  |         |

The gateway forwards both families, hides IPv4 behind its own address, and carries a ruleset of its host's own, as
gateways do: established connections are accepted, what is not allowed is dropped. No namespace has a way out.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.netns.spaces import Namespace, Spaces, ip_batch, set_sysctls

MHLW: Final = "mhlw"
JPS: Final = "jps"
NUMBERS: Final = {MHLW: 1, JPS: 2}
GATEWAY4: Final = {MHLW: "10.1.0.1", JPS: "10.2.0.1"}
GATEWAY6: Final = {MHLW: "2001:db8:1::1", JPS: "2001:db8:2::1"}
GATEWAY_ULA: Final = {MHLW: "fd00:0:0:1::1", JPS: "fd00:0:0:2::1"}
NETWORKS: Final = {
    MHLW: ("10.1.0.0/16", "2001:db8:1::/64", "fd00:0:0:1::/64"),
    JPS: ("10.2.0.0/16", "2001:db8:2::/64", "fd00:0:0:2::/64"),
}
GATEWAY_MAC: Final = {MHLW: "02:00:00:00:01:01", JPS: "02:00:00:00:02:01"}
WAN4: Final = ("100.64.0.2", "100.64.0.1")  # the gateway's, the provider's
WAN6: Final = ("fd00:0:0:ff::2", "fd00:0:0:ff::1")
LINE4: Final = ("100.64.1.2", "100.64.1.1")  # of the second line, past the gateway

# Where the servers are: every address of these answers in the namespace `wan`, and nowhere else.
SERVED4: Final = ("192.0.2.0/24", "203.0.113.0/24", "8.8.8.8/32", "64:ff9b::/96")
SERVED6: Final = "2001:db8:f::/48"
NOWHERE: Final = "198.51.100.0/24"  # the provider throws it away: what load is addressed to
LOAD_CLIENTS: Final = {MHLW: "10.1.128.0/17", JPS: "10.2.128.0/17"}

# The ruleset of the gateway's host. Load is not tracked: a million flows would only show the size of conntrack's table.
HOST_RULES: Final = """
table inet host {
 chain untracked {
  type filter hook prerouting priority raw; policy accept;
  ip saddr { 10.1.128.0/17, 10.2.128.0/17 } notrack
 }
 chain incoming {
  type filter hook input priority filter; policy drop;
  ct state established,related accept
  iifname "lo" accept
  meta l4proto { icmp, icmpv6 } accept
  iifname { "mhlw0", "jps0" } udp dport 53 accept
  iifname { "mhlw0", "jps0" } tcp dport { 22, 53 } accept
 }
 chain passing {
  type filter hook forward priority filter; policy drop;
  ct state established,related accept
  iifname { "mhlw0", "jps0" } oifname "wan0" accept
 }
}
table ip hostnat {
 chain hide {
  type nat hook postrouting priority srcnat; policy accept;
  oifname "wan0" masquerade
 }
}
"""


class Host(NamedTuple):
    """A machine of the LAN. `v4`, `v6` and `ula` are its addresses."""

    name: str
    segment: str
    space: Namespace
    v4: str
    v6: str
    ula: str


# Who lives there at first; the names of the incident's people. Addresses are those of pcaps/jps-2015.
PEOPLE: Final = {
    "april": "10.1.3.23",
    "clerk": "10.1.3.24",
    "may": "10.2.5.41",
    "office": "10.2.5.40",
    "later1": "10.2.7.11",
    "later2": "10.2.7.52",
    "later3": "10.2.9.30",
    "beacon": "10.2.9.77",
}
FEW: Final = ("april", "may", "office")


class Topology:
    """All namespaces, as a context."""

    def __init__(self, people: tuple[str, ...] = FEW, *, second_line: str = "") -> None:
        """`people` are keys of PEOPLE; `second_line` is one of them that has a line of its own past the gateway."""
        self._people = people
        self._second_line = second_line
        self._spaces: Spaces | None = None
        self.hosts: dict[str, Host] = {}
        self.gateway: Namespace
        self.wan: Namespace
        self.switch: Namespace  # whoever sends here on `up1` or `up2` sends to the gateway without a bridge's cost

    def __enter__(self) -> Topology:
        self._spaces = Spaces()
        try:
            self._build(self._spaces)
        except BaseException:
            self._spaces.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._spaces is not None:
            self._spaces.close()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def _build(self, spaces: Spaces) -> None:
        self.gateway, self.wan, self.switch = (spaces.make(name) for name in ("gw", "wan", "sw"))
        for space in (self.gateway, self.wan, self.switch):
            space.call(set_sysctls, {"net/ipv6/conf/all/accept_ra": "0", "net/ipv6/conf/default/accept_dad": "0"})
        lines: list[str] = []
        for segment in NUMBERS:
            lines += _segment(segment, self.gateway.name, self.switch.name)
        lines += _wan(self.gateway.name, self.wan.name)
        ip_batch(lines)
        self.gateway.call(
            set_sysctls,
            {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/rp_filter": "1"},
        )
        self.gateway.run("nft", "-f", "-", text=HOST_RULES)
        for name in self._people:
            self.add_host(name, PEOPLE[name])
        if self._second_line:
            host = self.hosts[self._second_line].space.name
            ip_batch([
                f"{host}: link add line1 type veth peer name line1 netns {self.wan.name}",
                f"{host}: address add {LINE4[0]}/30 dev line1",
                f"{self.wan.name}: address add {LINE4[1]}/30 dev line1",
                f"{host}: link set line1 up",
                f"{self.wan.name}: link set line1 up",
                f"{host}: route add 192.0.2.25/32 via {LINE4[1]} src {LINE4[0]}",
            ])  # fmt: skip

    def add_host(self, name: str, v4: str) -> Host:
        """One more machine; the second octet of its address tells its segment."""
        assert self._spaces is not None
        octets = v4.split(".")
        segment = {number: segment for segment, number in NUMBERS.items()}[int(octets[1])]
        tail = f"{int(octets[2]):x}:{int(octets[3]):x}"
        v6, ula = (f"{prefix}::{tail}" for prefix in (f"2001:db8:{octets[1]}", f"fd00:0:0:{octets[1]}"))
        space = self._spaces.make(name)
        space.call(set_sysctls, {"net/ipv6/conf/all/accept_ra": "0", "net/ipv6/conf/default/accept_dad": "0"})
        port = f"p{len(self.hosts)}"
        mac = "02:00:" + ":".join(f"{int(octet):02x}" for octet in octets)
        here, switch = f"{space.name}:", f"{self.switch.name}:"
        ip_batch([
            f"{here} link add eth0 address {mac} type veth peer name {port} netns {self.switch.name}",
            f"{switch} link set {port} master {segment}",
            f"{switch} link set {port} up",
            f"{here} link set eth0 up",
            f"{here} address add {v4}/16 dev eth0",
            f"{here} address add {v6}/64 dev eth0 nodad",
            f"{here} address add {ula}/64 dev eth0 nodad",
            f"{here} route add default via {GATEWAY4[segment]}",
            f"{here} route add default via {GATEWAY6[segment]}",
        ])  # fmt: skip
        self.hosts[name] = host = Host(name, segment, space, v4, v6, ula)
        return host


def _segment(segment: str, gateway: str, switch: str) -> list[str]:
    """A segment's bridge and the gateway's interface to it."""
    link, number = f"{segment}0", NUMBERS[segment]
    return [
        f"{switch}: link add {segment} type bridge mcast_snooping 0",
        f"{switch}: link set {segment} up",
        f"{gateway}: link add {link} address {GATEWAY_MAC[segment]} type veth peer name up{number} netns {switch}",
        f"{switch}: link set up{number} master {segment}",
        f"{switch}: link set up{number} up",
        f"{gateway}: link set {link} up",
        f"{gateway}: address add {GATEWAY4[segment]}/16 dev {link}",
        f"{gateway}: address add {GATEWAY6[segment]}/64 dev {link} nodad",
        f"{gateway}: address add {GATEWAY_ULA[segment]}/64 dev {link} nodad",
    ]


def _wan(gateway: str, wan: str) -> list[str]:
    """The link to the provider and all that is behind it."""
    lines = [
        f"{gateway}: link add wan0 type veth peer name gw0 netns {wan}",
        f"{gateway}: link set wan0 up",
        f"{wan}: link set gw0 up",
    ]
    for (here, there), length in ((WAN4, 30), (WAN6, 64)):
        nodad = " nodad" if length == 64 else ""
        lines += [
            f"{gateway}: address add {here}/{length} dev wan0{nodad}",
            f"{wan}: address add {there}/{length} dev gw0{nodad}",
            f"{gateway}: route add default via {there}",
        ]
    for segment in NUMBERS:
        lines += [f"{wan}: route add {network} via {WAN6[0]}" for network in NETWORKS[segment][1:]]
        lines.append(f"{wan}: route add {NETWORKS[segment][0]} via {WAN4[0]}")  # for load, which is not masqueraded
    lines += [f"{wan}: route add local {network} dev lo" for network in SERVED4]
    return [*lines, f"{wan}: route add local {SERVED6} dev lo", f"{wan}: route add blackhole {NOWHERE}"]
