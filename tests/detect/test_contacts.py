"""What is one contact: conversations, requests in them, questions."""

from __future__ import annotations

from egressd.detect.contacts import MAX_REACHED, SAME_CONNECTION_US, Contacts
from egressd.model import FLOW, HTTP_HOST, TLS_SNI
from tests.detect.scene import A, B, X, at, flow, packed

KEY = flow(A, X)


def test_a_conversation_counts_once_for_each_that_it_reaches() -> None:
    contacts = Contacts()
    assert contacts.is_new(FLOW, KEY, "bad.example", at(0))
    assert not contacts.is_new(TLS_SNI, KEY, "bad.example", at(1))
    assert contacts.is_new(TLS_SNI, KEY, "worse.example", at(2))
    assert contacts.is_new(FLOW, flow(A, X, 40001), "bad.example", at(3))


def test_requests_after_the_first_count_each() -> None:
    contacts = Contacts()
    assert contacts.is_new(FLOW, KEY, "bad.example", at(0))
    wanted = [("bad.example", False), ("bad.example", True), ("good.example", True), ("bad.example", True)]
    for name, new in wanted:
        assert contacts.is_new(HTTP_HOST, KEY, name, at(1)) is new


def test_ports_are_used_again_by_tcp_at_once_and_by_udp_after_a_pause() -> None:
    """Of TCP the dissector tells a SYN only once, however often it is sent; of UDP only time can tell."""
    contacts = Contacts()
    udp = KEY._replace(proto=17)
    for key in (KEY, udp):
        assert contacts.is_new(FLOW, key, "bad.example", at(0))
        assert not contacts.is_new(FLOW, key, "bad.example", at(0.1))
        contacts.begins(key, at(0) + SAME_CONNECTION_US)
    assert contacts.is_new(FLOW, KEY, "bad.example", at(35))
    assert not contacts.is_new(FLOW, udp, "bad.example", at(35))
    contacts.begins(udp, at(0) + SAME_CONNECTION_US + 1)
    assert contacts.is_new(FLOW, udp, "bad.example", at(36))


def test_what_somebody_else_tells_of_a_conversation_is_known_as_long_as_it_is_told() -> None:
    contacts = Contacts()
    assert not contacts.knows(KEY, at(0))
    contacts.is_new(FLOW, KEY, "bad.example", at(0))
    assert contacts.knows(KEY, at(30)) and contacts.knows(KEY, at(63))
    assert not contacts.knows(KEY, at(63) + SAME_CONNECTION_US + 1)


def test_questions_within_a_second_are_one() -> None:
    contacts = Contacts()
    seconds = (0, 0.2, 1, 1.1, 2, 2.2, 2.1)
    asked = [contacts.is_new_question(packed(A), "bad.example", at(second), False) for second in seconds]
    assert asked == [True, False, False, True, False, True, True]  # out of order: better twice than never
    assert contacts.is_new_question(packed(B), "bad.example", at(0.1), False)
    assert contacts.is_new_question(packed(A), "x.bad.example", at(0.1), False)


def test_a_question_sent_again_is_no_contact_unless_it_is_the_first_seen() -> None:
    contacts = Contacts()
    assert contacts.is_new_question(packed(A), "bad.example", at(0), True)
    assert not contacts.is_new_question(packed(A), "bad.example", at(9), True)
    assert contacts.is_new_question(packed(A), "bad.example", at(9), False)


def test_tables_are_bounded() -> None:
    contacts = Contacts(20)
    for number in range(500):
        contacts.is_new(FLOW, flow(A, X, number + 1), "bad.example", at(0))
        contacts.is_new(TLS_SNI, KEY, f"n{number}.example", at(0))
        contacts.is_new_question(packed(A), f"n{number}.example", at(0), False)
    assert len(contacts._conversations) <= 20
    assert len(contacts._questions) <= 20
    talk = contacts._conversations.get(KEY)
    assert talk is not None and talk.others is not None and len(talk.others) <= MAX_REACHED
