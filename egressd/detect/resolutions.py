"""Who resolved what: our own passive DNS, bounded.

Three questions are answered from it. Does an answer match a question that this client asked (evidence level E2,
without which no address is blocked for everybody)? Which other registered domains live on an address (co-tenants: a
shared address is never blocked)? Which name did this client resolve to reach this address (so that a connection
without a name has one)?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from egressd.detect.fair_table import FairTable
from egressd.intel.networks import NAT64_WELL_KNOWN, behind_prefix
from egressd.model import DnsMessage, DnsRecord, FlowKey, Observation
from egressd.names import Suffixes
from egressd.native import mypyc_attr
from egressd.units import DAY_US, HOUR_US

ANSWER_WITHIN_US: Final = 10_000_000  # stub resolvers give up after 5 s, one retry
ATTRIBUTE_WITHIN_US: Final = HOUR_US  # how long a client is assumed to use an address it resolved
TENANT_WITHIN_US: Final = DAY_US  # sites move, and most are visited daily: who was seen there counts for so long
MAX_TENANTS: Final = 32  # per address; more would not change a verdict
MAX_LISTED: Final = 16  # of them may be listed: they are not to keep out those whom a block would harm
MAX_LEARNED: Final = 1_024  # tenants that wait to be told to other processes; more are told when they are met again
MAX_COMPARED: Final = 16  # addresses of an answer that are compared with each other instead of hashed
MAX_ANSWERED: Final = 512  # addresses read of one answer: 64 KB hold 4,000, and each costs 3 to 5 us
MAX_CHAIN: Final = 16  # names that one answer may lead through; resolvers give up at 8 to 16

_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2
_NAT64: Final = bytes.fromhex("0064ff9b") + bytes(8)  # RFC 6052 section 2.1
_CNAME: Final = 5
_WITH_HINTS: Final = (64, 65)  # SVCB, HTTPS (RFC 9460)


def place_of(address: bytes, nat64: tuple[tuple[bytes, int], ...] = ()) -> bytes:
    """The host that an address leads to: the IPv4 address inside an IPv4-mapped or NAT64 one, else itself. One host
    has one place, however its address is written, so that who shares it is known. `nat64` are the network's own
    prefixes, beside the well-known one (`own_prefixes`)."""
    if len(address) != 16:
        return address
    if address[0] == 0 and address.startswith((_MAPPED, _NAT64)):
        return address[12:]
    for prefix, octets in nat64:
        if address.startswith(prefix):
            return behind_prefix(address, octets)
    return address


def own_prefixes(nat64: tuple[tuple[bytes, int], ...]) -> tuple[tuple[bytes, int], ...]:
    """Of NAT64 prefixes (first address, length in bits) those that are the network's own, as `place_of` takes them:
    (octets that are the prefix, how many)."""
    return tuple((addr[: length // 8], length // 8) for addr, length in nat64 if (addr, length) != NAT64_WELL_KNOWN)


_new: Final = tuple.__new__  # makes a NamedTuple at half the cost of calling it


class Answer(NamedTuple):
    """What an answer section says about the name asked about: the names it leads through, that name first, and the
    addresses at the end, MAX_ANSWERED at most. Records of other owners say nothing about it."""

    names: tuple[str, ...]
    addresses: tuple[bytes, ...]


def read_answer(name: str, message: DnsMessage) -> Answer:
    """Follow CNAMEs and SVCB/HTTPS targets from `name`; servers do not always give them in order."""
    records = message.answers
    if message.answer_count != len(records):
        records = records[: message.answer_count]
    found: list[bytes] = []
    for record in records:
        address = record.address
        if not address or record.name != name or not name:
            break
        if len(found) > MAX_COMPARED or address not in found:  # it is taken out below
            found.append(address)
    else:  # nothing but addresses of that name: most answers
        if len(found) > MAX_COMPARED:
            found = list(dict.fromkeys(found))[:MAX_ANSWERED]
        return _new(Answer, ((name,), tuple(found)))
    targets: dict[str, list[str]] = {}
    for record in records:
        if record.rrtype == _CNAME or record.rrtype in _WITH_HINTS:
            target = record.target or record.raw_target.lower()
            if target:
                targets.setdefault(_owner(record), []).append(target)
    chain = {name: None}  # a dict for its order
    following = targets.pop(name, [])
    while following and len(chain) < MAX_CHAIN:
        at = following.pop(0)
        if at not in chain:
            chain[at] = None
            following += targets.pop(at, [])
    addresses: dict[bytes, None] = {}
    for record in records:
        if _owner(record) in chain:
            if record.address:
                addresses[record.address] = None
            elif record.rrtype in _WITH_HINTS:
                addresses.update(dict.fromkeys(record.hints))
    return _new(Answer, (tuple(chain), tuple(addresses)[:MAX_ANSWERED]))


def _owner(record: DnsRecord) -> str:
    return record.name or record.raw_name.lower()


@mypyc_attr(acyclic=True)
class _Asked:
    """An outstanding question, and when it was sent first and last."""

    __slots__ = ("first_us", "last_us", "name")

    def __init__(self, name: str, ts_us: int) -> None:
        self.name = name
        self.first_us = ts_us
        self.last_us = ts_us


@mypyc_attr(acyclic=True)
class _Tenants:
    """The registered domains on an address, in order of first sight, and when each was seen last, any of them at
    `last_us`. `full_until_us`: none of them can be a day old before then, so that there is no room for another. Most
    addresses have one: `alone`, seen at `alone_us`, which takes no dictionary."""

    __slots__ = ("_seen_us", "alone", "alone_us", "full_until_us", "last_us")

    def __init__(self, domain: str, ts_us: int) -> None:
        self.alone = domain
        self.alone_us = ts_us
        self.last_us = ts_us
        self._seen_us: dict[str, int] | None = None
        self.full_until_us = 0

    def seen_again(self, domain: str, ts_us: int) -> bool:
        """Note that `domain`, if it is the only one, was seen; else False."""
        if self._seen_us is None and domain == self.alone:
            self.alone_us = ts_us
            if ts_us > self.last_us:
                self.last_us = ts_us
            return True
        return False

    @property
    def is_single(self) -> bool:
        """Whether there was never more than one."""
        return self._seen_us is None

    def are_others(self, domain: str) -> bool:
        """Whether any but `domain` was ever noted."""
        return self._seen_us is not None or self.alone != domain

    @property
    def seen_us(self) -> dict[str, int]:
        """When each was seen last; changes to it are kept."""
        seen_us = self._seen_us
        if seen_us is None:
            seen_us = self._seen_us = {self.alone: self.alone_us}
        return seen_us


@mypyc_attr(acyclic=True)
class _Reached:
    """What a client resolved last to reach an address, and when."""

    __slots__ = ("name", "ts_us")

    def __init__(self, name: str, ts_us: int) -> None:
        self.name = name
        self.ts_us = ts_us


def _exchange(flow: FlowKey, txid: int) -> tuple[bytes, bytes, int]:
    """What a question and its answer have in common: a key of half the size of `flow` and `txid`, for nothing else
    holds that flow."""
    return flow[1], flow[3], ((flow[0] << 16 | flow[2]) << 16 | flow[4]) << 16 | txid


def _way(client: bytes, place: bytes) -> bytes:
    """A client and a place as one key: two packed addresses, of which no other two make the same."""
    return client + place if len(client) >= len(place) else client + b"/" + place


class Resolutions:
    """Bounded passive DNS by packet time."""

    def __init__(self, suffixes: Suffixes, limit: int = 65_536, nat64: tuple[tuple[bytes, int], ...] = ()) -> None:
        """`limit` bounds the addresses and the (client, address) pairs, each. A quarter of it bounds the outstanding
        questions, which live for seconds. No client fills more than its share of any. `nat64` are the network's own
        prefixes (`own_prefixes`)."""
        self._suffixes = suffixes
        self.nat64 = nat64
        self.machine_of: Callable[[bytes], bytes] = bytes  # what an IPv6 address counts as, see `_source`
        self._name: str | None = None  # asked about last, and its registered domain
        self._domain = ""
        self._asked: FairTable[tuple[bytes, bytes, int], _Asked] = FairTable(max(2, limit // 4))
        self._tenants: FairTable[bytes, _Tenants] = FairTable(limit)
        self._reached: FairTable[bytes, _Reached] = FairTable(limit)
        self.learned: list[tuple[str, bytes, int]] | None = None  # tenants as they are met, where somebody takes them

    def _source(self, client: bytes) -> bytes:
        """Whose share of a table it is: a host has as many IPv6 addresses as it likes, all under one MAC."""
        return self.machine_of(client) if len(client) == 16 else client

    def domain_of(self, name: str) -> str:
        """The registered domain of a name, itself when it has none; remembered, for the same names come all day."""
        if name is not self._name:  # one observation asks several times
            self._domain = self._suffixes.registered_domain(name) or name
            self._name = name
        return self._domain

    def asked(self, question: Observation, txid: int) -> bool:
        """A client asked a question. Whether it is a new one: a stub that hears nothing sends the same again."""
        key = _exchange(question.flow, txid)
        before = self._asked.get(key)
        if before is not None and before.name == question.name:
            if 0 <= question.ts_us - before.first_us <= ANSWER_WITHIN_US:
                before.last_us = question.ts_us
                return False
        asked = _Asked(question.name, question.ts_us)
        if before is None:
            self._asked.claim(key, asked, self._source(question.flow.client))
        else:
            self._asked.renew(key, asked)
        return True

    def was_asked(self, answer: Observation, txid: int) -> bool:
        """Whether `answer` matches an outstanding question: same client and port, server, transaction id and name. The
        question is then answered: a second answer to it is somebody else's."""
        key = _exchange(answer.flow, txid)
        asked = self._asked.get(key)
        if asked is None or asked.name != answer.name:
            return False
        self._asked.take(key)
        return 0 <= answer.ts_us - asked.last_us <= ANSWER_WITHIN_US

    def reached(self, client: bytes, name: str, address: bytes, ts_us: int) -> None:
        """`client` was told, or showed by SNI or Host, that `name` is at `address`."""
        key = _way(client, address if len(address) == 4 else place_of(address, self.nat64))
        reached = self._reached.get(key)
        if reached is None:
            self._reached.claim(key, _Reached(name, ts_us), self._source(client))
        else:
            reached.name = name
            reached.ts_us = ts_us

    def lives_at(
        self, name: str, address: bytes, ts_us: int, whole: bool = False, client: bytes = b"", listed: bool = False
    ) -> None:
        """`name` was seen on `address`; kept by registered domain, or as it is when `whole`; the rest as `settles`."""
        self.settles(name if whole else self.domain_of(name), address, ts_us, client, listed)

    def settles(self, domain: str, address: bytes, ts_us: int, client: bytes = b"", listed: bool = False) -> None:
        """`domain`, which may be `listed`, is a tenant of `address`, as `client` showed (b"": we knew)."""
        place = address if len(address) == 4 else place_of(address, self.nat64)
        tenants = self._tenants.get(place)
        if tenants is None:
            if self._tenants.claim(place, _Tenants(domain, ts_us), self._source(client)):
                self._learn(domain, place, ts_us)  # a flood is not to flood other processes
            return
        if tenants.seen_again(domain, ts_us):
            return
        seen_us = tenants.seen_us
        if listed and len(seen_us) >= MAX_LISTED and domain not in seen_us:
            return
        if len(seen_us) >= MAX_TENANTS and domain not in seen_us:
            if ts_us <= tenants.full_until_us:
                return
            oldest = min(seen_us, key=seen_us.__getitem__)
            tenants.full_until_us = seen_us[oldest] + TENANT_WITHIN_US
            if ts_us <= tenants.full_until_us:
                return
            del seen_us[oldest]
            tenants.full_until_us = 0
        if domain not in seen_us:
            self._learn(domain, place, ts_us)
        seen_us[domain] = ts_us
        if ts_us > tenants.last_us:
            tenants.last_us = ts_us

    def _learn(self, domain: str, place: bytes, ts_us: int) -> None:
        if self.learned is not None and len(self.learned) < MAX_LEARNED:
            self.learned.append((domain, place, ts_us))

    def co_tenants(self, address: bytes, domains: frozenset[str], ts_us: int) -> list[str]:
        """Registered domains other than `domains` seen on `address` within the last day, in order of first sight."""
        tenants = self._tenants.get(place_of(address, self.nat64))
        if tenants is None:
            return []
        if tenants.is_single:
            alone = tenants.alone
            return [alone] if alone not in domains and ts_us - tenants.alone_us <= TENANT_WITHIN_US else []
        seen_us = tenants.seen_us
        return [d for d, last_us in seen_us.items() if d not in domains and ts_us - last_us <= TENANT_WITHIN_US]

    def only_tenant(self, address: bytes, ts_us: int) -> str:
        """The one registered domain seen on `address` within the last day; "" when there is none or more than one."""
        tenants = self._tenants.get(place_of(address, self.nat64))
        if tenants is None:
            return ""
        if tenants.is_single:
            return tenants.alone if ts_us - tenants.alone_us <= TENANT_WITHIN_US else ""
        found = ""
        for domain, last_us in tenants.seen_us.items():
            if ts_us - last_us <= TENANT_WITHIN_US:
                if found:
                    return ""
                found = domain
        return found

    def has_tenants(self, address: bytes, ts_us: int) -> bool:
        """Whether any registered domain was seen on `address` within the last day."""
        tenants = self._tenants.get(place_of(address, self.nat64))
        return tenants is not None and ts_us - tenants.last_us <= TENANT_WITHIN_US

    def is_shared(self, address: bytes, domain: str, ts_us: int) -> bool:
        """Whether any other registered domain was seen on `address` within the last day."""
        tenants = self._tenants.get(place_of(address, self.nat64))
        if tenants is None or not tenants.are_others(domain):
            return False
        for other, last_us in tenants.seen_us.items():
            if other != domain and ts_us - last_us <= TENANT_WITHIN_US:
                return True
        return False

    def name_for(self, client: bytes, address: bytes, ts_us: int) -> str:
        """The name that `client` resolved last to reach `address`, or "" when none is recent."""
        reached = self._reached.get(_way(client, address if len(address) == 4 else place_of(address, self.nat64)))
        if reached is None or not 0 <= ts_us - reached.ts_us <= ATTRIBUTE_WITHIN_US:
            return ""
        return reached.name

    @property
    def evicted(self) -> int:
        """Entries forgotten because a table was full."""
        crowds = self._asked.crowd.evicted + self._tenants.crowd.evicted + self._reached.crowd.evicted
        return self._asked.evicted + self._tenants.evicted + self._reached.evicted + crowds

    @property
    def over_share(self) -> int:
        """Entries of clients that had their share of a table already, and stand in its crowd."""
        return self._asked.over_share + self._tenants.over_share + self._reached.over_share
