"""History: what a retro-hunt finds, in which order, and what it forgets."""

from __future__ import annotations

from egressd.detect.history import History
from egressd.model import DNS_QUERY, FLOW, HTTP_HOST, TLS_SNI
from tests.detect.scene import A, B, X, Y, at, flow, packed

NAME = "c2.bad.example"


def test_contacts_are_summed_up() -> None:
    history = History(100)
    history.record(flow(A, "192.0.2.53", dport=53), NAME, at(0), 1, DNS_QUERY)
    history.record(flow(A, X), NAME, at(5), 7, FLOW, True, packed(X))
    history.record(flow(A, X), NAME, at(6), 8, TLS_SNI, False, packed(X))
    ((client, what, contact),) = history.contacts()
    assert (client, what) == (packed(A), NAME)
    assert (contact.count, contact.first_us, contact.last_us, contact.number) == (2, at(0), at(6), 1)
    assert (contact.via, contact.flow, contact.server) == (TLS_SNI, flow(A, X), packed(X))


def test_a_connection_says_more_than_a_question_and_one_without_proxy_more_than_one_with() -> None:
    history = History(100)
    history.record(flow(A, Y), NAME, at(0), 1, HTTP_HOST)  # by a proxy
    history.record(flow(A, X), NAME, at(1), 2, TLS_SNI, True, packed(X))
    history.record(flow(A, Y), NAME, at(2), 3, HTTP_HOST)
    history.record(flow(A, "192.0.2.53", dport=53), NAME, at(3), 4, DNS_QUERY)
    ((_, _, contact),) = history.contacts()
    assert (contact.via, contact.flow, contact.server, contact.count) == (TLS_SNI, flow(A, X), packed(X), 4)


def test_times_out_of_order() -> None:
    history = History(100)
    for second in (5, 3, 9, 7):
        history.record(flow(A, X), NAME, at(second), second, FLOW)
    ((_, _, contact),) = history.contacts()
    assert (contact.first_us, contact.last_us) == (at(3), at(9))


def test_rows_in_order_of_first_sight() -> None:
    history = History(100)
    history.record(flow(B, X), "b.bad.example", at(2), 3, TLS_SNI)
    history.record(flow(A, X), "bad.example", at(1), 2, TLS_SNI)
    history.record(flow(A, X), packed(X), at(0), 0, FLOW)
    rows = history.rows()
    assert [(one.flow.client, one.name) for one in rows] == [
        (packed(A), ""),
        (packed(A), "bad.example"),
        (packed(B), "b.bad.example"),
    ]
    assert rows[0].address == packed(X)


def test_looked_at_without_being_kept() -> None:
    history = History(4)
    for number in range(4):
        history.record(flow(A, X), f"n{number}.example", at(number), number, TLS_SNI)
    oldest = history.rows()[0]
    assert oldest.name == "n0.example"
    assert history.holds(oldest)
    history.record(flow(A, X), "n4.example", at(4), 4, TLS_SNI)
    assert not history.holds(oldest)  # to look did not make it young


def test_what_was_told_is_forgotten() -> None:
    history = History(100)
    history.record(flow(A, X), NAME, at(0), 1, TLS_SNI)
    (told,) = history.rows()
    history.forget(told)
    history.forget(told)
    assert history.contacts() == []


def test_bounded() -> None:
    history = History(10)
    for number in range(100):
        history.record(flow(A, X), f"n{number}.example", at(number), number, TLS_SNI)
    assert len(history.contacts()) <= 10
    assert history.contacts()[-1][1] == "n99.example"
    assert history.evicted >= 90
