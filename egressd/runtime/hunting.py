"""Retro-hunt: what was listed just now, or is no longer allowed, who contacted it before?

The core finds the contacts on disk, page by page, and tells them to packet processes, which judge them like traffic:
incidents, decisions, campaigns. What was told is marked there, so that nothing is told twice, a hunt that a restart cut
short goes on where it was, and an indicator that goes and comes back finds what is new. Everything rests in between:
the packet path notices a few milliseconds of work at a time.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from egressd.clock import Clock
from egressd.detect.correlator import Correlator
from egressd.detect.history import PastContact
from egressd.detect.intel import Intel
from egressd.detect.resolutions import Resolutions
from egressd.intel.allowances import Allowance
from egressd.intel.networks import parse_network, ways_to
from egressd.model import DNS_QUERY, FLOW, FlowKey, Indicator
from egressd.plural import count
from egressd.runtime.news import News, places_of
from egressd.runtime.orders import Recall
from egressd.runtime.processes import PacketProcessHandle
from egressd.store import past
from egressd.store.errors import StoreError
from egressd.store.history import History
from egressd.store.past import PAGE_ROWS, START, Untold

DOMAINS_AT_ONCE: Final = 200
# With more than so many new indicators every name and address of history is matched, instead of history being asked for
# every indicator: a feed has millions, history has what this network contacted.
MANY: Final = 20_000
ROWS_AT_ONCE: Final = 50  # 2 ms of a packet process in pure Python
REST_S: Final = 0.01
LIVES: Final = 3  # of a packet process that dies while it is told: more would be what kills it
# Until what packet processes had heard of before the new list is on disk: the most that waits there, a half of
# MAX_GATHERED (detect/gathering.py), takes them two seconds.
SETTLE_S: Final = 3.0
_YIELD_EVERY: Final = 500

log = logging.getLogger("egressd.hunting")


class Told(NamedTuple):
    """What a hunt has found so far."""

    indicators: int  # that it was for
    ended: int  # allowances that were over, and it was for, too
    contacts: int
    hosts: int
    began_us: int
    took_s: float


class Hunts:
    """`hunt` asks for one, `run` does them one after the other. On the event loop."""

    def __init__(
        self,
        history: History,
        flush: Callable[[], Any],
        intel: Callable[[], Intel],
        processes: Callable[[], Sequence[PacketProcessHandle]],
        clock: Clock,
        *,
        settle_s: float = SETTLE_S,
        rest_s: float = REST_S,
    ) -> None:
        """`flush` (awaitable) writes to disk what history has heard of. `intel` is what is known now."""
        self.running: Told | None = None
        self.last: Told | None = None
        self.failures = 0
        self.idle = asyncio.Event()  # nothing is searched for, and nothing waits
        self.idle.set()
        self._history = history
        self._flush = flush
        self._intel = intel
        self._processes = processes
        self._clock = clock
        self._settle_s = settle_s
        self._rest_s = rest_s
        self._wanted: list[News | None] = []
        self._awake = asyncio.Event()

    def hunt(self, news: News | None) -> None:
        """Search for what came into force just now, or is no longer allowed; None: for everything that is listed."""
        if news is None or news.arrived or news.ended:
            self._wanted.append(news)
            self.idle.clear()
            self._awake.set()

    @property
    def waiting(self) -> int:
        """Hunts that have not begun."""
        return len(self._wanted)

    async def run(self) -> None:
        """Until cancelled. Trouble with history costs that hunt: it is done again with the next start."""
        while True:
            while self._wanted:
                wanted = self._wanted.pop(0)
                try:
                    await self.search(wanted)
                except StoreError as error:
                    self.failures += 1
                    log.error("the past could not be searched: %s", error)
                finally:
                    self.last, self.running = self.running or self.last, None
            self.idle.set()
            self._awake.clear()
            await self._awake.wait()

    async def search(self, wanted: News | None) -> Told:
        """One hunt. Raises StoreError."""
        await asyncio.sleep(self._settle_s)
        await self._flush()
        loop = asyncio.get_running_loop()
        began_s, began_us = loop.time(), self._clock.now_us()
        intel = self._intel()
        size, ended = (intel.index.size, 0) if wanted is None else (len(wanted.arrived), len(wanted.ended))
        hosts: set[bytes] = set()
        contacts = 0
        self.running = Told(size, ended, 0, 0, began_us, 0.0)
        async for row in self._found(intel, wanted, began_us):
            hosts.add(row.mark.client)
            contacts += row.contacts
            self.running = Told(size, ended, contacts, len(hosts), began_us, loop.time() - began_s)
        done = self.running._replace(took_s=loop.time() - began_s)
        self.running = done
        if done.contacts or wanted is not None:
            log.info(
                "retro-hunt for %s: %s of %s, in %.1f s", _what(done), count(done.contacts, "earlier contact"),
                count(done.hosts, "host"), done.took_s,
            )  # fmt: skip
        return done

    async def _found(self, intel: Intel, wanted: News | None, now_us: int) -> AsyncIterator[Untold]:
        """What is to be told, once it was."""
        searches: list[tuple[_Sieve, AsyncIterator[list[Untold]]]] = []
        everything = _Sieve(intel, None, now_us)
        if wanted is None:
            searches.append((everything, self._all_of_history(everything)))
        else:
            sieve = _Sieve(intel, wanted.arrived, now_us)
            many = len(wanted.arrived) > MANY
            searches.append(
                (sieve, self._all_of_history(sieve) if many else self._of_indicators(wanted.arrived, intel))
            )
            searches.append((everything, self._of_allowances(wanted.ended, intel)))
        for sieve, pages in searches:
            async for page in pages:
                rows = [row for row in page if sieve.holds(row)]
                await self._tell(rows)
                for row in rows:
                    yield row

    # -- where to look

    async def _of_indicators(self, wanted: tuple[Indicator, ...], intel: Intel) -> AsyncIterator[list[Untold]]:
        """History asked for each indicator."""
        domains = dict.fromkeys(one.registered_domain or one.value for one in wanted if one.kind == "domain")
        for some in _chunks(domains, DOMAINS_AT_ONCE):
            async for page in self._pages(past.untold_of_domains, some):
                yield page
        for one in wanted:
            network = parse_network(one.value) if one.kind in ("address", "network") else None
            for low, high in ways_to(*network, intel.allowances.nat64) if network is not None else ():
                async for page in self._pages(past.untold_of_addresses, low, high):
                    yield page

    async def _of_allowances(self, ended: tuple[Allowance, ...], intel: Intel) -> AsyncIterator[list[Untold]]:
        """History asked for what each allowance let be."""
        for one in ended:
            places = places_of(one, intel)
            questions: tuple[tuple[Callable[..., list[Untold]], Sequence[Sequence[Any]]], ...] = (
                (past.untold_of_domains, [(places.domains,)] if places.domains else []),
                (past.untold_below, [(suffix,) for suffix in places.below]),
                (past.untold_at_addresses, places.addresses),
                (past.untold_of_clients, places.clients),
            )
            for question, asked in questions:
                for args in asked:
                    async for page in self._pages(question, *args):
                        yield page

    async def _all_of_history(self, sieve: _Sieve) -> AsyncIterator[list[Untold]]:
        """Every name and address of history asked whether it is listed."""
        number = 0
        while names := await self._history.ask(past.domains_after, number):
            found = []
            for at, (_, name, domain) in enumerate(names):
                if at % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                if name and sieve.matches(name, b""):
                    found.append(domain or name)
            for some in _chunks(dict.fromkeys(found), DOMAINS_AT_ONCE):
                async for page in self._pages(past.untold_of_domains, some):
                    yield page
            number = names[-1][0]
        address = b""
        while addresses := await self._history.ask(past.addresses_after, address):
            for at, one in enumerate(addresses):
                if at % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                if one and sieve.matches("", one):
                    async for page in self._pages(past.untold_of_addresses, one, one):
                        yield page
            address = addresses[-1]

    async def _pages(self, question: Callable[..., list[Untold]], *args: Any) -> AsyncIterator[list[Untold]]:
        after = START
        while True:
            page: list[Untold] = await self._history.ask(question, *args, after)
            if page:
                yield page
                after = page[-1].mark
            if len(page) < PAGE_ROWS:
                return

    # -- what is told

    async def _tell(self, rows: list[Untold]) -> None:
        """To the packet processes, a little at a time; what one that died meanwhile may have missed, again."""
        for some in _chunks(rows, ROWS_AT_ONCE):
            by_process: dict[int, list[PastContact]] = {}
            processes = self._processes()
            for row in some:
                number = zlib.crc32(row.mark.client) % len(processes)
                by_process.setdefault(number, []).append(_contact(row))
            for number, contacts in by_process.items():
                await self._tell_one(processes[number], Recall(tuple(contacts)))
            await self._history.mark_told(some)

    async def _tell_one(self, process: PacketProcessHandle, order: Recall) -> None:
        for _ in range(LIVES):
            await process.ready.wait()
            life = process.restarts
            process.tell(order)
            await asyncio.sleep(self._rest_s)
            if process.ready.is_set() and process.restarts == life:
                return
        log.error("%s of the past told to %d packet processes that died", count(len(order.rows), "contact"), LIVES)


def _what(told: Told) -> str:
    parts = [count(told.indicators, "indicator")] if told.indicators or not told.ended else []
    parts += [f"{count(told.ended, 'allowance')} that ended"] if told.ended else []
    return " and ".join(parts)


class _Sieve:
    """Whether a contact is to be told: covered by what is wanted, and not allowed. The same code that packets meet."""

    def __init__(self, intel: Intel, wanted: tuple[Indicator, ...] | None, now_us: int) -> None:
        self._correlator = Correlator(intel.index, intel.allowances, Resolutions(intel.suffixes), intel.suffixes)
        self._wanted = None if wanted is None else {one._replace(line=0) for one in wanted}
        self._now_us = now_us

    def matches(self, name: str, address: bytes) -> bool:
        correlator = self._correlator
        match = correlator.match_name(name, self._now_us) if name else correlator.match_address(address, self._now_us)
        return match is not None and (self._wanted is None or match.indicator._replace(line=0) in self._wanted)

    def holds(self, row: Untold) -> bool:
        if not self.matches(row.name, row.mark.address):
            return False
        return not self._correlator.is_allowed(row.name, row.mark.address, row.mark.client, row.last_us)


def _contact(row: Untold) -> PastContact:
    client, address = row.mark.client, row.mark.address
    via = FLOW if address else DNS_QUERY
    flow = FlowKey(0, client, 0, address if len(address) == len(client) else b"", 0)
    return PastContact(
        flow, row.name, flow.server if row.name else address, via, row.contacts, row.first_us, row.last_us
    )


def _chunks(values: Iterable[Any], size: int) -> Iterable[list[Any]]:
    left = iter(values)
    while some := list(islice(left, size)):
        yield some
