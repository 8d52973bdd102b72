"""Modes of segments: how decisions stand in them, and for which sources a block for everybody does not hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Final, NamedTuple

from egressd.config.kinds import MODES
from egressd.config.schema import Config
from egressd.config.settings import policy_settings
from egressd.detect.rules import ASK, PAIR
from egressd.detect.site import APPROVE, ENFORCE, MONITOR, Site
from egressd.intel.networks import parse_address
from egressd.model import Target
from egressd.runtime.in_force import POLICY, InForce, Register
from egressd.store.decisions import ACTIVE, PROPOSED

Network = tuple[bytes, int]
EVERYTHING: Final = ("0.0.0.0/0", "::/0")


class Restood(NamedTuple):
    """Decisions that stand in another mode now: their ids by mode; those that wait for a person from now on, and those
    that do not any more."""

    by_mode: dict[str, list[str]]
    proposed: list[str]
    active: list[str]


def site_of(config: Config, mode: str, modes: Mapping[str, str]) -> Site:
    """The site under a mode, and under others in some segments."""
    return policy_settings(config)._replace(mode=mode, modes=tuple(modes.items())).site()


def spoken(mode: str, modes: Mapping[str, str]) -> str:
    """A mode, and those of segments that have others, in words."""
    return ", ".join([mode, *(f"{name} under {other}" for name, other in sorted(modes.items()) if other != mode)])


class Left(NamedTuple):
    """What a run leaves to the next: its mode, those of segments, and what the configuration said, as `spoken`."""

    mode: str
    modes: dict[str, str]
    configured: str


def render_left(mode: str, modes: Mapping[str, str], config: Config) -> str:
    """As it is kept in the ledger."""
    return json.dumps(Left(mode, dict(modes), spoken(config.mode, config.modes))._asdict())


def parse_left(text: str) -> Left | None:
    """None when there is nothing, or it is damaged."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.keys() != set(Left._fields) or not isinstance(said["modes"], dict):
        return None
    left = Left(**said)
    return left if all(one in MODES for one in (left.mode, *left.modes.values())) else None


def gone_on_with(left: Left | None, config: Config) -> tuple[str, dict[str, str]] | None:
    """The modes that commands had set when a run crashed, which hold until somebody stops it: else a crash at night
    disarms the gateway, or arms it after a `panic`. None where the configuration has been edited since, which decides
    then, or says the same."""
    if left is None or left.configured != spoken(config.mode, config.modes):
        return None
    modes = {name: mode for name, mode in left.modes.items() if name in config.segments}
    return (left.mode, modes) if spoken(left.mode, modes) != left.configured else None


class How(NamedTuple):
    """How a mode came to be: since when it holds (0: not known); since when it has not been monitor (0: it is, or it
    was armed all along as far as is known); who set it, "" is the configuration, and why."""

    since_us: int = 0
    armed_us: int = 0
    by: str = ""
    reason: str = ""

    def to(self, before: str, mode: str, by: str, reason: str, now_us: int) -> How:
        """The mode is another one now."""
        if mode == MONITOR:
            return How(now_us, 0, by, reason)
        return How(now_us, now_us if before == MONITOR else self.armed_us, by, reason)


def how_of(how: Mapping[str, How], before: Mapping[str, str], after: Mapping[str, str], new: How) -> dict[str, How]:
    """How modes came to be, by segment and of all others under "", that were `before` and are `after` as `new` says."""
    found = {}
    for name, mode in after.items():
        was, known = before.get(name, before[""]), how.get(name, how.get("", How()))
        found[name] = known if was == mode else known.to(was, mode, new.by, new.reason, new.since_us)
    return found


def render_how(how: Mapping[str, How]) -> str:
    """As it is kept in the ledger."""
    return json.dumps(how)


def parse_how(text: str) -> dict[str, How]:
    """Nothing where there is nothing, or it is damaged."""
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    found = {}
    for name, row in said.items():
        if isinstance(row, list) and [type(one) for one in row] == [int, int, str, str] and min(row[:2]) >= 0:
            found[name] = How(*row)
    return found


def changed_by_start(left: Left | None, now: str) -> str:
    """What to tell when a run is under other modes than the one before ended under, `now` as `spoken`; "" when not."""
    before = spoken(left.mode, left.modes) if left is not None else now
    if before == now:
        return ""
    return (
        f"the mode is {now} since this start, and was {before} before it: a start takes mode: of the configuration,"
        " and what egressd mode set ends"
    )


def reread(modes: Mapping[str, str], before: Config, after: Config) -> tuple[dict[str, str], list[str]]:
    """The modes of segments when the configuration has been read anew: those of the file where it has others than
    before, else what commands made of them, but for segments that are gone; and what to tell of those given up."""
    edited = dict(after.modes) != dict(before.modes)
    kept = dict(after.modes) if edited else {name: mode for name, mode in modes.items() if name in after.segments}
    told: list[str] = []
    for name, mode in modes.items():
        if name not in after.segments:
            told.append(f"segment {name} is not in the configuration any more: its mode, {mode}, is given up")
        elif kept.get(name) != mode and before.modes.get(name) != mode:
            now = kept.get(name, "that of all others")
            told.append(f"the mode of segment {name} is {now}, as modes: says; it was {mode} by command")
    return kept, told


def mode_of(site: Site, decision: InForce) -> str:
    """The mode that a decision stands in: that of its client's segment, people's the strongest."""
    return site.mode_of(decision.client) if decision.author == POLICY else site.strongest


def stand_in(register: Register, site: Site) -> Restood:
    """Decisions that were made in another mode stand in that of their client's segment from now on, people's in the
    strongest: in approve, what policy decided when nothing was blocked waits for a person; in enforce nothing waits but
    what a rule leaves to a person."""
    restood = Restood({}, [], [])
    for decision in register.by_id.values():
        mode = mode_of(site, decision)
        if decision.mode == mode:
            continue
        if mode == APPROVE and decision.mode == MONITOR and decision.author == POLICY and decision.state == ACTIVE:
            decision.state = PROPOSED
            restood.proposed.append(decision.id)
        elif mode == ENFORCE and decision.state == PROPOSED and decision.action != ASK:
            decision.state = ACTIVE
            restood.active.append(decision.id)
        decision.mode = mode
        restood.by_mode.setdefault(mode, []).append(decision.id)
    return restood


def is_apart(site: Site, decision: InForce, target: Target) -> bool:
    """Whether the kernel must not hold a target of a decision: it was decided on account of a segment under monitor, or
    it is about a client whose segment leaves that to a person who has not said so."""
    if not site.modes:
        return False
    if decision.mode == MONITOR:
        return True
    if target.kind != PAIR or decision.author != POLICY:
        return False
    mode = site.mode_of(parse_address(target.value.partition(">")[0]))
    if mode == APPROVE:
        return not (decision.mode == APPROVE or decision.action == ASK)  # active, so a person said yes
    return mode == MONITOR


def unarmed(config: Config, site: Site) -> tuple[Network, ...]:
    """The sources that a block for everybody does not hold for: disjoint networks; none where all have one mode."""
    if not any(mode != site.mode for mode in site.modes.values()):
        return ()
    regions = {ip_network(text): site.mode == site.strongest for text in EVERYTHING}
    named = [(ip_network(text), name) for name, texts in config.segments.items() for text in texts]
    for network, name in sorted(named, key=lambda one: one[0].prefixlen):
        armed = site.modes.get(name, site.mode) == site.strongest
        around = next((one for one in regions if one.version == network.version and network.subnet_of(one)), None)  # type: ignore[arg-type]
        if around is None or regions[around] == armed:
            continue
        was = regions.pop(around)
        if around != network:
            regions.update(dict.fromkeys(around.address_exclude(network), was))  # type: ignore[arg-type]
        regions[network] = armed
    return tuple((one.network_address.packed, one.prefixlen) for one, armed in regions.items() if not armed)
