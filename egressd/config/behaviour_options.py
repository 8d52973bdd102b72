"""Section `behaviour`: which detectors work, how sure they must be, and when a person is asked (docs/detection.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from egressd.config.kinds import CHOICE, NUMBER, option

OUTCOMES: Final = ("off", "alert", "ask")


def _switch(what: str) -> Any:
    return option(CHOICE, "ask", what, choices=OUTCOMES)


def _least(of: str) -> Any:
    return option(NUMBER, 1, f"Evidence of {of} under this score (0 to 100) does not count at all.", low=1, high=100)


@dataclass(frozen=True)
class BehaviourOptions:
    """Section `behaviour`."""

    alert_score: int = option(
        NUMBER,
        70,
        "The combined score (0 to 99) of a client and a destination from which on it is told, once and again when it "
        "has risen by 10.",
        low=1,
        high=100,
    )
    ask_score: int = option(
        NUMBER,
        80,
        "The combined score from which on the shipped policy asks a person to decide (rule behaviour-strong); a policy "
        "file of your own says its own. Behaviour alone never blocks for everybody, in no mode.",
        low=1,
        high=100,
    )
    learning_h: int = option(
        NUMBER,
        24,
        "Hours from the first packet in which it is learned what this network contacts anyway. What is new later "
        "weighs more, and regular contacts to what is not new weigh little. 0: everything is new from the first packet "
        "on, for looking through one capture.",
        high=720,
    )
    opaque_gets: str = _switch(
        "HTTP GETs of one shape with another opaque string appended each time, repeated to one registered domain. The "
        "switches: off; alert: a verdict that this leads is an alert at most; ask: it may ask a person."
    )
    opaque_gets_least: int = _least("opaque GETs")
    beacon: str = _switch("Contacts at regular intervals, with jitter, to what few clients contact.")
    beacon_least: int = _least("beacons")
    new_domain: str = _switch(
        "Registered domains that nobody in the network contacted before the last 7 days. A part of other scores, "
        "never one by itself."
    )
    new_domain_least: int = _least("new domains")
    dga: str = _switch("Failed look-ups of many registered domains that look drawn by a generator.")
    dga_least: int = _least("generated domains")
    nxdomain_burst: str = _switch("Failed look-ups of very many registered domains, whatever they look like.")
    nxdomain_burst_least: int = _least("bursts of failed look-ups")
    dns_tunnel: str = _switch("Many different long names under one registered domain within ten minutes.")
    dns_tunnel_least: int = _least("DNS tunnels")
    disagreement: str = _switch(
        "Names that disagree: two hosts in one HTTP request, overlapping segments, an SNI that nobody asked DNS for."
    )
    disagreement_least: int = _least("names that disagree")
    direct_address: str = _switch("Connections without a name to an address that no DNS answer here has named.")
    direct_address_least: int = _least("direct addresses")
    went_dark: str = _switch("A client that showed names before and shows none now.")
    went_dark_least: int = _least("clients that went dark")
