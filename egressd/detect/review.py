"""Does a decision still stand? Asked again of every one when lists, allowances or protected addresses change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from egressd.detect.blocks import is_carried, main_target
from egressd.detect.coverage import pair
from egressd.detect.kept import Kept, tell
from egressd.intel.allowances import Allowances
from egressd.intel.index import Skip
from egressd.intel.layered import AnyIndex
from egressd.intel.networks import parse_address, parse_network, render_address
from egressd.intel.protected import Protected
from egressd.model import BEHAVIOUR, Indicator, Match, Target

KEPT: Final = "kept"  # the rule of what is protected now


class Free(NamedTuple):
    """A target that a decision may not cover, and why; `rule` is the kind of the allowance, or KEPT."""

    target: Target
    reason: str
    rule: str


class Review(NamedTuple):
    """`reason` and `rule` say why the decision is lifted, "" when it stands; then `match` is what it rests on now, and
    `free` are targets that it may no longer cover."""

    match: Match | None
    reason: str
    rule: str
    free: tuple[Free, ...]


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
    if match is None or (target.kind != "pair" and not is_carried(target, before, match)):
        ignored = allowances.ignores_indicator(before.indicator, now_s)
        if ignored is not None:
            return Review(None, tell(ignored), ignored.kind, ())
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
    kept = kept or Kept(allowances)
    inside = kept.inside(target, now_s)
    if inside is not None:
        return Review(None, f"{tell(inside)} lies in {target.value}", inside.kind, ())
    return Review(match, "", "", tuple(kept_targets(name, addresses, pairs, allowances, protected, now_s, kept)))


def rests_on_list(target: Target, match: Match, alone: bool) -> bool:
    """Whether a list line is what a decision rests on; not when a person made a pair, or a behaviour was asked about.
    `alone` when policy keeps one client alone from what is listed."""
    return alone if target.kind == "pair" else match.level != BEHAVIOUR


def kept_targets(
    name: str,
    addresses: Iterable[bytes],
    pairs: Iterable[tuple[bytes, bytes]],
    allowances: Allowances,
    protected: Protected,
    now_s: int,
    kept: Kept | None = None,
) -> list[Free]:
    """Which addresses and pairs of a block by `name` may not be blocked any more. An address that one client may reach
    is not blocked for everybody: others are kept from it one by one, as they ask."""
    kept = kept or Kept(allowances)
    free: list[Free] = []
    for address in addresses:
        reason, rule = kept_reason(b"", address, allowances, protected, now_s, name)
        for_some = kept.for_some(name, address, now_s) if not reason else None
        if for_some is not None:
            reason, rule = f"{tell(for_some)} is for {for_some.client}", for_some.kind
        if reason:
            free.append(Free(Target("address", render_address(address)), reason, rule))
    for client, address in pairs:
        reason, rule = kept_reason(client, address, allowances, protected, now_s, name)
        if reason:
            free.append(Free(pair(client, address), reason, rule))
    return free


def kept_reason(
    client: bytes, address: bytes, allowances: Allowances, protected: Protected, now_s: int, name: str = ""
) -> tuple[str, str]:
    """(reason, rule) why `client` (b"": nobody) may not be kept from `address`, which it reaches by `name` if that is
    known; ("", "") when it may."""
    why = protected.why(address)
    if why:
        return why, KEPT
    kept = (
        allowances.never_blocks("", address, now_s)
        or allowances.ignores_client(client, now_s)
        or allowances.allows(name, address, client, now_s)
    )
    return (tell(kept), kept.kind) if kept is not None else ("", "")


def match_target(
    index: AnyIndex, target: Target, now_s: int, allowances: Allowances | None = None, skip: Skip | None = None
) -> Match | None:
    """What a decision's target matches in an index, without the lines that `allowances` ignore, or without those that
    `skip` is true of: a line about this very target, if there is one, before one that covers it more closely. A host
    that a rule narrowed a block to has none of its own: of it one for that bare name alone says nothing."""

    def ignored(one: Indicator) -> bool:
        return allowances is not None and allowances.ignores_indicator(one, now_s) is not None

    found = _match(index, target, now_s, skip)
    if found is not None and ignored(found.indicator):
        found = _match(index, target, now_s, ignored)
    if found is None or target.kind == "pair" or main_target(found) == target:
        return found

    def is_left_out(one: Indicator) -> bool:
        return ignored(one) or (skip is not None and skip(one))

    def of_another(one: Indicator) -> bool:
        about = main_target(Match("", one, one.registered_domain, one.suffix_rule))
        return about != target or is_left_out(one)

    def of_one_name(one: Indicator) -> bool:
        return one.scope == "exact" or is_left_out(one)

    own = _match(index, target, now_s, of_another)
    if own is None and target.kind == "host" and found.indicator.scope == "exact":
        own = _match(index, target, now_s, of_one_name)
    return own or found


def _match(index: AnyIndex, target: Target, now_s: int, skip: Skip | None) -> Match | None:
    if target.kind == "url":
        host, _, path = target.value.partition("/")
        return index.match_url(host.strip("[]"), "/" + path, now_s, skip)
    if target.kind == "pair":
        return index.match_address(parse_address(target.value.rpartition(">")[2]), now_s, skip)
    if target.kind in ("address", "network"):
        return index.match_address(parse_address(target.value.partition("/")[0]), now_s, skip)
    return index.match_name(target.value, now_s, skip)


def parts_of(target: Target) -> tuple[str, bytes]:
    """(name, address) of what a decision is about; a network's first address stands for it."""
    if target.kind in ("address", "network"):
        return "", parse_address(target.value.partition("/")[0])
    if target.kind == "pair":
        return "", parse_address(target.value.rpartition(">")[2])
    return target.value.partition("/")[0], b""
