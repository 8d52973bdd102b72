"""Which words of several sensors are about one contact."""

from __future__ import annotations

from egressd.detect.agreement import MAX_TOLD_OF_ONE, Agreement
from egressd.model import DNS_QUERY, FLOW, HTTP_HOST, TAP, TCP, TLS_SNI, FlowKey
from tests.detect.scene import A, X, at, flow, packed

PORTLESS = FlowKey(0, packed(A), 0, b"", 0)
DOMAIN = "bad.example"


def test_the_nearest_contact_that_the_sensor_has_not_told_of_is_the_same() -> None:
    agreement = Agreement()
    for second in (0, 5, 10):
        assert not agreement.tell(TAP, HTTP_HOST, flow(A, X), DOMAIN, at(second))
    assert all(agreement.tell("squid", HTTP_HOST, PORTLESS, DOMAIN, at(second)) for second in (5.1, 0.2, 10.3))
    assert not agreement.tell("squid", HTTP_HOST, PORTLESS, DOMAIN, at(10.4)), "a fourth is one that the tap missed"
    assert agreement.agreed == {"squid": 3}
    assert agreement.difference_us("squid") == 200_000


def test_ports_that_both_know_must_be_the_same() -> None:
    agreement = Agreement()
    agreement.tell(TAP, TLS_SNI, flow(A, X, 40_000), DOMAIN, at(0))
    assert not agreement.tell("eve", TLS_SNI, flow(A, X, 40_001), DOMAIN, at(0.1))
    assert agreement.tell("eve", TLS_SNI, flow(A, X, 40_000), DOMAIN, at(0.2))
    assert agreement.tell("zeek", FLOW, flow(A, X, 40_001), DOMAIN, at(55)), "written when the connection was over"
    assert not agreement.tell("zeek", FLOW, flow(A, X, 40_000), DOMAIN, at(61))


def test_the_same_ports_come_before_what_is_nearer() -> None:
    agreement = Agreement()
    agreement.tell("squid", HTTP_HOST, PORTLESS, DOMAIN, at(1))
    agreement.tell(TAP, HTTP_HOST, flow(A, X, 40_000), DOMAIN, at(9))  # that of the line, and its ports
    agreement.tell(TAP, HTTP_HOST, flow(A, X, 40_001), DOMAIN, at(10))
    assert agreement.tell("eve", HTTP_HOST, flow(A, X, 40_000), DOMAIN, at(10))
    assert agreement.told_by(packed(A), DOMAIN, at(1)) == ("eve", "squid", TAP)


def test_a_question_is_no_connection_and_has_other_ports_every_time() -> None:
    agreement = Agreement()
    agreement.tell(TAP, DNS_QUERY, FlowKey(17, packed(A), 50_000, packed(X), 53), DOMAIN, at(0))
    assert not agreement.tell("squid", HTTP_HOST, PORTLESS, DOMAIN, at(0.1))
    assert agreement.tell("bind", DNS_QUERY, FlowKey(17, packed(A), 50_001, packed(X), 53), DOMAIN, at(0.2))
    assert not agreement.tell("unbound", DNS_QUERY, PORTLESS, DOMAIN, at(11)), "too long after"
    assert agreement.told_by(packed(A), DOMAIN, at(0)) == ("bind", "squid", TAP)
    assert agreement.told_by(packed(A), "other.example", at(0)) == ()


def test_what_is_remembered_is_bounded_and_what_was_lost_early_is_counted() -> None:
    agreement = Agreement(100)
    for second in range(MAX_TOLD_OF_ONE + 5):
        agreement.tell(TAP, HTTP_HOST, flow(A, X), DOMAIN, at(second / 100))
    assert (len(agreement), agreement.evicted) == (MAX_TOLD_OF_ONE, 5)
    for port in range(100):
        agreement.tell(TAP, TLS_SNI, FlowKey(TCP, bytes((10, 1, 0, port)), 1, packed(X), 443), DOMAIN, at(100))
    assert (len(agreement), agreement.evicted) == (100, 5), "what went was old"
    agreement.tell(TAP, TLS_SNI, FlowKey(TCP, packed(A), 2, packed(X), 443), DOMAIN, at(100))
    assert (len(agreement), agreement.evicted) == (100, 6)
    assert not agreement.told_by(bytes((10, 1, 0, 0)), DOMAIN, at(100))
