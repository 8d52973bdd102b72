"""Our sets in the kernel, by raw netlink: read them, look at single elements, change them in bounded transactions.

A transaction is all or nothing, so one element that the kernel refuses would take a thousand good ones with it. A
refused transaction is halved until the bad element stands alone; everything else goes through.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from egressd.enforce.adapter import AdapterError, Existing, Rule
from egressd.enforce.elements import (
    FAMILY_INET,
    SETS,
    TABLE,
    Element,
    ElementReader,
    Place,
    existing_of,
    parse_elements,
    render_element,
    render_key,
    render_list,
)
from egressd.enforce.netlink import (
    CREATE,
    NFTABLES,
    Message,
    NetfilterSocket,
    NetlinkError,
    Overrun,
    Step,
    generic,
    parse_attributes,
    text,
)
from egressd.errors import Malformed

NEWSETELEM: Final = NFTABLES | 12
GETSETELEM: Final = NFTABLES | 13
DELSETELEM: Final = NFTABLES | 14
GETGEN: Final = NFTABLES | 16
GETTABLE: Final = NFTABLES | 1
DELTABLE: Final = NFTABLES | 2
_TABLE_OWNER: Final = 7  # NFTA_TABLE_OWNER (linux/netfilter/nf_tables.h)

CHUNK: Final = 1_000  # elements a transaction: a single add beside it waits 5 ms then, measured; with all, 300
_LIST_BYTES: Final = 60_000  # an attribute's length has 16 bits
_TRIES: Final = 4
_AGAIN: Final = (errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOMEM, errno.ENOBUFS)


class Change(NamedTuple):
    """What happens to one element: `removes` it (it must be there unless `adds` is set too), puts `element` in its
    place, or both in one step. `ensure` adds before it removes, so that it does not matter whether it was there."""

    place: Place
    element: bytes  # for NEWSETELEM; empty = only remove
    removes: bool = False
    ensure: bool = False


class Placed(NamedTuple):
    """A rule and where it stands."""

    rule: Rule
    place: Place


class KernelSets:
    """The sets of our table behind one netlink socket."""

    def __init__(self, link: NetfilterSocket) -> None:
        self._link = link

    def generation(self) -> int:
        """The number of the last transaction that anybody made in this network namespace (NFT_MSG_GETGEN). Raises
        AdapterError when the kernel does not tell."""
        answers = self._link.request(GETGEN, 0, generic(0))
        for answer in answers:
            if len(answer.body) >= 12:
                return int.from_bytes(answer.body[8:12], "big")  # NFTA_GEN_ID comes first
        raise AdapterError("the kernel did not tell the generation of its rules")

    def has_table(self) -> bool:
        """Whether our table is there."""
        try:
            self._link.request(GETTABLE, 0, generic(FAMILY_INET) + text(1, TABLE))
        except NetlinkError as error:
            if error.number == errno.ENOENT:
                return False
            raise
        return True

    def delete_table(self) -> None:
        """Take our table away with all that it holds; nothing when it is not there. Raises AdapterError."""
        try:
            self._link.transact([Step(DELTABLE, 0, generic(FAMILY_INET) + text(1, TABLE))])
        except NetlinkError as error:
            if error.number != errno.ENOENT:
                raise

    def foreign_owner(self) -> int:
        """The netlink port of the program that owns our table (nft's `flags owner`), so that nobody else may change it;
        0 when nobody does."""
        try:
            answers = self._link.request(GETTABLE, 0, generic(FAMILY_INET) + text(1, TABLE))
        except NetlinkError as error:
            if error.number == errno.ENOENT:
                return 0
            raise
        port = b"".join(parse_attributes(answer.body, 4).get(_TABLE_OWNER, b"") for answer in answers[:1])
        return int.from_bytes(port, "big")

    def read(self, set_name: bytes) -> list[Existing]:
        """Everything in one set."""
        return existing_of(set_name, self.elements(set_name))

    def read_all(self) -> list[Existing]:
        """Everything in the sets that hold blocks."""
        return [held for sets in SETS.values() for name in sets[:2] for held in self.read(name)]

    def read_marked(self) -> list[Existing]:
        """What bears our mark in whichever of the sets are there."""
        found: list[Existing] = []
        for sets in SETS.values():
            for name in sets[:2]:
                try:
                    found += [held for held in self.read(name) if held.decision_id]
                except (NetlinkError, Malformed):
                    continue  # no such set, or one of another make
        return found

    def elements(self, set_name: bytes) -> list[Element]:
        """The raw elements of one set."""
        reader = ElementReader()
        return [element for body in self.dump(GETSETELEM, render_list(set_name)) for element in reader.read(body)]

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """A dump's bodies; taken anew when messages were lost. Raises Overrun when they are lost again and again."""
        for _ in range(_TRIES):
            try:
                return [answer.body for answer in self._link.dump(kind, body)]
            except Overrun:
                self._link.drain()
        raise Overrun("a dump overran its buffer again and again")

    def get(self, places: Sequence[Place]) -> list[Element | None]:
        """Single elements by key, None for what is not there. Costs 10 us each, however large the set.
        Raises Overrun as `dump` does."""
        bodies = [render_list(place.set_name, render_key(place)) for place in places]
        for _ in range(_TRIES):
            try:
                return [self._first(answer) for answer in self._link.ask_many(GETSETELEM, 0, bodies)]
            except Overrun:
                self._link.drain()
        raise Overrun("answers overran their buffer again and again")

    def _first(self, answer: list[Message] | int) -> Element | None:
        if isinstance(answer, int):
            if answer == errno.ENOENT:
                return None
            raise NetlinkError(answer, "look at a set element")
        for reply in answer:
            for element in parse_elements(reply.body):
                if not element.is_end:
                    return element
        return None

    def commit(self, changes: Sequence[Change]) -> list[tuple[Change, int]]:
        """Make changes, a bounded number at a time; returns those that the kernel refused with their errno. Removing
        what is gone already is no failure. Raises NetlinkError when the table itself is gone or we may not."""
        refused: list[tuple[Change, int]] = []
        for start in range(0, len(changes), CHUNK):
            self._commit(changes[start : start + CHUNK], refused)
        return refused

    def _commit(self, changes: Sequence[Change], refused: list[tuple[Change, int]]) -> None:
        number = self._try(changes)
        if not number:
            return
        if number in (errno.EPERM, errno.EACCES):
            raise NetlinkError(number, "nftables transaction")
        if len(changes) == 1:
            change = changes[0]
            if number == errno.ENOENT:
                if change.element:
                    raise NetlinkError(number, "our nftables table or set is gone")
                return  # it lapsed, or somebody was faster
            refused.append((change, number))
            return
        middle = len(changes) // 2
        self._commit(changes[:middle], refused)
        self._commit(changes[middle:], refused)

    def _try(self, changes: Sequence[Change]) -> int:
        """Send one transaction; its errno, 0 when it was made. A lost answer is asked for again: every change here can
        be made twice."""
        steps = render_steps(changes)
        number = 0
        for _ in range(_TRIES):
            try:
                self._link.transact(steps)
                return 0
            except Overrun:
                self._link.drain()
                number = errno.ENOBUFS
            except NetlinkError as error:
                number = error.number
                if number not in _AGAIN:
                    return number
            except Malformed as error:
                raise AdapterError(f"an answer of the kernel makes no sense: {error}") from error
        return number


def timeout_ms(rule: Rule, now_us: int, max_ttl_s: int) -> int:
    """The time-out of a rule's element: what is left of the rule, at least a second, at most the adapter's bound."""
    most_ms = max_ttl_s * 1000
    return max(1000, min((rule.expires_us - now_us) // 1000, most_ms)) if rule.expires_us else most_ms


def render_change(placed: Placed, now_us: int, max_ttl_s: int, *, replaces: bool = False) -> Change:
    """The change that puts a rule in its place; `replaces` takes out what stands there in the same transaction."""
    rule, place = placed
    return Change(
        place, render_element(place, timeout_ms(rule, now_us, max_ttl_s), rule.decision_id), replaces, replaces
    )


def render_steps(changes: Iterable[Change]) -> list[Step]:
    """Changes as the steps of a transaction, few messages of many elements. First what must be there to be removed is
    added, then removals, then additions."""
    ensure: dict[bytes, list[bytes]] = {}
    remove: dict[bytes, list[bytes]] = {}
    add: dict[bytes, list[bytes]] = {}
    for change in changes:
        name = change.place.set_name
        if change.removes:
            if change.ensure:
                ensure.setdefault(name, []).append(change.element)
            remove.setdefault(name, []).append(render_key(change.place))
        if change.element:
            add.setdefault(name, []).append(change.element)
    steps: list[Step] = []
    for kind, flags, grouped in ((NEWSETELEM, CREATE, ensure), (DELSETELEM, 0, remove), (NEWSETELEM, CREATE, add)):
        for name, elements in grouped.items():
            steps += [Step(kind, flags, render_list(name, part)) for part in _parts(elements)]
    return steps


def _parts(elements: Iterable[bytes]) -> list[bytes]:
    parts: list[bytes] = []
    held: list[bytes] = []
    size = 0
    for element in elements:
        if size + len(element) > _LIST_BYTES:
            parts.append(b"".join(held))
            held, size = [], 0
        held.append(element)
        size += len(element)
    if held:
        parts.append(b"".join(held))
    return parts


def take_table_away() -> None:
    """Without an adapter, and without `nft`: nothing of ours is there afterwards. Raises AdapterError when the kernel
    does not let us; where we may not even ask, nothing is ours."""
    try:
        link = NetfilterSocket()
    except AdapterError:
        return  # no netlink to netfilter, no table
    try:
        sets = KernelSets(link)
        try:
            is_there = sets.has_table()
        except AdapterError:
            return
        if is_there:
            sets.delete_table()
    finally:
        link.close()
