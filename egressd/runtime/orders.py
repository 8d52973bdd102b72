"""What the core tells a packet process. Values only; they travel as Python pickled them, in that direction alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from egressd.detect.changing import Standing
from egressd.detect.history import PastContact
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.protected import Protected
from egressd.model import FlowKey, Target


class Start(NamedTuple):
    """The first order: everything that does not change while the process lives. `number` of `processes`, from 0;
    `processors` are those that packet processes have to themselves, none when there are too few; `offset_us` is the
    clock's; `fast_lane` when blocks may go to the kernel at once."""

    number: int
    processes: int
    fanout_group: int
    interfaces: tuple[str, ...]
    ring_bytes: int
    promiscuous: bool
    tunnels: bool
    realtime: bool
    processors: tuple[int, ...]
    offset_us: int
    conversations: int
    first_number: int
    stride: int
    provisional_s: int
    intel: Intel
    settings: PolicySettings
    enforced: bool
    fast_lane: bool
    sensors: bool = False  # others than our own tap tell of contacts too


class LogSource(NamedTuple):
    """A sensor whose log is followed; `estimate` when its clock may be wrong."""

    name: str
    path: str
    format: str
    estimate: bool


class LogStart(NamedTuple):
    """The first order of the process that reads logs; `state` is the file in which it keeps how far it has read."""

    sources: tuple[LogSource, ...]
    state: str
    offset_us: int
    intel: Intel


class Observed(NamedTuple):
    """What other sensors told of, packed (runtime/observed.py). Where it does not count, another packet process has it
    too: then it is only kept in mind, should this client's packets come here."""

    rows: tuple[list[Any], ...]
    counts: bool


class Swap(NamedTuple):
    """Lists, allowances, policy or mode have changed."""

    intel: Intel
    settings: PolicySettings
    enforced: bool
    fast_lane: bool


class Protect(NamedTuple):
    """What may never be blocked has changed."""

    protected: Protected


class Adopt(NamedTuple):
    """Decisions that stand."""

    standing: tuple[Standing, ...]


class End(NamedTuple):
    """Decisions that were lifted."""

    decision_ids: tuple[str, ...]


class Rest(NamedTuple):
    """Addresses and pairs that nobody tried for long: (decision, target)."""

    targets: tuple[tuple[str, Target], ...]


class Learn(NamedTuple):
    """Passive DNS of other processes, or of before a restart: (registered domain, address, when)."""

    tenants: tuple[tuple[str, bytes, int], ...]


class Recall(NamedTuple):
    """Contacts of the past with what is listed by now, found on disk."""

    rows: tuple[PastContact, ...]


class Dropped(NamedTuple):
    """Connections that the kernel's log says were dropped: (when, conversation). Those that the tap saw too are known
    already; of several packet processes each takes those of clients that it has seen."""

    flows: tuple[tuple[int, FlowKey], ...]


class Step(NamedTuple):
    """The wall clock was set."""

    offset_us: int


class Stop(NamedTuple):
    """Tell what is left to tell, and end."""


Order = Start | LogStart | Observed | Swap | Protect | Adopt | End | Rest | Learn | Recall | Dropped | Step | Stop
