"""Regularity of contact times: beacons with jitter, and what people and chance make."""

from __future__ import annotations

import random
from collections import Counter
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.behaviour.beacon import LEAST_INTERVALS, regularity, surprise_bits
from egressd.detect.behaviour.letters import entropy_bits, is_strange, surprise
from egressd.detect.behaviour.sketch import MARKS, marks


def times(gaps: list[float]) -> list[int]:
    found = [0]
    for gap in gaps:
        found.append(found[-1] + round(gap * 10))
    return found


def score(gaps: list[float]) -> int:
    found = regularity(times(gaps))
    return found.score() if found is not None else 0


@pytest.mark.parametrize("jitter", [0.0, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("every_s", [60, 600, 3_600])
def test_beacons_score(jitter: float, every_s: int) -> None:
    draw = random.Random(round(jitter * 100) + every_s)
    runs = [score([every_s * draw.uniform(1 - jitter, 1 + jitter) for _ in range(12)]) for _ in range(200)]
    assert sorted(runs)[10] >= 65, "19 of 20"


def test_a_beacon_that_misses_a_few_contacts_scores() -> None:
    assert score([300, 300, 900, 300, 300, 300, 600, 300, 300, 300, 300, 300]) >= 70


@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5])
def test_people_do_not_score(sigma: float) -> None:
    draw = random.Random(5)
    runs = [score([draw.lognormvariate(5, sigma) for _ in range(12)]) for _ in range(2_000)]
    assert sum(run >= 60 for run in runs) <= 2 + 20 * (sigma < 1)


def test_chance_does_not_score() -> None:
    draw = random.Random(6)
    runs = [score([draw.expovariate(1 / 600) for _ in range(9)]) for _ in range(5_000)]
    assert sum(run >= 60 for run in runs) <= 3


def test_few_contacts_and_conversations_do_not_score() -> None:
    assert regularity(times([60.0] * (LEAST_INTERVALS - 1))) is None
    assert score([1.0] * 20) == 0


def test_more_contacts_are_surer() -> None:
    scores = [score([300.0] * count) for count in range(6, 16)]
    assert scores == sorted(scores)
    assert scores[0] < 80
    assert scores[-1] == 100


def test_reason_for_people() -> None:
    found = regularity(times([300.0, 330.0, 270.0, 300.0, 310.0, 290.0, 300.0]))
    assert found is not None
    assert found.reason(8) == "8 contacts, one every 5.0 min (give or take 3 %)"


@given(st.lists(st.integers(0, 1 << 32), max_size=25))
def test_total(found: list[int]) -> None:
    result = regularity(sorted(found))
    assert result is None or 0 <= result.score() <= 100


@given(st.integers(1, 30))
def test_surprise_grows_with_hits(count: int) -> None:
    bits = [surprise_bits(hits, count) for hits in range(1, count + 1)]
    assert bits == sorted(bits)


# -- letters and sketches


@given(st.text(alphabet="ab09-é", max_size=60) | st.sampled_from(["a" * 255 + "b", "a" * 256 + "b", "ab" * 300]))
def test_entropy_is_shannons(text: str) -> None:
    shares = [count / len(text) for count in Counter(text).values()]
    assert entropy_bits(text) == pytest.approx(-sum(share * log2(share) for share in shares), abs=1e-9)


@pytest.mark.parametrize(
    "label", ["timetable", "photographers", "nachrichten", "cityoffice", "stackoverflow", "yomiuri"]
)
def test_words_are_not_strange(label: str) -> None:
    assert not is_strange(label)


@pytest.mark.parametrize("label", ["xkqzvjwpfhtr", "q7x2m9zk4vw8", "bvqkxjzhwtgf"])
def test_drawn_labels_are_strange(label: str) -> None:
    assert is_strange(label)


def test_a_label_in_a_label_form_says_nothing() -> None:
    assert not is_strange("xn--kqz7x2m9zk4vw")


@given(st.text(max_size=80))
def test_surprise_is_total_and_bounded(text: str) -> None:
    assert 0.0 <= surprise(text) <= 10.0


@given(st.sets(st.integers(0, MARKS - 1)))
def test_a_sketch_never_counts_fewer_than_its_bits(found: set[int]) -> None:
    sketch = sum(1 << one for one in found)
    assert marks(sketch) >= len(found)
