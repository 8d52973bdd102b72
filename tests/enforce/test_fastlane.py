"""The fast lane's one message, and that nothing protected gets into it."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce import fastlane, netlink
from egressd.enforce.adapter import AdapterError
from egressd.enforce.elements import Place, parse_elements, place_of, render_element, render_list
from egressd.enforce.fastlane import FastLane
from egressd.enforce.netlink import HEADER, NetlinkError, Overrun, message, parse_messages
from egressd.enforce.sets import NEWSETELEM
from egressd.model import Target
from tests.enforce.rules import protected
from tests.enforce.test_shield import FORMS, INSIDE, render_address


class Link:
    """Answers each transaction with the errno that a test gives."""

    port = 4711

    def __init__(self, **_: object) -> None:
        self.number = 0
        self.sent: list[bytes] = []
        self.answers: list[bytes] = []
        self.seq = 0

    def next_seq(self, count: int) -> int:
        self.seq += count
        return self.seq - count + 1

    def send(self, payload: bytes) -> None:
        self.sent.append(payload)
        seq = parse_messages(payload)[1].seq
        body = struct.pack("=i", -self.number) + HEADER.pack(16, 0, 0, seq, 0)
        self.answers.append(message(netlink.ERROR, 0, seq, body))

    def receive(self, flags: int = 0) -> bytes:
        return self.answers.pop(0) if self.answers else b""

    def close(self) -> None:
        pass


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> FastLane:
    monkeypatch.setattr(fastlane, "NetfilterSocket", Link)
    return FastLane(protected())


def link(lane: FastLane) -> Link:
    held = lane._link
    assert isinstance(held, Link)
    return held


PUSHED = [
    ("address", "192.0.2.1"),
    ("address", "2001:db8::1"),
    ("pair", "10.0.0.9>192.0.2.1"),
    ("pair", "fd00::9>2001:db8::1"),
]


@pytest.mark.parametrize(("kind", "value"), PUSHED)
def test_the_message_is_what_the_adapter_would_send(lane: FastLane, kind: str, value: str) -> None:
    target = Target(kind, value)
    assert lane.push(target, "D7") > 0
    begin, add, end = parse_messages(link(lane).sent[0])
    assert (begin.kind, add.kind, end.kind) == (netlink.BATCH_BEGIN, NEWSETELEM, netlink.BATCH_END)
    assert add.flags & netlink.EXCL  # an element that is there keeps its longer time
    place = place_of(target)
    assert add.body == render_list(place.set_name, render_element(place, 60_000, "D7"))


def test_what_is_there_already_is_fine(lane: FastLane) -> None:
    link(lane).number = errno.EEXIST
    assert lane.push(Target("address", "192.0.2.1"), "D7") > 0


def test_a_refusal_of_the_kernel_is_told(lane: FastLane) -> None:
    link(lane).number = errno.ENOENT
    with pytest.raises(NetlinkError, match="No such file"):
        lane.push(Target("address", "192.0.2.1"), "D7")


def test_late_answers_are_not_mistaken(lane: FastLane) -> None:
    held = link(lane)
    held.answers.append(message(netlink.ERROR, 0, 0, struct.pack("=i", -errno.EPERM) + HEADER.pack(16, 0, 0, 0, 0)))
    assert lane.push(Target("address", "192.0.2.1"), "D7") > 0


def test_a_lost_answer_is_waited_for_and_then_told(lane: FastLane, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([Overrun("lost"), b""])

    def receive(flags: int = 0) -> bytes:
        answer = next(answers)
        if isinstance(answer, Overrun):
            raise answer
        return answer

    monkeypatch.setattr(link(lane), "receive", receive)
    with pytest.raises(AdapterError, match="in time"):
        lane.push(Target("address", "192.0.2.1"), "D7")


@given(INSIDE, st.sampled_from(sorted(FORMS)), st.binary(min_size=10, max_size=10))
def test_no_form_of_a_protected_address_is_pushed(addr: bytes, form: str, fill: bytes) -> None:
    lane = FastLane.__new__(FastLane)
    held = Link()
    lane._link = held  # type: ignore[assignment]
    lane.set_protected(protected())
    text = render_address(FORMS[form](addr, fill))
    client = "fd00::9" if ":" in text else "10.0.0.9"
    for target in (Target("address", text), Target("pair", f"{client}>{text}")):
        with pytest.raises(AdapterError):
            lane.push(target, "D1")
    assert held.sent == []


def test_a_new_protected_set_is_asked_from_then_on(lane: FastLane) -> None:
    lane.set_protected(protected("192.0.2.0/24"))
    with pytest.raises(AdapterError, match="protected"):
        lane.push(Target("address", "192.0.2.1"), "D7")


@pytest.mark.parametrize(
    ("kind", "value", "decision_id"),
    [
        ("network", "198.51.100.0/24", "D7"),
        ("client", "10.0.0.9", "D7"),
        ("host", "evil.example", "D7"),
        ("address", "192.0.2.01", "D7"),
        ("address", "192.0.2.1", "D7\n"),
        ("address", "192.0.2.1", ""),
    ],
)
def test_what_the_fast_lane_does_not_carry(lane: FastLane, kind: str, value: str, decision_id: str) -> None:
    with pytest.raises(AdapterError):
        lane.push(Target(kind, value), decision_id)
    assert link(lane).sent == []


@pytest.mark.parametrize(("value", "set_name"), [("192.0.2.1", b"canary4"), ("2001:db8::1", b"canary6")])
def test_the_canary_goes_where_no_rule_asks(lane: FastLane, value: str, set_name: bytes) -> None:
    assert lane.canary(value) > 0
    add = parse_messages(link(lane).sent[0])[1]
    assert not add.flags & netlink.EXCL
    key = place_of(Target("address", value)).key
    assert add.body == render_list(set_name, render_element(Place(set_name, key, None), 10_000, "canary"))
    assert parse_elements(add.body)[0].comment == "canary"
    with pytest.raises(AdapterError):
        lane.canary("canary")
