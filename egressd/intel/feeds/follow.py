"""Follows the feeds: asks in time, judges what comes, keeps what is good, and goes on with the last good otherwise.

One task a feed, all owned by `run`. Fetching runs side by side, two at a time; judging one after the other, for a large
list takes memory, and what people allow must not change under it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from egressd.clock import Clock
from egressd.config.feed_options import FeedOptions
from egressd.intel.feeds.collect import PAGES, collect, collected_as
from egressd.intel.feeds.fetch import (
    CREDENTIAL,
    FeedError,
    Fetched,
    Source,
    Times,
    Validators,
    fetch_feed,
    open_session,
    trust,
)
from egressd.intel.feeds.judging import Job, Judge, JudgeError, Rules
from egressd.intel.feeds.kept import (
    Kept,
    KeptError,
    adopt_candidate,
    confirm_kept,
    drop_candidate,
    kept_path,
    load_kept,
    save_candidate,
    url_digest,
)
from egressd.intel.feeds.schedule import first_delay_s, next_delay_s
from egressd.intel.feeds.state import DISK, FAILING, FAULT, REFUSED, FeedState
from egressd.units import SECOND_US

if TYPE_CHECKING:
    from aiohttp import ClientSession

AT_ONCE: Final = 2
SHORT: Final = 20_000  # indicators; a feed of so many is judged in a second
MAX_CREDENTIAL_BYTES: Final = 4_096
log = logging.getLogger("egressd.feeds")

FOLDER_VARIABLE: Final = "${CREDENTIALS_DIRECTORY}"
_OTHERS_READ: Final = 0o004


class Feeds:
    """All feeds of a configuration. `rules` tells what to judge by, `judge` judges; `on_version` is awaited when what
    is in force has changed, `on_told` is called after every attempt, with the feed and what `told()` was before."""

    def __init__(
        self,
        directory: Path,
        base_dir: Path,
        clock: Clock,
        rules: Callable[[], Rules],
        judge: Judge,
        on_version: Callable[[FeedState], Awaitable[None]],
        on_told: Callable[[FeedState, str], None],
        *,
        times: Times = Times(),  # noqa: B008  (immutable)
    ) -> None:
        self.states: dict[str, FeedState] = {}
        self._directory = directory
        self._base_dir = base_dir
        self._clock = clock
        self._rules = rules
        self._judge = judge
        self._on_version = on_version
        self._on_told = on_told
        self._times = times
        self._asked: dict[str, asyncio.Event] = {}
        self._forced: set[str] = set()
        self._changed = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._judging = asyncio.Lock()
        self._session: ClientSession | None = None

    # -- which there are

    async def configure(self, feeds: Mapping[str, FeedOptions]) -> None:
        """Follow these from now on. What was kept of a new one is in force when this returns. A short one is judged
        anew, for what is allowed may have changed; a long one only by other texts about suffixes, shared sites and
        protected addresses: what is allowed is looked at again when something matches it."""
        wanted = {name: options for name, options in feeds.items() if options.enabled}
        async with self._judging:
            for name in set(self.states) - set(wanted):
                del self.states[name]
            for name, options in wanted.items():
                standing = self.states.get(name)
                if standing is None or standing.options != options:
                    self.states[name] = state = FeedState(name, options)
                    if standing is not None:
                        state.failures_total = standing.failures_total
                state = self.states[name]
                if state.index is None:
                    await self._load(state, anew=False)
                    if state.index is None and standing is not None and standing.options.format == options.format:
                        state.inherit(standing)  # the disk fails: not for another interval is all given free
                elif state.size <= SHORT or state.context != self._rules().context:
                    await self._load(state, anew=True)
                elif not state.is_on_disk:
                    await self._load(state, anew=False)
        self._changed.set()

    async def judge_anew(self) -> bool:
        """Judge again what keeps lines out, for an allowance is over; whether there was any. Versions stay as they
        are."""
        async with self._judging:
            found = [state for state in self.states.values() if state.index is not None and state.keeps_out]
            for state in found:
                await self._load(state, anew=True)
        return bool(found)

    async def _load(self, state: FeedState, *, anew: bool) -> None:
        """The kept version into force, by the rules of now."""
        rules = self._rules()
        try:
            kept = await asyncio.to_thread(load_kept, self._directory, state.name)
            if kept is None or kept.format != state.options.format:
                return
            path = kept_path(self._directory, state.name)
            judged = await self._judge(Job(state.name, state.options, path, None, False, anew, None), rules)
        except (KeptError, JudgeError) as error:
            state.trouble = str(error)
            return
        state.install(judged, rules.context)
        state.changed_us = kept.fetched_us
        state.last_ok_us = max(state.last_ok_us, kept.confirmed_us)
        if kept.url_digest == url_digest(state.options.url):  # of another address validators and sizes say nothing
            state.validators, state.counts = kept.validators, judged.counts
            state.digest = sha256(kept.body).digest()

    # -- in time

    async def run(self) -> None:
        """Until cancelled."""
        running: dict[str, tuple[FeedState, asyncio.Task[None]]] = {}
        async with AsyncExitStack() as stack:
            self._session = await stack.enter_async_context(open_session())
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    for name, (state, task) in list(running.items()):
                        if self.states.get(name) is not state:
                            task.cancel()
                            del running[name]
                    for name, state in self.states.items():
                        if name not in running:
                            running[name] = (state, group.create_task(self._follow(state), name=f"feed {name}"))
                    await self._changed.wait()

    async def _follow(self, state: FeedState) -> None:
        name, every_s = state.name, state.options.every_s
        asked = self._asked.setdefault(name, asyncio.Event())
        age_s = (self._clock.now_us() - state.last_ok_us) / SECOND_US if state.last_ok_us else None
        delay_s = first_delay_s(name, every_s, age_s)
        while True:
            try:
                async with asyncio.timeout(delay_s):
                    await asked.wait()
            except TimeoutError:
                pass
            asked.clear()
            forced = name in self._forced
            self._forced.discard(name)
            try:
                await self.attempt(state, force=forced)
            except Exception as error:  # noqa: BLE001  the one guard here: no feed may end the daemon, whatever it holds
                self._fault(state, error)
            delay_s = next_delay_s(name, every_s, state.failures, state.retry_after_s)

    def _fault(self, state: FeedState, error: Exception) -> None:
        """A mistake of ours. Its message is not logged: it may quote an address with a credential in it."""
        before = state.told()
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
        log.error("feed %s met a fault of ours (%s at %s); please report it", state.name, type(error).__name__, where)
        state.note_failure(FAILING, FAULT, "a fault of egressd's own (see its log)")
        self._on_told(state, before)

    def ask(self, name: str, *, force: bool = False) -> None:
        """Ask for this one now. `force` takes a version whatever its size; poison is kept out all the same."""
        if force:
            self._forced.add(name)
        self._asked.setdefault(name, asyncio.Event()).set()

    # -- one attempt

    async def attempt(self, state: FeedState, *, force: bool = False) -> None:
        """Ask once, and do what follows from it. Nothing that server or disk do is an error here; it is in `state`."""
        before = state.told()
        state.last_try_us = self._clock.now_us()
        state.retry_after_s = 0
        changed = False
        async with self._slots:
            try:
                fetched = await self._fetch(state, force=force)
                if self.states.get(state.name) is not state:
                    return  # was taken out, or set otherwise, meanwhile
                if fetched is None or sha256(fetched.body).digest() == state.digest:
                    if fetched is not None:
                        state.short = fetched.short
                    await self._confirm(state)
                else:
                    changed = await self._take(state, fetched, force=force)
            except FeedError as error:
                state.note_failure(FAILING, error.kind, error.text)
                state.retry_after_s = error.retry_after_s
        if changed:
            await self._on_version(state)
        self._on_told(state, before)

    async def _fetch(self, state: FeedState, *, force: bool) -> Fetched | None:
        source = await asyncio.to_thread(self._source, state.options)
        session = self._session
        if session is None:
            raise RuntimeError("feeds are asked before run()")
        known = Validators() if force else state.validators  # one that was refused is asked for whole again
        kind = collected_as(state.options)
        if not kind:
            return await fetch_feed(session, source, known)
        # What a person wants whatever its size: of a collection all, of events those that are still to come as well.
        before = _nothing if force and kind == PAGES else partial(self._text_before, state)
        return await collect(session, source, kind, known, before, self._clock.now_us() // SECOND_US)

    def _text_before(self, state: FeedState) -> bytes:
        """The text of the version in force, which what is new is added to; nothing when it is not usable for that."""
        try:
            kept = load_kept(self._directory, state.name)
        except KeptError:
            return b""
        is_its = kept is not None and (kept.url_digest, kept.format) == (
            url_digest(state.options.url), state.options.format,
        )  # fmt: skip
        return kept.body if kept is not None and is_its else b""

    def _source(self, options: FeedOptions) -> Source:
        """Raises FeedError."""
        secret = load_credential(options.credential, self._base_dir) if options.credential else ""
        tls = trust(str(self._base_dir / options.ca_file)) if options.ca_file else None
        return Source(options.url, options.header, secret, options.max_mib << 20, self._times, tls)

    async def _confirm(self, state: FeedState) -> None:
        now_us = self._clock.now_us()
        state.note_success(now_us)
        state.show_held()
        try:
            await asyncio.to_thread(confirm_kept, self._directory, state.name, now_us)
            state.trouble = ""
        except KeptError as error:
            state.trouble = str(error)

    async def _take(self, state: FeedState, fetched: Fetched, *, force: bool) -> bool:
        """Judge a version, and keep it if it is good; whether it is in force now."""
        now_us = self._clock.now_us()
        address = url_digest(state.options.url)
        kept = Kept(fetched.body, fetched.validators, now_us, now_us, address, state.options.format)
        async with self._judging:
            try:
                path = await asyncio.to_thread(save_candidate, self._directory, state.name, kept)
                rules = self._rules()
                before = None if force else state.counts
                job = Job(state.name, state.options, path, before, True, True, state.place)
                judged = await self._judge(job, rules)
                if self.states.get(state.name) is not state:
                    return False
                if judged.refused:
                    state.note_failure(REFUSED, judged.refused, f"its new version is refused: {judged.reason}")
                    state.show(judged)
                    return False
                await asyncio.to_thread(adopt_candidate, self._directory, state.name)
            except (KeptError, JudgeError) as error:
                state.note_failure(FAILING, DISK, str(error))
                return False
            finally:
                await asyncio.to_thread(drop_candidate, self._directory, state.name)
            state.added, state.removed = judged.added, judged.removed
            state.install(judged, rules.context)
            state.note_success(now_us)
            state.trouble, state.short = "", fetched.short
            state.changed_us = now_us
            state.counts, state.validators = judged.counts, fetched.validators
            state.digest = sha256(fetched.body).digest()
        return True


def _nothing() -> bytes:
    return b""


def load_credential(written: str, base_dir: Path) -> str:
    """The secret in a file: one line of printable ASCII. Raises FeedError, which says where it is looked for, never
    what is in it."""
    text = written
    if FOLDER_VARIABLE in written:
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
        if not folder:
            raise FeedError(CREDENTIAL, "credential: systemd handed none over; add LoadCredential= to the service")
        text = written.replace(FOLDER_VARIABLE, folder)
    try:
        with (base_dir / text).open("rb") as stream:
            if os.fstat(stream.fileno()).st_mode & _OTHERS_READ:
                raise FeedError(CREDENTIAL, "credential: everybody may read that file; chmod o= it")
            raw = stream.read(MAX_CREDENTIAL_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no path"
        raise FeedError(CREDENTIAL, f"credential: the file cannot be read: {why}") from None
    secret = raw.strip()
    if not secret or len(raw) > MAX_CREDENTIAL_BYTES or not secret.isascii() or not secret.decode().isprintable():
        raise FeedError(CREDENTIAL, "credential: the file has to hold one line of printable ASCII and nothing else")
    return secret.decode("ascii")
