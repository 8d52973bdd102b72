"""The modes that decisions stand under, of the whole and of segments: what they are, how they change, what follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from egressd.config.schema import Config
from egressd.detect.site import MONITOR, Site
from egressd.enforce.adapter import Rule
from egressd.model import Target
from egressd.runtime.enforcement import Enforcement
from egressd.runtime.in_force import InForce, Register
from egressd.runtime.knowledge import Loaded
from egressd.runtime.modes import (
    How,
    Left,
    changed_by_start,
    gone_on_with,
    how_of,
    is_apart,
    parse_how,
    render_how,
    render_left,
    reread,
    site_of,
    spoken,
    stand_in,
    unarmed,
)
from egressd.runtime.scribe import Scribe
from egressd.store import decisions, meta
from egressd.store.moments import WAITS

LEFT: Final = "modes"  # the key in the ledger of what a run leaves to the next
HOW: Final = "modes since"  # and of how it came to be

log = logging.getLogger("egressd")


class Arming:
    """`mode` is that of the whole, `modes` those of segments where it is another one, `changed` what this start made of
    those that the run before ended under ("": nothing); `how` each came to be, that of the whole under "". `on_set` is
    awaited when they were set. `word` is how often a person has said which mode it is."""

    def __init__(
        self,
        loaded: Callable[[], Loaded],
        register: Register,
        scribe: Scribe,
        enforcement: Enforcement,
        on_set: Callable[[], Awaitable[None]],
        now_us: Callable[[], int],
    ) -> None:
        self.mode = loaded().config.mode
        self.modes: dict[str, str] = dict(loaded().config.modes)
        self.changed = ""
        self.how: dict[str, How] = {}
        self.word = 0
        self._taken = loaded().config  # whose modes were taken last: the kernel may refuse those of what was read since
        self._now_us = now_us
        self._loaded = loaded
        self._register = register
        self._scribe = scribe
        self.enforcement = enforcement
        self._on_set = on_set
        self._setting = asyncio.Lock()
        self._site: tuple[Loaded, tuple[str, tuple[tuple[str, str], ...]], Site] | None = None

    @property
    def site(self) -> Site:
        """Segments and the modes that they are under."""
        loaded, modes = self._loaded(), (self.mode, tuple(self.modes.items()))
        if self._site is None or self._site[0] is not loaded or self._site[1] != modes:
            self._site = loaded, modes, site_of(loaded.config, self.mode, self.modes)
        return self._site[2]

    def is_enforcing(self) -> bool:
        """Whether decisions in force are in the kernel."""
        return self.site.strongest != MONITOR

    def armed_us(self, client: bytes) -> int:
        """Since when what a client contacts is blocked, or waits for a person; 0: it is under monitor, or it always
        was."""
        how = self.how.get(self.site.segment_of(client)) or self.how.get("") or How()
        return how.armed_us

    def lets_through(self, client: bytes, ts_us: int) -> bool:
        """Whether a try of a client at a time was under monitor, which stops nothing."""
        return self.site.mode_of(client) == MONITOR or ts_us < self.armed_us(client)

    def armed_first_us(self) -> int:
        """Since when anybody is kept from anything: the earliest of all segments, 0 as above."""
        armed = {name: mode for name, mode in self.by_name().items() if mode != MONITOR}
        return min((self.how.get(name, How()).armed_us for name in armed), default=0)

    def by_name(self) -> dict[str, str]:
        """The modes of segments, and that of all others under ""."""
        return {"": self.mode, **self.modes}

    def rules(self) -> list[Rule]:
        """What the kernel should hold."""
        return self._register.rules(self.site.strongest, self._is_apart)

    def begin(self, left: Left | None, *, clean: bool, how: str = "") -> str:
        """The run before left these modes, and `how` they came to be; `clean`: it ended as it should, and the
        configuration decides. What is to be told of it, "": nothing."""
        told = self._begin(left, clean=clean)
        if left is None:  # nothing was decided before
            self.how = how_of({}, {"": ""}, self.by_name(), How(self._now_us()))
        else:
            before = {"": left.mode, **left.modes}
            self.how = how_of(parse_how(how), before, self.by_name(), How(self._now_us()))
        return told

    def _begin(self, left: Left | None, *, clean: bool) -> str:
        loaded = self._loaded()
        found = None if clean or loaded.texts.demo else gone_on_with(left, loaded.config)
        if found is not None:
            self.mode, self.modes = found
            configured = spoken(loaded.config.mode, loaded.config.modes)
            return f"the mode is {spoken(*found)}, as a command had set it before a crash; configured is {configured}"
        self.changed = changed_by_start(left, spoken(self.mode, self.modes))
        return self.changed

    def decided(self) -> None:
        """A person says which mode it is: one of the file that the kernel refused, or that is being read, is not taken
        any more."""
        self.word += 1
        self._taken = self._loaded().config

    async def follow(self, config: Config, word: int) -> list[str]:
        """Take the modes that have become others in the file, unless a person has said something since `word`. What
        came of it, in words. Raises AdapterError when the kernel refuses one: it stays then, and is tried again with
        the next reading."""
        before_mode = self._taken.mode
        modes, told = reread(self.modes, self._taken, config)
        if modes != self.modes and word == self.word:
            await self.set(self.mode, modes)
        if config.mode not in (before_mode, self.mode) and word == self.word:
            await self.set(config.mode)
            told = [f"the mode is {self.mode}", *told]
        self._taken = config
        return told

    async def set(self, mode: str, modes: Mapping[str, str] | None = None, by: str = "", reason: str = "") -> None:
        """Another mode, and others of segments if given; `by` whom, "" is the configuration, and why. Raises
        AdapterError when the kernel cannot be used; the modes stay then."""
        async with self._setting:  # a person, and a reload
            await self._set(mode, modes, How(self._now_us(), 0, by, reason))

    async def _set(self, mode: str, modes: Mapping[str, str] | None, how: How) -> None:
        before, by_name = (self.mode, self.modes), self.by_name()
        self.mode = mode
        self.modes = dict(modes) if modes is not None else self.modes
        self.keep_apart()
        try:
            await self.enforcement.change_mode(self.site.strongest)
        except BaseException:
            self.mode, self.modes = before
            self.keep_apart()
            await self.enforcement.change_mode(self.site.strongest)
            raise
        self.changed = ""  # a person has looked at it
        self.how = how_of(self.how, by_name, self.by_name(), how)
        if (self.mode, self.modes) != before:
            now, was = spoken(self.mode, self.modes), spoken(*before)
            log.warning("the mode is %s now, it was %s: egressd audit says who did it and why", now, was)
        self.stand_in()
        await self._on_set()
        self.enforcement.force()

    def stand_in(self) -> None:
        """Decisions that were made in another mode stand in this one from now on."""
        self._scribe.put(meta.put, LEFT, render_left(self.mode, self.modes, self._loaded().config))
        self._scribe.put(meta.put, HOW, render_how(self.how))
        now_us = self._now_us()
        changed = stand_in(self._register, self.site)
        for id_ in changed.proposed:
            self._register.by_id[id_].waits_since_us = now_us
        if changed.proposed:
            self._scribe.put(WAITS.keep, dict.fromkeys(changed.proposed, now_us))
        for mode, ids in changed.by_mode.items():
            self._scribe.put(decisions.change_mode, ids, mode, changed.proposed, changed.active)

    def keep_apart(self) -> None:
        """What enforcing segments block holds for no other."""
        self.enforcement.is_apart = self._is_apart
        self.enforcement.unarmed = unarmed(self._loaded().config, self.site)

    def _is_apart(self, decision: InForce, target: Target) -> bool:
        return is_apart(self.site, decision, target)
