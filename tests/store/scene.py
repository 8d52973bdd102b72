"""What the tests of the store share: a ledger in a folder, decisions to put in, a person who acts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection

from egressd.model import Campaign, Decision, Incident, Indicator, Match, Target
from egressd.store import decisions, incidents, retention
from egressd.store.audit import Act, Verdict, Verifier
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.heads import Head
from egressd.store.ledger import open_ledger

T0 = 1_430_000_000_000_000
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
FOR_EVER = 1_000 * 365 * DAY
A = bytes([10, 0, 0, 1])
B = bytes([10, 0, 0, 2])
V6 = bytes.fromhex("20010db8000000000000000000000001")
ANNA = Act("uid:anna", "socket", "block", "", "seen by the CSIRT")
TIMER = Act("rule:time", "timer", "expire", "", "its time is over")


def match(domain: str = "bad.example", source: str = "csirt.txt") -> Match:
    indicator = Indicator(
        "domain", domain, "registered", "", domain, "example", source, 7, "c2", 90, 0, 0, "https://ref.example/1", "ops"
    )
    return Match("sibling", indicator, domain, "example")


def verdict(domain: str = "bad.example", id_: str = "", ts_us: int = T0, mode: str = "enforce") -> Decision:
    return Decision(
        id=id_,
        ts_us=ts_us,
        number=0,
        action="block",
        targets=(),
        reason=f"sibling of {domain} (csirt.txt:7)",
        rule="level-sibling",
        evidence="E1",
        mode=mode,
        match=match(domain),
        client=A,
        name=f"b.{domain}",
        campaign="",
    )


def about(domain: str = "bad.example") -> Target:
    return Target("registered_domain", domain)


def address(text: str) -> Target:
    return Target("address", text)


def tied(ledger: Database, id_: str, *keys: str, at_us: int = T0, last_us: int = 0) -> None:
    """A campaign, kept."""
    ledger.call(incidents.put_campaign, Campaign(id_, list(keys), [], at_us, last_us or at_us))


def opened(
    ledger: Database, id_: str, campaign: str, client: bytes = A, domain: str = "bad.example", segment: str = "lan",
    at_us: int = T0, last_us: int = 0,
) -> None:  # fmt: skip
    """An incident of a campaign that is kept."""
    made = Incident(id_, campaign, client, match(domain), at_us, at_us, last_us or at_us)
    ledger.call(incidents.put_incident, made, segment)


def closed(ledger: Database, id_: str, at_us: int = T0) -> None:
    """An incident that somebody knows of is quiet, and closed; as all others are that somebody knows of."""
    ledger.call(incidents.acknowledge, id_, at_us, "uid:anna", ANNA)
    ledger.call(retention.close_quiet, at_us + FOR_EVER, at_us, TIMER)


def verify(connection: Connection, heads: Iterable[Head] = (), least_kept_us: int = 0) -> Verdict:
    """The audit chain, verified whole."""
    verifier = Verifier(heads, least_kept_us)
    while verifier.step(connection):
        pass
    return verifier.verdict()


def put(ledger: Database, domain: str = "bad.example", *more: NewTarget, ts_us: int = T0, state: str = "active") -> str:
    """A decision about a domain, with more targets; its id."""
    targets = [NewTarget(about(domain)), *more]
    return ledger.call(decisions.commit, verdict(domain, ts_us=ts_us), targets, "rule:level-sibling", state)


@contextmanager
def ledger_at(path: Path, ballast_bytes: int = 0) -> Iterator[Database]:
    ledger = open_ledger(path, T0, ballast_bytes)
    try:
        yield ledger
    finally:
        ledger.close()
