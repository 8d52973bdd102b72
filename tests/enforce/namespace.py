"""A LAN host, a gateway and the outside in network namespaces, for what only the kernel can tell."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.netns.spaces import Namespace, Spaces, ip_batch, missing, set_sysctls

CLIENT4, CLIENT6 = "10.0.0.9", "fd00:0:0:1::9"
GATEWAY4, GATEWAY6 = "10.0.0.1", "fd00:0:0:1::1"
SERVER4, SERVER6 = "192.0.2.10", "2001:db8:f::10"
OTHER4, OTHER6 = "192.0.2.11", "2001:db8:f::11"
SAFE4, SAFE6 = "192.0.2.53", "2001:db8:53::53"  # protected (rules.PROTECTED)
REMEDY4, REMEDY6 = "198.51.100.7", "2001:db8:7::7"
SERVED = (SERVER4, OTHER4, SAFE4, REMEDY4, SERVER6, OTHER6, SAFE6, REMEDY6)

# What many gateways have: accept what is established, early; drop the rest; hide the LAN.
HOST_RULES = """
table inet host {
 chain passing {
  type filter hook forward priority filter; policy drop;
  ct state established,related accept
  iifname "lan" accept
 }
}
table ip hidden {
 chain hide { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
}
"""


class Lab(NamedTuple):
    """The three namespaces."""

    lan: Namespace
    gateway: Namespace
    wan: Namespace


@contextlib.contextmanager
def bare() -> Iterator[Namespace]:
    """One empty namespace."""
    spaces = Spaces()
    try:
        yield spaces.make("gw")
    finally:
        spaces.close()


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Three that are connected, with forwarding and masquerade in the middle."""
    spaces = Spaces()
    try:
        made = Lab(spaces.make("lan"), spaces.make("gw"), spaces.make("wan"))
        _connect(made)
        made.gateway.call(set_sysctls, {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"})
        made.gateway.run("nft", "-f", "-", text=HOST_RULES)
        yield made
    finally:
        spaces.close()


def _connect(made: Lab) -> None:
    lan, gateway, wan = (space.name for space in made)
    ip_batch(
        [
            f"{gateway}: link add lan type veth peer name eth0 netns {lan}",
            f"{gateway}: link add wan type veth peer name eth0 netns {wan}",
            f"{gateway}: addr add {GATEWAY4}/24 dev lan",
            f"{gateway}: addr add {GATEWAY6}/64 dev lan nodad",
            f"{gateway}: addr add 100.64.0.1/30 dev wan",
            f"{gateway}: addr add fd00:0:0:ff::1/64 dev wan nodad",
            f"{gateway}: link set lan up",
            f"{gateway}: link set wan up",
            f"{lan}: addr add {CLIENT4}/24 dev eth0",
            f"{lan}: addr add {CLIENT6}/64 dev eth0 nodad",
            f"{lan}: link set eth0 up",
            f"{lan}: route add default via {GATEWAY4}",
            f"{lan}: route add default via {GATEWAY6}",
            f"{wan}: addr add 100.64.0.2/30 dev eth0",
            f"{wan}: addr add fd00:0:0:ff::2/64 dev eth0 nodad",
            *(f"{wan}: addr add {addr}{'/128' if ':' in addr else '/32'} dev lo" for addr in SERVED),
            f"{wan}: link set eth0 up",
            f"{wan}: route add default via fd00:0:0:ff::1",
            f"{gateway}: route add 192.0.2.0/24 via 100.64.0.2",
            f"{gateway}: route add 198.51.100.0/24 via 100.64.0.2",
            f"{gateway}: route add 2001:db8::/32 via fd00:0:0:ff::2",
        ]
    )


def listing(space: Namespace) -> dict[str, dict[str, dict[str, Any]]]:
    """Our sets as `nft` tells them: set -> element as text -> what it has (timeout, expires, comment, counter)."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for item in json.loads(space.run("nft", "-j", "list", "table", "inet", "egressd").stdout)["nftables"]:
        if "set" in item:
            elements = item["set"].get("elem", [])
            found[item["set"]["name"]] = dict(map(_element, elements))
    return found


def _element(item: Any) -> tuple[str, dict[str, Any]]:
    options = item["elem"] if isinstance(item, dict) and "elem" in item else {"val": item}
    return _spell(options["val"]), options


def _spell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if "concat" in value:
        return ">".join(map(_spell, value["concat"]))
    return str(value)


def need_namespaces() -> None:
    """Skip, and say what to install, where none can be made."""
    reason = missing({"ip": "iproute2", "nft": "nftables"})
    if reason:
        pytest.skip(reason)
