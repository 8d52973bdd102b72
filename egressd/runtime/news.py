"""What a change of lists and allowances makes worth looking for in history: contacts that nobody was told of then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from egressd.detect.intel import Intel
from egressd.intel.allowances import ALLOW_DESTINATION, IGNORE_CLIENT, NEVER_BLOCK, Allowance
from egressd.intel.layered import in_memory
from egressd.intel.networks import parse_network, ways_to
from egressd.model import Indicator

MANY_ENDED: Final = 1_000  # allowances: to search history once as a whole is cheaper than for each


class News(NamedTuple):
    """`arrived` came into force, `ended` let contacts be until now."""

    arrived: tuple[Indicator, ...] = ()
    ended: tuple[Allowance, ...] = ()


Range = tuple[bytes, bytes]  # first and last address, of one family


class Places(NamedTuple):
    """Where history is to be searched: names by registered domain, those right below a public suffix, contacts at
    addresses, and of clients."""

    domains: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    addresses: tuple[Range, ...] = ()
    clients: tuple[Range, ...] = ()


def news(before: Intel, after: Intel, over: Iterable[Allowance], now_s: int) -> News | None:
    """What changed between two states, and allowances whose time was `over` meanwhile; None when everything may be new:
    a long list or a feed is another one. A line that only moved is not new."""
    short = in_memory(before.index, after.index)
    if short is None:
        return None
    arrived = tuple(one for one in short if one.added_s <= now_s and not before.index.holds(one))
    stays = {_what(one) for one in after.allowances.allowances}
    gone = [one for one in before.allowances.allowances if _what(one) not in stays]
    # What was never blocked was told of all the same.
    ended = tuple(one for one in dict.fromkeys((*gone, *over)) if one.kind != NEVER_BLOCK)
    return News(arrived, ended) if len(ended) <= MANY_ENDED else None


def _what(one: Allowance) -> Allowance:
    """What an allowance lets be, wherever it stands and whoever wrote it."""
    return one._replace(owner="", reason="", source="", line=0)


def places_of(one: Allowance, intel: Intel) -> Places:
    """Where contacts are that an allowance let be. Some there it did not: whoever searches looks at each."""
    host = one.value if parse_network(one.value) is not None else one.value.partition("/")[0]  # of a URL
    network = parse_network(host)
    if network is not None:
        ways = tuple(ways_to(*network, intel.allowances.nat64))
        return Places(clients=ways) if one.kind == IGNORE_CLIENT else Places(addresses=ways)
    domain = intel.suffixes.registered_domain(host)
    below = (host,) if not domain and one.kind == ALLOW_DESTINATION else ()
    return Places(domains=(domain or host,), below=below)
