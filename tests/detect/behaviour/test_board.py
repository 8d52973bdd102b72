"""Evidence adds up: scores, steps, bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.evidence import HIGHEST, Evidence, EvidenceBoard, combined, in_words


def evidence(detector: str, score: int, destination: str = "odd.example", client: bytes = b"\n\0\0\5") -> Evidence:
    return Evidence(detector, client, destination, score, f"{detector} saw it", 10, 20)


def test_parts_take_their_share_of_the_doubt() -> None:
    assert combined([]) == 0
    assert combined([70]) == 70
    assert combined([66, 25]) == 74
    assert combined([50, 50, 50]) == 88
    assert combined([100, 100]) == HIGHEST


@given(st.lists(st.integers(0, 100), max_size=12))
def test_no_part_lowers_a_score(scores: list[int]) -> None:
    assert combined(scores) >= min(HIGHEST, max(scores, default=0))
    assert combined(scores) == combined(scores[::-1])


def test_told_once_then_by_steps_and_when_a_person_is_to_be_asked() -> None:
    board = EvidenceBoard(70, 80)
    assert board.add(evidence("beacon", 60)) is None
    first = board.add(evidence("dns-tunnel", 30))
    assert first is not None
    assert first.score == 72
    assert [part.detector for part in first.parts] == ["beacon", "dns-tunnel"], "strongest first"
    assert board.add(evidence("beacon", 61)) is None, "73 is no step"
    asked = board.add(evidence("beacon", 72))
    assert asked is not None, "80 asks, though it is no step of 10"
    assert asked.score == 80
    assert board.add(evidence("beacon", 72)) is None
    assert board.add(evidence("beacon", 20)) is None
    risen = board.add(evidence("opaque-gets", 85))
    assert risen is not None
    assert risen.score > 85


def test_clients_and_destinations_are_apart() -> None:
    board = EvidenceBoard(70, 80)
    board.add(evidence("a", 60))
    assert board.add(evidence("b", 60, "other.example")) is None
    assert board.add(evidence("b", 60, client=b"\n\0\0\6")) is None
    assert board.add(evidence("b", 60)) is not None


def test_bounded() -> None:
    board = EvidenceBoard(70, 80, limit=100)
    for number in range(1_000):
        board.add(evidence("a", 50, f"d{number}.example"))
        assert len(board) <= 100
    assert board.evicted


def test_words() -> None:
    assert in_words((evidence("beacon", 60), evidence("dga", 7))) == "beacon saw it (60); dga saw it (7)"
