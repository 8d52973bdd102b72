"""What may never be blocked by address: special-purpose ranges, and what operator and daemon add to them."""

from __future__ import annotations

from collections.abc import Iterable

from egressd.errors import Problem
from egressd.intel.lines import Wrong, problem_at, show, split_comment, split_lines
from egressd.intel.networks import (
    NAT64_LENGTHS,
    NAT64_WELL_KNOWN,
    NetworkTable,
    carried_ipv4,
    embedded_ipv4,
    first_address,
    parse_network,
    render_network,
)


class Protected:
    """Networks with a reason each, immutable. Costs one hash per prefix length in use.

    An IPv6 address that carries an IPv4 address is protected when either of the two is.
    """

    __slots__ = ("_nat64", "_table", "networks")

    def __init__(
        self, networks: Iterable[tuple[bytes, int, str]], nat64: tuple[tuple[bytes, int], ...] = (NAT64_WELL_KNOWN,)
    ) -> None:
        self.networks = tuple(networks)
        self._table: NetworkTable[str] = NetworkTable(
            (addr, length, f"{render_network(addr, length)} is protected ({reason})")
            for addr, length, reason in self.networks
        )
        self._nat64 = nat64

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        return Protected, (self.networks, self._nat64)

    def plus(self, networks: Iterable[tuple[bytes, int, str]]) -> Protected:
        """These and `networks` (first address, length, reason) too, which are asked first: what the daemon finds out
        about its own machine changes while it runs."""
        return Protected((*networks, *self.networks), self._nat64)

    @classmethod
    def parse(
        cls,
        text: str,
        source: str = "special_purpose.txt",
        *,
        extra: Iterable[tuple[str, str]] = (),
        nat64: Iterable[str] = (),
    ) -> tuple[Protected, list[Problem]]:
        """Read lines of `network # reason`. `extra` are (address or network, reason) of the operator, asked first;
        `nat64` are the networks' own translation prefixes beside the well-known one (RFC 6052 section 2.2)."""
        networks: list[tuple[bytes, int, str]] = []
        problems: list[Problem] = []
        for number, (entry, reason) in enumerate(extra, 1):
            try:
                networks.append((*_parse_protected(entry, 1), reason))
            except Wrong as wrong:
                problems.append(problem_at("extra protected networks", number, wrong))
        prefixes = [NAT64_WELL_KNOWN]
        for number, entry in enumerate(nat64, 1):
            prefix = parse_network(entry)
            if prefix is None or len(prefix[0]) != 16 or prefix[1] not in NAT64_LENGTHS:
                what = f'not a NAT64 prefix: "{show(entry)}"'
                advice = "write an IPv6 network of length 96, 64, 56, 48, 40 or 32"
                problems.append(Problem("NAT64 prefixes", number, 1, what, advice))
            else:
                prefixes.append(prefix)
        for number, line in enumerate(split_lines(text), 1):
            try:
                words, reason = split_comment(line)
                if not words:
                    continue
                if len(words) > 1:
                    raise Wrong(words[1].column, f'unexpected word "{show(words[1].text)}"', "write network # reason")
                if not reason:
                    raise Wrong(
                        words[0].column, f'"{show(words[0].text)}" has no reason', "add # and why it is protected"
                    )
                networks.append((*_parse_protected(words[0].text, words[0].column), f"{source}:{number}: {reason}"))
            except Wrong as wrong:
                problems.append(problem_at(source, number, wrong))
        return cls(networks, tuple(prefixes)), problems

    def why(self, addr: bytes) -> str:
        """Why a packed address may not be blocked, with the place of the rule; "" when it may."""
        for inner in embedded_ipv4(addr, self._nat64):
            reason = self._table.longest(inner)
            if reason is not None:
                return reason
        return self._table.longest(addr) or ""

    def why_network(self, addr: bytes, length: int) -> str:
        """Why a network may not be blocked: it shares an address with a protected one; "" when it does not."""
        if length == 8 * len(addr):
            return self.why(addr)
        for inner in carried_ipv4(addr, length, self._nat64):
            if not inner.length:
                return f"{render_network(inner.prefix, inner.prefix_length)} carries every IPv4 address"
            reason = self._table.overlapping(inner.first, inner.length)
            if reason is not None:
                return reason
        return self._table.overlapping(addr, length) or ""


def _parse_protected(text: str, column: int) -> tuple[bytes, int]:
    network = parse_network(text)
    if network is None:
        raise Wrong(column, f'not an address or network: "{show(text)}"', "write address or address/length")
    return first_address(*network), network[1]
