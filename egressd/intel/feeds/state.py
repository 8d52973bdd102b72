"""What is known of one feed, for screens, metrics and alarms. No field holds a credential or a URL with one."""

from __future__ import annotations

from egressd.config.feed_options import FeedOptions
from egressd.intel.feeds.fetch import Validators, redact
from egressd.intel.feeds.judging import Judged
from egressd.intel.mapped import MappedIndex, is_gone
from egressd.intel.poison import Counts, Quarantined
from egressd.plural import count

WAITING = "waiting"  # nothing was had yet, and nothing was tried
OK = "ok"
FAILING = "failing"  # not had: the last good one is in force, if there is one
REFUSED = "refused"  # had, and not taken
FAULT = "fault"
DISK = "disk"
MAX_QUARANTINED = 1_000  # lines that are shown


class FeedState:
    """One feed. Times are epoch microseconds, 0 = never."""

    def __init__(self, name: str, options: FeedOptions) -> None:
        self.name = name
        self.options = options
        self.url = redact(options.url)
        self.state = WAITING
        self.kind = ""  # why not, in a word
        self.problem = ""  # and in full
        self.trouble = ""  # the version is in force but cannot be kept on disk
        self.short = ""  # what the version in force leaves out of what the server has
        self.failures = 0  # in a row
        self.failures_total = 0
        self.last_try_us = 0
        self.last_ok_us = 0  # fetched, or confirmed by the server
        self.changed_us = 0  # when the version in force was fetched
        self.index: MappedIndex | None = None
        self.context = ""  # what it was judged by
        self.added = 0  # against the version before
        self.removed = 0
        self.poisoned = 0  # of the version in force or, when one was refused, of that
        self.bad_lines = 0
        self.ignored = 0
        self.quarantined: tuple[Quarantined, ...] = ()
        self._held: tuple[int, int, int, tuple[Quarantined, ...]] = (0, 0, 0, ())  # those four of the one in force
        self.counts: Counts | None = None
        self.validators = Validators()
        self.digest = b""
        self.retry_after_s = 0

    @property
    def is_alarming(self) -> bool:
        """Whether somebody should look: it is not had, not taken, not kept, not all of it, or has poison in it."""
        return self.state in (FAILING, REFUSED) or self.poisoned > 0 or bool(self.trouble or self.short)

    @property
    def keeps_out(self) -> bool:
        """Whether lines of the version in force are kept out, perhaps for an allowance."""
        return any(self._held[:3]) or self.poisoned > 0 or self.ignored > 0

    def told(self) -> str:
        """What is wrong, in one line; "" when nothing is."""
        parts = []
        if self.state in (FAILING, REFUSED):
            held = count(self.size, "indicator of before stays", "indicators of before stay")
            parts.append(f"{self.problem}; {held} in force" if self.size else self.problem)
        if self.poisoned:
            lines = count(self.poisoned, "line is", "lines are")
            bad = f" and {self.bad_lines:,} cannot be read" if self.bad_lines else ""
            parts.append(f"{lines} quarantined{bad} (egressd feeds quarantine {self.name})")
        parts += [one for one in (self.short, self.trouble) if one]
        return "; ".join(parts)

    @property
    def size(self) -> int:
        """How many indicators are in force."""
        return self.index.size if self.index is not None else 0

    @property
    def place(self) -> tuple[str, str] | None:
        """Where the index in force lies, and its digest."""
        if self.index is None or self.index.reopen is None:
            return None
        return str(self.index.reopen[1][0]), self.index.head.digest.hex()

    @property
    def is_on_disk(self) -> bool:
        """Whether the file of the index in force is there, for processes that are to be started."""
        return self.index is None or not is_gone(self.index)

    def install(self, verdict: Judged, context: str) -> None:
        """A version comes into force."""
        self.index = verdict.built
        self.context = context
        self.show(verdict)
        self._held = (self.poisoned, self.bad_lines, self.ignored, self.quarantined)

    def inherit(self, before: FeedState) -> None:
        """What is in force of the feed under other options stays, until a version can be had or read."""
        self.index = before.index
        self._held = before._held
        self.show_held()
        self.changed_us = before.changed_us  # and not when it was had last, so that it is asked for soon
        if self.options.url == before.options.url:  # of another address sizes say nothing
            self.counts = before.counts

    def show(self, verdict: Judged) -> None:
        """What was kept out of a version, or is why it was refused."""
        self.poisoned, self.bad_lines, self.ignored = verdict.poisoned, verdict.bad_lines, verdict.ignored
        self.quarantined = verdict.quarantined[:MAX_QUARANTINED]

    def show_held(self) -> None:
        """What was kept out of the version in force again: the server has no other any more."""
        self.poisoned, self.bad_lines, self.ignored, self.quarantined = self._held

    def note_failure(self, state: str, kind: str, problem: str) -> None:
        """It was not had, or not taken."""
        self.state, self.kind, self.problem = state, kind, problem
        self.failures += 1
        self.failures_total += 1

    def note_success(self, now_us: int) -> None:
        """It was had and taken, or is still the one."""
        self.state, self.kind, self.problem = OK, "", ""
        self.failures = 0
        self.last_ok_us = now_us
