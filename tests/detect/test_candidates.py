"""Candidates: proposed once, bounded, rejected for good; they follow when campaigns become one."""

from __future__ import annotations

from egressd.detect.candidates import MAX_CANDIDATES, MAX_REJECTED, Candidates
from egressd.model import Campaign


def scene(size: int) -> tuple[dict[str, Campaign], Candidates]:
    campaigns = {f"C{number}": Campaign(f"C{number}", [], [], 0, 0) for number in range(1, size + 1)}
    return campaigns, Candidates(campaigns)


def test_a_candidate_is_proposed_once_and_told_once() -> None:
    campaigns, candidates = scene(3)
    told: list[str] = []
    candidates.on_new = lambda campaign: told.append(campaign.id)
    for reason in ("the first reason", "another"):
        candidates.propose(campaigns["C1"], campaigns["C3"], reason)
    candidates.propose(campaigns["C2"], campaigns["C3"], "a third")
    assert candidates.of("C3") == [("C1", "the first reason"), ("C2", "a third")]
    assert candidates.of("C2") == []
    assert told == ["C1", "C2"]


def test_candidates_of_a_campaign_are_bounded() -> None:
    campaigns, candidates = scene(MAX_CANDIDATES + 9)
    for younger in list(campaigns.values())[1:]:
        candidates.propose(campaigns["C1"], younger, "like it")
    assert len(campaigns["C1"].candidates) == MAX_CANDIDATES


def test_what_a_person_rejected_is_not_proposed_again() -> None:
    campaigns, candidates = scene(2)
    one, other = campaigns.values()
    assert not candidates.reject(one, "C2"), "it was none"
    candidates.propose(one, other, "like it")
    assert candidates.reject(one, "C2")
    candidates.propose(one, other, "like it")
    assert one.candidates == {}
    candidates.propose(other, one, "the other way round")
    assert other.candidates == {"C1": "the other way round"}


def test_what_was_rejected_before_a_restart_is_not_proposed_either_and_that_is_bounded() -> None:
    campaigns, candidates = scene(2)
    one, other = campaigns.values()
    candidates.remember_rejected("C1", "C2")
    candidates.propose(one, other, "like it")
    assert one.candidates == {}
    for number in range(MAX_REJECTED):
        candidates.remember_rejected("C1", f"C{number + 10}")
    candidates.propose(one, other, "like it")
    assert list(one.candidates) == ["C2"], "the oldest word is forgotten first"


def test_candidates_follow_when_campaigns_become_one() -> None:
    campaigns, candidates = scene(5)
    candidates.propose(campaigns["C1"], campaigns["C4"], "of C1")
    candidates.propose(campaigns["C2"], campaigns["C4"], "of C2")
    candidates.propose(campaigns["C4"], campaigns["C5"], "of C4")
    candidates.merged(campaigns["C2"], campaigns.pop("C4"))
    assert campaigns["C1"].candidates == {"C2": "of C1"}, "it is part of C2 by now"
    assert campaigns["C2"].candidates == {"C5": "of C4"}, "and no candidate of its own"


def test_a_restart_keeps_them() -> None:
    campaigns, candidates = scene(3)
    candidates.propose(campaigns["C1"], campaigns["C3"], "like it")
    again = Candidates(campaigns)
    again.restore(campaigns.values())
    assert again.of("C3") == candidates.of("C3") == [("C1", "like it")]
