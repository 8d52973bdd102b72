"""Does a decision still stand? Asked again of every one when lists, allowances or protected addresses change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from egressd.detect.blocks import main_target
from egressd.detect.kept import Kept, tell
from egressd.detect.policy import pair
from egressd.intel.allowances import Allowances
from egressd.intel.index import Skip
from egressd.intel.layered import AnyIndex
from egressd.intel.networks import parse_address, parse_network, render_address
from egressd.intel.protected import Protected
from egressd.model import Match, Target


class Review(NamedTuple):
    """`reason` and `rule` say why the decision is lifted, "" when it stands; then `match` is what it rests on now, and
    `free` are targets that it may no longer cover, each with the reason."""

    match: Match | None
    reason: str
    rule: str
    free: tuple[tuple[Target, str], ...]


def review(
    target: Target,
    before: Match,
    addresses: Iterable[bytes],
    pairs: Iterable[tuple[bytes, bytes]],
    match: Match | None,
    allowances: Allowances,
    protected: Protected,
    now_s: int,
    kept: Kept | None = None,
) -> Review:
    """Look at a decision about `target` that covers `addresses` and `pairs` (client, address); `match` is what its
    target matches now (`match_target`). `kept` is of the same allowances, made once by who looks at many."""
    if match is None or main_target(match) != target:
        return Review(None, f"{before.indicator.value} is no longer listed", "unlisted", ())
    name, address = parts_of(target)
    allowed = allowances.allows(name, address, b"", now_s) or allowances.never_blocks(name, address, now_s)
    if allowed is not None:
        return Review(None, tell(allowed), allowed.kind, ())
    network = parse_network(target.value) if target.kind in ("address", "network") else None
    if network is not None:
        why = protected.why_network(*network)
        if why:
            return Review(None, why, "protected", ())
    return Review(match, "", "", tuple(kept_targets(name, addresses, pairs, allowances, protected, now_s, kept)))


def kept_targets(
    name: str,
    addresses: Iterable[bytes],
    pairs: Iterable[tuple[bytes, bytes]],
    allowances: Allowances,
    protected: Protected,
    now_s: int,
    kept: Kept | None = None,
) -> list[tuple[Target, str]]:
    """Which addresses and pairs of a block by `name` may not be blocked any more, each with the reason. An address that
    one client may reach is not blocked for everybody: others are kept from it one by one, as they ask."""
    kept = kept or Kept(allowances)
    free: list[tuple[Target, str]] = []
    for address in addresses:
        reason = kept_reason(b"", address, allowances, protected, now_s)
        for_some = kept.for_some(name, address, now_s) if not reason else None
        if for_some is not None:
            reason = f"{tell(for_some)} is for {for_some.client}"
        if reason:
            free.append((Target("address", render_address(address)), reason))
    for client, address in pairs:
        reason = kept_reason(client, address, allowances, protected, now_s)
        if reason:
            free.append((pair(client, address), reason))
    return free


def kept_reason(client: bytes, address: bytes, allowances: Allowances, protected: Protected, now_s: int) -> str:
    """Why `client` (b"": nobody) may not be kept from `address`, "" when it may."""
    why = protected.why(address)
    if why:
        return why
    kept = allowances.never_blocks("", address, now_s) or allowances.allows("", address, client, now_s)
    return tell(kept) if kept is not None else ""


def match_target(index: AnyIndex, target: Target, now_s: int, skip: Skip | None = None) -> Match | None:
    """What a decision's target matches in an index, those left out that `skip` is true of."""
    if target.kind == "url":
        host, _, path = target.value.partition("/")
        return index.match_url(host.strip("[]"), "/" + path, now_s, skip)
    if target.kind in ("address", "network"):
        return index.match_address(parse_address(target.value.partition("/")[0]), now_s, skip)
    return index.match_name(target.value, now_s, skip)


def parts_of(target: Target) -> tuple[str, bytes]:
    """(name, address) of what a decision is about; a network's first address stands for it."""
    if target.kind in ("address", "network"):
        return "", parse_address(target.value.partition("/")[0])
    return target.value.partition("/")[0], b""
