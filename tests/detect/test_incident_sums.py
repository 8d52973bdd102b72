"""Two incidents that turn out to be one."""

from __future__ import annotations

from egressd.detect.incident_places import MAX_ADDRESSES
from egressd.detect.incident_sums import MAX_NAMES, absorb, add_name
from egressd.model import Incident, Match
from tests.detect.scene import A, B, listed, packed


def incident(number: int, client: str, first_us: int, last_us: int) -> Incident:
    (indicator,) = listed("bad.example")
    match = Match("host", indicator, indicator.registered_domain, "example")
    return Incident(f"I{number}", "C1", packed(client), match, first_us, first_us, last_us, addresses=[packed(client)])


def test_the_one_that_is_kept_adds_up_both() -> None:
    kept, gone = incident(1, A, 50, 60), incident(2, B, 10, 90)
    kept.contacts, kept.attempts, kept.answered = 3, 2, 1
    gone.contacts, gone.attempts, gone.answered = 30, 20, 10
    kept.let_through, gone.let_through = 1, 10
    kept.names, gone.names = {"a.example": 1}, {"a.example": 2, "b.example": 3}
    kept.via, gone.via = {"flow": 1}, {"tls_sni": 2}
    kept.sources, gone.sources = {"tap": 1}, {"tap": 1, "zeek": 1}
    gone.device, gone.volume = "02:1a:2b:00:00:01", "sent 2 GB"
    absorb(kept, gone)
    assert (kept.first_us, kept.last_us) == (10, 90)
    assert (kept.contacts, kept.attempts, kept.answered, kept.let_through) == (33, 22, 11, 11)
    assert kept.names == {"a.example": 3, "b.example": 3}
    assert kept.via == {"flow": 1, "tls_sni": 2}
    assert kept.sources == {"tap": 2, "zeek": 1}
    assert (kept.device, kept.volume) == ("02:1a:2b:00:00:01", "sent 2 GB")
    assert kept.addresses == [packed(A), packed(B)], "the one seen last stands last"


def test_addresses_and_names_are_bounded() -> None:
    kept, gone = incident(1, A, 0, 0), incident(2, B, 0, 1)
    gone.addresses = [packed(f"10.9.0.{number}") for number in range(MAX_ADDRESSES)]
    for number in range(2 * MAX_NAMES):
        add_name(gone, f"n{number}.example", 1)
    add_name(gone, "n0.example", 1)
    absorb(kept, gone)
    assert kept.addresses == gone.addresses
    assert (len(kept.names), kept.names["n0.example"]) == (MAX_NAMES, 2)
