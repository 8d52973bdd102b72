"""Measures the detectors of behaviour on made-up office days: `python bench/office.py` prints the table.

Day one is learned from, day two is judged (docs/detection.md). Contacts go into the engine as the observations that the
dissector would make of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # who measures a compiled copy has put it before
    sys.path.insert(0, str(ROOT))

from bench.office_day import CLIENTS, DAY_S, HOURS, OWN, RESOLVER, SEED, START_S, Contact, World, make_day
from egressd.config.load import load_intel
from egressd.config.schema import Config
from egressd.detect.behaviour.settings import BehaviourSettings
from egressd.detect.behaviour.watching import NEW_SCORE
from egressd.detect.engine import Engine
from egressd.detect.evidence import combined
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.networks import parse_address, render_address
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    QUIC_SNI,
    TCP,
    TLS_SNI,
    UDP,
    ClientHello,
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    Event,
    FlowKey,
    HttpRequest,
    Observation,
    Sighting,
)

PLANTS: Final = 100
TTL_S: Final = 300
WITHIN: Final = 24  # contacts in which a beacon is to be found
_RESOLVER: Final = parse_address(RESOLVER)


class Wire:
    """Makes observations of contacts, as the dissector would."""

    def __init__(self) -> None:
        self.number = 0
        self._port = 20_000
        self._asked_us: dict[tuple[str, str], int] = {}

    def observations(self, contact: Contact) -> Iterator[Observation]:
        """A question and its answer when the client's cache is too old, then the connection and the name in it."""
        client = parse_address(contact.client)
        ts_us = contact.ts_us
        if contact.kind == "dns":
            yield from self._question(ts_us, client, contact.name, contact.rrtype, contact.rcode, contact.address)
            return
        if contact.name:
            key = (contact.client, contact.name)
            if ts_us - self._asked_us.get(key, -(1 << 60)) > TTL_S * 1_000_000:
                self._asked_us[key] = ts_us
                yield from self._question(ts_us, client, contact.name, 1, 0, contact.address)
                ts_us += 20_000
        address = parse_address(contact.address)
        if len(address) == 16:
            client = parse_address("2001:db8:f::")[:12] + client
        udp = contact.udp or contact.kind == "quic"
        self._port = self._port + 1 if self._port < 60_000 else 20_000
        flow = FlowKey(UDP if udp else TCP, client, self._port, address, contact.port)
        yield self._see(FLOW, ts_us, flow, "", None)
        name = contact.name
        if contact.kind == "http":
            request = HttpRequest("GET", contact.target, name, name, 0, "", "", contact.target)
            yield self._see(HTTP_HOST, ts_us + 30_000, flow, name, request)
        elif contact.kind in ("tls", "quic", "hidden"):
            hello = ClientHello(name, name, 0x0304, (), "", "")
            yield self._see(QUIC_SNI if contact.kind == "quic" else TLS_SNI, ts_us + 30_000, flow, name, hello)

    def _question(
        self, ts_us: int, client: bytes, name: str, rrtype: int, rcode: int, address: str
    ) -> Iterator[Observation]:
        self._port = self._port + 1 if self._port < 60_000 else 20_000
        flow = FlowKey(UDP, client, self._port, _RESOLVER, 53)
        questions = (DnsQuestion(name, name, rrtype),)
        yield self._see(DNS_QUERY, ts_us, flow, name, DnsMessage(7, False, 0, 0, False, questions, (), 0, True, ""))
        packed = parse_address(address) if address and rrtype == 1 else b""
        records = (DnsRecord(name, name, 1, TTL_S, packed, "", "", (), False),) if packed else ()
        message = DnsMessage(7, True, 0, rcode, False, questions, records, len(records), True, "")
        yield self._see(DNS_ANSWER, ts_us + 10_000, flow, name, message)

    def _see(
        self, kind: str, ts_us: int, flow: FlowKey, name: str, detail: DnsMessage | HttpRequest | ClientHello | None
    ) -> Observation:
        self.number += 1
        return Observation(kind, ts_us, self.number, flow, name, name, detail)


class Told(NamedTuple):
    """A sighting by behaviour of the judged day."""

    client: str
    destination: str
    score: int
    parts: tuple[str, ...]
    contacts: int  # of the plant at that time, 0 of innocents
    plant: str
    judged: bool  # on the second day


class Outcome(NamedTuple):
    """What a run came to. `first` has the first sighting of each client and destination, `contacts` is by plant."""

    first: list[Told]
    asked: int
    contacts: dict[str, int]
    observations: int
    seconds: float
    tracks: int
    spoke: dict[
        str, tuple[int, int]
    ]  # by detector: innocent pairs with a word of it, and with one that tells by itself


def intel_of(settings: BehaviourSettings) -> Intel:
    """The shipped lists, no block list, and the office's own domain."""
    loaded = load_intel(Config(own_domains=(OWN,), resolvers=(RESOLVER,)), base_dir=ROOT)
    intel = loaded.intel
    return Intel(
        intel.index,
        intel.suffixes,
        intel.allowances,
        intel.protected,
        intel.resolvers,
        guard=intel.guard,
        behaviour=settings,
    )


def judge(
    seed: int, clients: int, hours: int, plants: int, settings: BehaviourSettings, learned: bool = True
) -> Outcome:
    """Run the days through an engine."""
    world = World(seed, clients)
    events: list[Event] = []
    engine = Engine(intel_of(settings), PolicySettings(), events.append)
    wire = Wire()
    first: dict[tuple[str, str], Told] = {}
    contacts: dict[str, int] = {}
    asked: set[tuple[str, str]] = set()
    spent_s = 0.0
    for measured in (False, True) if learned else (True,):
        start_s = START_S + DAY_S * measured
        day = make_day(world, seed, start_s, hours, measured, plants)
        batch: list[tuple[Observation, Contact]] = []
        for contact in day.contacts():
            batch += [(seen, contact) for seen in wire.observations(contact)]
        batch.sort(key=lambda one: one[0].ts_us)
        counted: set[int] = set()
        started_s = time.process_time()
        for seen, contact in batch:
            if contact.planted and id(contact) not in counted:
                counted.add(id(contact))
                contacts[contact.planted] = contacts.get(contact.planted, 0) + 1
            engine.observe(seen)
            if events:
                for event in events:
                    if isinstance(event, Sighting) and event.match.level == "behaviour":
                        client = render_address(event.flow.client)
                        key = (client, event.match.indicator.value)
                        plant = _plant_of(key, day.planted, contact)
                        parts = tuple(f"{part.detector} {part.score}" for part in event.parts)
                        told = Told(
                            *key, event.match.indicator.confidence, parts, contacts.get(plant, 0), plant, measured
                        )
                        first.setdefault(key, told)
                        if told.score >= settings.ask_score:
                            asked.add(key)
                events.clear()
        spent_s += time.process_time() - started_s
    hosts = {client for client, _ in day.planted.values()}
    spoke: dict[str, tuple[int, int]] = {}
    for part in engine.behaviour.board.parts():
        if render_address(part.client) not in hosts:
            words, alone = spoke.get(part.detector, (0, 0))
            tells = combined([part.score, NEW_SCORE]) >= settings.alert_score
            spoke[part.detector] = words + 1, alone + tells
    return Outcome(
        list(first.values()), len(asked), contacts, wire.number, spent_s, len(engine.behaviour.ground), spoke
    )


def _plant_of(key: tuple[str, str], planted: dict[str, tuple[str, str]], contact: Contact) -> str:
    for name, (client, destination) in planted.items():
        if client == key[0] and destination == key[1]:
            return name
    return contact.planted


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the detectors of behaviour on made-up office days.")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--hours", type=int, default=HOURS)
    parser.add_argument("--plants", type=int, default=PLANTS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--days", type=int, default=1, help="how many measured days, each of another seed")
    parser.add_argument("--unlearned", action="store_true", help="judge the day without the one before")
    args = parser.parse_args(argv)
    for number in range(args.days):
        run(args, args.seed + number)
    return 0


def run(args: argparse.Namespace, seed: int) -> None:
    """One seed's table."""
    outcome = judge(seed, args.clients, args.hours, args.plants, BehaviourSettings(), not args.unlearned)
    for line in table(outcome, args.clients, args.hours):
        print(line)


def table(outcome: Outcome, clients: int, hours: int) -> list[str]:
    """What came out, in lines."""
    false = [one for one in outcome.first if not one.plant and one.judged]
    before = [one for one in outcome.first if not one.judged]
    hit: dict[str, Told] = {}
    for one in outcome.first:
        if one.plant and (one.plant not in hit or one.contacts < hit[one.plant].contacts):
            hit[one.plant] = one
    lines = [
        f"{clients} clients, {hours} hours, {outcome.observations:,} observations in {outcome.seconds:.1f} s, "
        f"{outcome.tracks:,} pairs",
        f"false asks and alerts: {len(false)} ({1000 * len(false) / clients / hours:.2f} per 1,000 client-hours)",
    ]
    lines += [f"  {one.client} {one.destination} {one.score}: {', '.join(one.parts)}" for one in false]
    lines.append(f"on the day before, while learning: {len(before)}")
    lines += [f"  {one.client} {one.destination} {one.score}: {', '.join(one.parts)}" for one in before]
    sorts: dict[str, list[str]] = {}
    for name in outcome.contacts:
        sorts.setdefault(name.rpartition("-")[0], []).append(name)
    for sort, names in sorted(sorts.items()):
        found = [name for name in names if name in hit]
        soon = [name for name in found if hit[name].contacts <= WITHIN]
        needed = sorted(hit[name].contacts for name in found)
        median = needed[len(needed) // 2] if needed else 0
        lines.append(
            f"  {sort}: {len(names)} planted, {len(found)} found, {len(soon)} within {WITHIN} contacts, median {median}"
        )
    for detector, (words, alone) in sorted(outcome.spoke.items()):
        rate = 1000 * alone / clients / hours
        lines.append(f"  {detector}: a word on {words} innocent pairs, would tell {alone} alone ({rate:.2f} per 1,000)")
    beacons = [name for name in outcome.contacts if name.startswith("beacon")]
    soon = [name for name in beacons if name in hit and hit[name].contacts <= WITHIN]
    if beacons:
        share = 100 * len(soon) / len(beacons)
        lines.append(f"beacons found within {WITHIN} contacts: {len(soon)} of {len(beacons)} ({share:.1f} %)")
    lines += [f"  missed: {name}, {outcome.contacts[name]} contacts" for name in beacons if name not in soon]
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
