"""Does a decision still stand? Asked again of every one when lists, allowances or protected addresses change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from egressd.detect.blocks import main_target
from egressd.detect.kept import tell
from egressd.detect.policy import pair
from egressd.intel.allowances import Allowances
from egressd.intel.index import Index
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
) -> Review:
    """Look at a decision about `target` that covers `addresses` and `pairs` (client, address); `match` is what its
    target matches now (`match_target`)."""
    if match is None or main_target(match) != target:
        return Review(None, f"{before.indicator.value} is no longer listed", "unlisted", ())
    name, address = _parts_of(target)
    kept = allowances.allows(name, address, b"", now_s) or allowances.never_blocks(name, address, now_s)
    if kept is not None:
        return Review(None, tell(kept), kept.kind, ())
    network = parse_network(target.value) if target.kind in ("address", "network") else None
    if network is not None:
        why = protected.why_network(*network)
        if why:
            return Review(None, why, "protected", ())
    return Review(match, "", "", tuple(kept_targets(addresses, pairs, allowances, protected, now_s)))


def kept_targets(
    addresses: Iterable[bytes],
    pairs: Iterable[tuple[bytes, bytes]],
    allowances: Allowances,
    protected: Protected,
    now_s: int,
) -> list[tuple[Target, str]]:
    """Which addresses and pairs may not be blocked any more, each with the reason."""
    free: list[tuple[Target, str]] = []
    for address in addresses:
        reason = kept_reason(b"", address, allowances, protected, now_s)
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


def match_target(index: Index, target: Target, now_s: int) -> Match | None:
    """What a decision's target matches in an index."""
    if target.kind == "url":
        host, _, path = target.value.partition("/")
        return index.match_url(host.strip("[]"), "/" + path, now_s)
    if target.kind in ("address", "network"):
        return index.match_address(parse_address(target.value.partition("/")[0]), now_s)
    return index.match_name(target.value, now_s)


def _parts_of(target: Target) -> tuple[str, bytes]:
    """(name, address) of what a decision is about; a network's first address stands for it."""
    if target.kind in ("address", "network"):
        return "", parse_address(target.value.partition("/")[0])
    return target.value.partition("/")[0], b""
