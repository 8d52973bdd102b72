"""Address ranges of content delivery networks and clouds, where very many sites live on each address.

What was seen on an address there says little: the innocent sites on it are those that nobody here has asked for yet. So
an address in such a range counts as shared from the first moment, whatever passive DNS holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from egressd.errors import Problem
from egressd.intel.lines import Wrong, parse_options, problem_at, show, split_comment, split_lines
from egressd.intel.networks import (
    NAT64_WELL_KNOWN,
    NetworkTable,
    carried_ipv4,
    embedded_ipv4,
    first_address,
    parse_network,
    render_network,
)

# A wider line is a mistake: it would keep every address of whole registries out of every block.
WIDEST_IPV4: Final = 8
WIDEST_IPV6: Final = 16


class SharedRange(NamedTuple):
    """A network whose addresses many sites share. `operator` is "" when the line names none; `place` is `file:line`."""

    first: bytes
    length: int
    operator: str
    place: str

    def why(self) -> str:
        """The range in words, with the place of its line."""
        of = f" of {self.operator}" if self.operator else ""
        return f"in {render_network(self.first, self.length)}, a shared range{of} ({self.place})"


class SharedRanges:
    """Shared ranges, immutable. A look-up costs one hash per prefix length in use."""

    __slots__ = ("_nat64", "_table", "ranges")

    def __init__(
        self, ranges: Iterable[SharedRange] = (), nat64: tuple[tuple[bytes, int], ...] = (NAT64_WELL_KNOWN,)
    ) -> None:
        """Of several ranges with one network the first is kept. `nat64` are prefixes whose addresses are judged by the
        IPv4 address inside (RFC 6052 section 2.2)."""
        self.ranges = tuple(ranges)
        self._nat64 = nat64
        self._table: NetworkTable[SharedRange] = NetworkTable((one.first, one.length, one) for one in self.ranges)

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        return SharedRanges, (self.ranges, self._nat64)

    def why(self, addr: bytes) -> str:
        """Why a packed address is shared, in words with the place of the line; "" when it is in no range. An IPv6
        address that carries an IPv4 address is shared when either of the two is."""
        found = self._table.longest(addr)
        if found is None and len(addr) == 16:
            for inner in embedded_ipv4(addr, self._nat64):
                found = found or self._table.longest(inner)
        return found.why() if found is not None else ""

    def why_network(self, addr: bytes, length: int) -> str:
        """Why a network may not be blocked whole: a shared range lies in it, or in the IPv4 network that it carries, or
        either in a range; "" when none does."""
        if length == 8 * len(addr):
            return self.why(addr)
        found = self._table.overlapping(addr, length)
        for inner in carried_ipv4(addr, length, self._nat64) if found is None else ():
            found = found or self._table.overlapping(inner.first, inner.length)
        return found.why() if found is not None else ""


NO_SHARED_RANGES: Final = SharedRanges()


def parse_shared_ranges(text: str, source: str) -> tuple[list[SharedRange], list[Problem]]:
    """Read lines of `network operator=NAME # comment`. The operator may be left out, so that a list as an operator
    publishes it can be used as it is."""
    ranges: list[SharedRange] = []
    problems: list[Problem] = []
    for number, line in enumerate(split_lines(text), 1):
        try:
            words, _ = split_comment(line)
            if not words:
                continue
            operator = parse_options(words[1:], ("operator",)).get("operator")
            first, length = _parse_range(words[0].text, words[0].column)
            ranges.append(
                SharedRange(first, length, operator.text if operator is not None else "", f"{source}:{number}")
            )
        except Wrong as wrong:
            problems.append(problem_at(source, number, wrong))
    return ranges, problems


def _parse_range(text: str, column: int) -> tuple[bytes, int]:
    """(first address, length). Raises Wrong for what is no network, or one too wide to be anybody's."""
    network = parse_network(text)
    if network is None:
        raise Wrong(column, f'not an address or network: "{show(text)}"', "write address or address/length")
    addr, length = network
    widest = WIDEST_IPV4 if len(addr) == 4 else WIDEST_IPV6
    if length < widest:
        what = f"{show(text)} is too wide: no address in it would ever be blocked"
        raise Wrong(column, what, f"list networks of /{WIDEST_IPV4} (IPv4) or /{WIDEST_IPV6} (IPv6) and longer")
    return first_address(addr, length), length
