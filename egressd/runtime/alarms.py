"""What `egressd status` says that somebody should know, of what the core knows itself."""

from __future__ import annotations

from typing import Final

from egressd.config.texts import escape_path
from egressd.enforce.adapter import SEGMENT
from egressd.notify.eve import spoken_time
from egressd.plural import count
from egressd.runtime.core import Core
from egressd.runtime.in_force import ROLLBACK
from egressd.store.decisions import ACTIVE, PROPOSED
from egressd.units import DAY_US

SHOWN: Final = 2  # decisions of a kind, each with a line


def warnings(core: Core) -> list[str]:
    """What somebody should know, most urgent first."""
    is_news = core.clock.now_us() - core.started_us < DAY_US
    found = [core.arming.changed] if core.arming.changed and is_news else []
    if not core.arming.is_enforcing():
        found.append("mode is monitor: nothing is blocked. To arm: egressd mode enforce --reason TEXT")
    found += [f"segment {name} is under {mode}" for name, mode in core.arming.modes.items() if mode != core.arming.mode]
    found += _cuts(core)
    waiting = [one for one in core.register.by_id.values() if one.state == PROPOSED]
    back = [one for one in waiting if one.rule == ROLLBACK]
    found += [
        f"TAKEN BACK: {one.target.value} is not blocked, too many hosts ran into it: egressd decisions {one.id}"
        for one in back[:SHOWN]
    ]
    if len(waiting) > len(back[:SHOWN]):
        some = count(len(waiting), "decision waits", "decisions wait")
        found.append(f"{some} for a person: egressd decisions --state proposed")
    if core.arming.is_enforcing():
        free = [one for one in core.register.by_id.values() if one.is_name_only()]
        for one in free[:SHOWN]:
            value = one.target.value
            found.append(f"{one.id} keeps nobody from {value}: protected or shared; egressd explain --live {value}")
        if len(free) > SHOWN:
            more = count(len(free) - SHOWN, "more block keeps", "more blocks keep")
            found.append(f"{more} nobody from anything (egressd watch: name only)")
    if core.scribe.trouble:
        waits = count(core.scribe.waiting, "change waits", "changes wait")
        found.append(f"the ledger cannot be written ({waits}): {core.scribe.trouble}")
    found += [f"{name}: {text}" for name, text in core.enforcement.problems.items()]
    if not core.knowledge.intel.index.size:
        found.append("NOTHING IS LISTED: nothing that a list should name is found or blocked")
    if core.loaded.unkept:
        found.append(f"no last good copy of the lists is kept, give it to the daemon's user: {core.loaded.unkept}")
    if core.loaded.texts.demo:
        found.append("no list is configured: only the built-in demonstration list of reserved names is watched for")
    if not core.config.resolvers:
        found.append("resolvers: is not set; this machine's own and those it asks are taken for yours")
    events = core.tellers.events
    if events is not None and events.stats.trouble:
        found.append(f"the event log cannot be written: {events.stats.trouble}")
    if core.volume is not None:
        found += core.volume.warnings()
    found += [
        f"the lease file {escape_path(name)} cannot be read: {why}" for name, why in core.identity.problems.items()
    ]
    found += core.lapsing.warnings(core.clock.now_us())
    faults = core.sensing.total("faults")
    if faults:
        found.append(f"{count(faults, 'packet')} met a fault of ours (see the log); please report them")
    return found


def _cuts(core: Core) -> list[str]:
    """Segments that somebody cut off: whoever comes on duty has to know, and how it ends."""
    names = {text: name for name, texts in core.config.segments.items() for text in texts}
    found = []
    for one in core.register.by_id.values():
        if one.target.kind == SEGMENT and one.state == ACTIVE and core.arming.is_enforcing():
            ends_us = one.held[one.target].expires_us
            until = f" until {spoken_time(ends_us)}" if ends_us else ""
            name = names.get(one.target.value, one.target.value)
            found.append(f"SEGMENT {name} is CUT OFF{until}, by {one.author}: egressd undo {one.id}")
    return found[:SHOWN]
