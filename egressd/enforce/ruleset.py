"""The text of our nftables table, for `nft -f`: rules, sets, and what is in the sets that only configuration fills.

Pure. Every name in it is a constant, every number a setting, every address was packed bytes: nothing that came from the
wire gets near this text. The table stands beside whatever rules the host has: its chains run before the usual filter
chains (priority filter - 10), so an early `ct state established accept` there does not let a block through, and they
accept what is not ours to stop, so the host's own rules still decide about that.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final, NamedTuple

from egressd.intel.networks import NAT64_WELL_KNOWN

Network = tuple[bytes, int]

REJECT: Final = "reject"  # TCP reset, else ICMP administratively prohibited: the program gives up at once
DROP: Final = "drop"  # nothing comes back
PREFIXES: Final = {
    "b": "address",
    "n": "network",
    "p": "pair",
    "q": "client",
    "c": "segment",
}  # log prefix egressd:<letter><4|6> -> kind of the target that stopped the packet

_MAX_BLOCKED: Final = 1_048_576
_SIX_TO_FOUR: Final = (bytes.fromhex("2002") + bytes(14), 16)  # RFC 3056 section 2
_TEREDO: Final = (bytes.fromhex("20010000") + bytes(12), 32)  # RFC 4380 section 4: the server's address follows


class RulesetSettings(NamedTuple):
    """What an operator may set about the table. The log is limited per source and destination: `log_per_minute` with
    bursts of `log_burst`; `snaplen_bytes` of a stopped packet are logged."""

    action: str = REJECT
    log_group: int = 7
    log_per_minute: int = 30
    log_burst: int = 10
    snaplen_bytes: int = 128
    max_blocked: int = _MAX_BLOCKED


class Ground(NamedTuple):
    """Networks that configuration puts into the table. `never` is never blocked as a destination, `spare` are machines
    of ours that are never isolated or cut, `remedy` is what isolated machines may still reach, `unarmed` are sources
    that blocks for everybody do not hold for: those of segments under a weaker mode."""

    never: tuple[Network, ...] = ()
    spare: tuple[Network, ...] = ()
    remedy: tuple[Network, ...] = ()
    unarmed: tuple[Network, ...] = ()


GROUND_SETS: Final = ("never", "spare", "remedy", "unarmed")


def ground_elements(ground: Ground, nat64: Iterable[Network] = (NAT64_WELL_KNOWN,)) -> dict[str, list[Network]]:
    """Set name -> disjoint networks in order. IPv4 networks stand in `never6` too, in the forms that carry them through
    IPv6: NAT64, 6to4, Teredo's server (a Teredo client's address is written backwards: no network covers it)."""
    never = list(ground.never)
    carriers = (_SIX_TO_FOUR, _TEREDO, *nat64)
    images = [carry(carrier, network) for network in never if len(network[0]) == 4 for carrier in carriers]
    found: dict[str, list[Network]] = {}
    sets: list[tuple[str, Iterable[Network]]] = [("never", [*never, *images])]
    sets += [("spare", ground.spare), ("remedy", ground.remedy), ("unarmed", ground.unarmed)]
    for name, networks in sets:
        found[f"{name}4"] = merge(network for network in networks if len(network[0]) == 4)
        found[f"{name}6"] = merge(network for network in networks if len(network[0]) == 16)
    return found


def carry(carrier: Network, network: Network) -> Network:
    """The IPv6 network of every address that carries an address of an IPv4 network behind a prefix. Bits 64 to 71 are
    no part of it under NAT64 (RFC 6052 section 2.2) and stay zero."""
    prefix, length = carrier
    addr, inner = network
    octets = length // 8
    if octets >= 12 or carrier in (_SIX_TO_FOUR, _TEREDO):
        body = prefix[:octets] + addr
        total = length + inner
    else:
        before = 8 - octets
        body = prefix[:octets] + addr[:before] + b"\0" + addr[before:]
        total = length + inner + (8 if inner > 8 * before else 0)
    return body.ljust(16, b"\0")[:16], total


def merge(networks: Iterable[Network]) -> list[Network]:
    """Networks of one family, as few and disjoint as can be: intervals in a set may not overlap."""
    plain: list[IPv4Network | IPv6Network] = []
    for addr, length in networks:
        kind = IPv4Network if len(addr) == 4 else IPv6Network
        plain.append(kind((int.from_bytes(addr, "big"), length), strict=False))
    merged: Iterable[IPv4Network | IPv6Network] = collapse_addresses(plain)  # type: ignore[type-var]
    return [(network.network_address.packed, network.prefixlen) for network in merged]


def render_ruleset(settings: RulesetSettings, ground: Ground, nat64: Iterable[Network] = (NAT64_WELL_KNOWN,)) -> str:
    """The whole table. Loading it again replaces the rules and the sets of `ground`; the elements of all other sets
    stay, with what is left of their time-outs and with their counters. Raises ValueError for an unknown action."""
    if settings.action not in (REJECT, DROP):
        raise ValueError(f'unknown action "{settings.action}": choose {REJECT} or {DROP}')
    lines = ["add table inet egressd", "flush table inet egressd", "table inet egressd {"]
    lines += _sets(settings)
    lines.append("}")
    for name, networks in ground_elements(ground, nat64).items():
        lines.append(f"flush set inet egressd {name}")
        if networks:
            listed = ", ".join(_spell(network) for network in networks)
            lines.append(f"add element inet egressd {name} {{ {listed} }}")
    lines.append("table inet egressd {")
    for chain in (_refuse, _tell, _guard, _inbound, _quarantine, _cut, _local, _hooks):
        lines += chain(settings)
    lines.append("}")
    return "\n".join(lines) + "\n"


def _spell(network: Network) -> str:
    addr, length = network
    kind = IPv4Network if len(addr) == 4 else IPv6Network
    return str(kind((int.from_bytes(addr, "big"), length)))


def _chain(name: str, *rules: str) -> list[str]:
    return [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]


def _sets(settings: RulesetSettings) -> list[str]:
    lines: list[str] = []
    for version, kind in (("4", "ipv4_addr"), ("6", "ipv6_addr")):
        pair = f"{kind} . {kind}"
        size = settings.max_blocked
        for name, written in (
            ("never", f"type {kind}; flags interval;"),
            ("spare", f"type {kind}; flags interval;"),
            ("remedy", f"type {kind}; flags interval;"),
            ("unarmed", f"type {kind}; flags interval;"),
            ("blocked", f"type {kind}; flags timeout; size {size}; counter;"),
            ("blockednet", f"type {kind}; flags interval,timeout; size 16384; counter;"),
            ("pair", f"type {pair}; flags timeout; size {size}; counter;"),
            ("quarantine", f"type {kind}; flags timeout; size 65536; counter;"),
            ("cutnet", f"type {kind}; flags interval,timeout; size 2048; counter;"),
            ("canary", f"type {kind}; flags timeout; size 1024; counter;"),
            ("seen", f"type {pair}; flags dynamic,timeout; size 65536; timeout 1m;"),
        ):
            lines.append(f"\tset {name}{version} {{ {written} }}")
    return lines


def _refuse(settings: RulesetSettings) -> list[str]:
    if settings.action == DROP:
        return _chain("refuse", "drop")
    # Admin-prohibited for TCP would let an IPv6 client retry for a second; a reset ends it in 0.1 ms.
    return _chain("refuse", "meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited")


def _tell(settings: RulesetSettings) -> list[str]:
    """One chain for each reason and family: tell of the packet unless its pair was told too often, then refuse it."""
    lines: list[str] = []
    limit = f"limit rate {settings.log_per_minute}/minute burst {settings.log_burst} packets"
    for letter in PREFIXES:
        for version, field in (("4", "ip"), ("6", "ip6")):
            log = (
                f'log prefix "egressd:{letter}{version}" group {settings.log_group} '
                f"snaplen {settings.snaplen_bytes} queue-threshold 16"
            )
            update = f"update @seen{version} {{ {field} saddr . {field} daddr timeout 1m {limit} }}"
            lines += _chain(f"tell_{letter}{version}", f"{update} {log}", "goto refuse")
    return lines


def _both(*rules: str) -> list[str]:
    """Each rule for IPv4 and IPv6; `#` stands for the version, `ip` in front of an address for its header."""
    return [
        rule.replace("ip ", header).replace("#", version)
        for rule in rules
        for version, header in (("4", "ip "), ("6", "ip6 "))
    ]


def _guard(settings: RulesetSettings) -> list[str]:
    """Toward a destination. Protected ones first, on the side that the blocks are matched on: were `never` asked about
    sources here, every machine in a protected network of ours would be exempt. Whether the source is armed is asked of
    what goes to a blocked destination alone. A pair names its client: nothing of an unarmed one's is put there."""
    return _chain(
        "guard",
        *_both(
            "ip daddr @never# return",
            "ip daddr @blocked# ip saddr != @unarmed# goto tell_b#",
            "ip daddr @blockednet# ip saddr != @unarmed# goto tell_n#",
            "ip saddr . ip daddr @pair# goto tell_p#",
        ),
    )


def _inbound(settings: RulesetSettings) -> list[str]:
    """From a blocked destination. Never from the output hook: it would swallow the resets that we send in its name."""
    return _chain(
        "inbound",
        *_both(
            "ip saddr @never# return",
            "ip saddr @blocked# ip daddr != @unarmed# drop",
            "ip saddr @blockednet# ip daddr != @unarmed# drop",
            "ip daddr . ip saddr @pair# drop",
        ),
    )


def _quarantine(settings: RulesetSettings) -> list[str]:
    """An isolated client reaches remedies and nothing else, nothing else reaches it, nor do flows that stand."""
    return _chain(
        "quarantine",
        *_both(
            "ip saddr @quarantine# ip saddr != @spare# ip daddr != @remedy# goto tell_q#",
            "ip daddr @quarantine# ip daddr != @spare# ip saddr != @remedy# drop",
        ),
    )


def _cut(settings: RulesetSettings) -> list[str]:
    """The same for a whole segment."""
    return _chain(
        "cut",
        *_both(
            "ip saddr @cutnet# ip saddr != @spare# ip daddr != @remedy# goto tell_c#",
            "ip daddr @cutnet# ip daddr != @spare# ip saddr != @remedy# drop",
        ),
    )


def _local(settings: RulesetSettings) -> list[str]:
    """What isolated machines may ask of the gateway itself: names, addresses, signs of life; not its proxies."""
    lines: list[str] = []
    for letter in ("q", "c"):
        lines += _chain(
            f"local_{letter}",
            "udp dport { 53, 67, 547 } accept",
            "tcp dport 53 accept",
            "meta l4proto { icmp, ipv6-icmp } accept",
            *_both("ip daddr @remedy# accept"),
            f"meta nfproto ipv4 goto tell_{letter}4",
            f"goto tell_{letter}6",
        )
    return lines


def _hooks(settings: RulesetSettings) -> list[str]:
    def base(hook: str, *rules: str) -> list[str]:
        return _chain(hook, f"type filter hook {hook} priority filter - 10; policy accept;", *rules)

    return [
        *base("forward", "jump quarantine", "jump cut", "jump guard", "jump inbound"),
        *base("output", 'oifname "lo" accept', "jump guard"),
        *base(
            "input",
            'iifname "lo" accept',
            *_both(
                "ip saddr @quarantine# ip saddr != @spare# jump local_q",
                "ip saddr @cutnet# ip saddr != @spare# jump local_c",
            ),
            "jump inbound",
        ),
    ]
