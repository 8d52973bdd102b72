"""Rules of a policy: each condition as a table, the first that applies decides, and what never decides is found."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.rule_order import dead_rules
from egressd.detect.rules import (
    ALERT,
    ASK,
    BLOCK,
    FACTS,
    FLAG,
    LEVELS,
    NO_RULE,
    NUMBER,
    OUTCOMES,
    TIME,
    WORD,
    Condition,
    Facts,
    Rule,
    Rules,
    default_rules,
    failed,
    failing,
    holds,
    told,
)

MONDAY_8 = 1_704_096_000  # 2024-01-01, a Monday, 08:00 UTC
DAY = 1_440

# condition, facts that satisfy it, facts that do not, how it is told
TABLE = [
    (Condition("match", words=("host", "sibling")), Facts("sibling"), Facts("url"), "match host or sibling"),
    (Condition("confidence", ((0, 49),)), Facts(confidence=49), Facts(confidence=50), "confidence 0 to 49"),
    (Condition("confidence", ((50, 100),)), Facts(confidence=50), Facts(confidence=49), "confidence 50 or more"),
    (Condition("threat", words=("ransom*",)), Facts(threat="Ransomware"), Facts(threat="ad"), "threat ransom*"),
    (Condition("source", words=("feed-*",)), Facts(source="feed-a"), Facts(source="l.txt"), "source feed-*"),
    (Condition("source_score", ((0, 100),)), Facts(source_score=0), Facts(), "source_score 0 or more"),
    (Condition("evidence", words=("E2",)), Facts(evidence="E2"), Facts(), "evidence E2"),
    (Condition("sources", ((2, 64),)), Facts(sources=2), Facts(), "sources 2 or more"),
    (Condition("segment", words=("lab", "")), Facts(segment=""), Facts(segment="office"), "segment lab or (none)"),
    (Condition("tag", words=("printer",)), Facts(tags=("a", "printer")), Facts(), "tag printer"),
    (Condition("popular", ((1, 1),)), Facts(popular=True), Facts(), "popular"),
    (Condition("popular", ((0, 0),)), Facts(), Facts(popular=True), "not popular"),
    (Condition("clients", ((3, 1_000_000),)), Facts(clients=3), Facts(clients=2), "clients 3 or more"),
    (Condition("share", ((0, 10),)), Facts(share=10), Facts(share=11), "share 0 to 10"),
    (Condition("score", ((80, 100),)), Facts(score=80), Facts(score=79), "score 80 or more"),
    (Condition("detector", words=("bea*",)), Facts(detectors=("dga", "beacon")), Facts(), "detector bea*"),
    (
        Condition("time", ((8 * 60, 18 * 60 - 1),), ("UTC",)),
        Facts(ts_s=MONDAY_8),
        Facts(ts_s=MONDAY_8 - 1),
        "time mon 08:00-17:59 UTC",
    ),
    (
        Condition("time", ((9 * 60, 9 * 60),), ("Europe/Berlin",)),
        Facts(ts_s=MONDAY_8),
        Facts(ts_s=MONDAY_8 + 60),
        "time mon 09:00-09:00 Europe/Berlin",
    ),
]


@pytest.mark.parametrize(("condition", "yes", "no", "words"), TABLE, ids=[row[3] for row in TABLE])
def test_a_condition(condition: Condition, yes: Facts, no: Facts, words: str) -> None:
    rule = Rule("r", (condition,), BLOCK)
    assert holds(condition, yes) and failing(rule, yes) is None
    assert not holds(condition, no) and failing(rule, no) == condition
    assert told(condition) == words
    assert failed(condition, no).startswith(words + ": it is ")


def test_every_fact_has_a_row() -> None:
    assert {row[0].fact for row in TABLE} == set(FACTS)


def test_the_first_that_applies_decides() -> None:
    broad, narrow = Rule("broad", (), ALERT), Rule("narrow", (Condition("match", words=("host",)),), BLOCK)
    assert Rules((narrow, broad)).choose(Facts()) == narrow
    assert Rules((narrow, broad)).choose(Facts("url")) == broad
    assert Rules((narrow,)).choose(Facts("url")) == NO_RULE and NO_RULE.outcome == ALERT


def test_the_shipped_rules_block_what_is_listed_and_never_a_behaviour() -> None:
    rules = default_rules(50)
    assert [rules.choose(Facts(level)).outcome for level in LEVELS] == [BLOCK] * 4 + [ALERT]
    assert rules.choose(Facts("behaviour", score=80)).outcome == ASK
    assert rules.choose(Facts(confidence=49)).name == "confidence"
    assert default_rules(0).choose(Facts(confidence=0)).name == "level-host"
    assert dead_rules(rules.rules) == []


def test_the_first_pattern_that_fits_gives_a_source_its_score() -> None:
    rules = Rules((), (("good-*", 90), ("*", 10)))
    assert (rules.score_of("good-feed"), rules.score_of("l.txt"), Rules(()).score_of("l.txt")) == (90, 10, -1)


# -- properties

WORDS = ("a", "b", "ab", "office", "E0", "E1", "beacon")
spans = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda two: ((min(two), max(two)),))


@st.composite
def conditions(draw: st.DrawFn, fact: str) -> Condition:
    known = FACTS[fact]
    if known.kind == NUMBER:
        return Condition(fact, draw(spans))
    if known.kind == FLAG:
        return Condition(fact, (draw(st.sampled_from(((0, 0), (1, 1)))),))
    if known.kind == TIME:
        first = draw(st.integers(0, 7 * DAY - 1))
        return Condition(fact, ((first, draw(st.integers(first, 7 * DAY - 1))),), ("UTC",))
    words = known.known or (*WORDS, *(("a*", "*", "?") if known.globs else ()))
    return Condition(fact, words=tuple(draw(st.lists(st.sampled_from(words), min_size=1, max_size=3, unique=True))))


@st.composite
def policies(draw: st.DrawFn) -> tuple[Rule, ...]:
    found = []
    for number in range(draw(st.integers(1, 6))):
        facts = draw(st.lists(st.sampled_from(sorted(FACTS)), max_size=3, unique=True))
        parts = tuple(draw(conditions(fact)) for fact in facts)
        found.append(Rule(f"r{number}", parts, draw(st.sampled_from(OUTCOMES)), line=number + 1))
    return tuple(found)


@st.composite
def seen(draw: st.DrawFn) -> Facts:
    """Facts as `Site.facts` makes them: a score only of behaviour, E0 of addresses and of nothing else listed."""
    level = draw(st.sampled_from(LEVELS))
    word, few = st.sampled_from(WORDS), st.integers(0, 100)
    behaves = level == "behaviour"
    return Facts(
        level, draw(few), draw(word), draw(word), draw(st.integers(-1, 100)),
        "E0" if level == "address" else draw(st.sampled_from(("E1", "E2"))), draw(st.integers(1, 64)), draw(word),
        tuple(draw(st.lists(word, max_size=2))), draw(st.booleans()), draw(st.integers(1, 100)), draw(few),
        draw(few) if behaves else 0, ("beacon",) if behaves else (), draw(st.integers(0, 2_000_000_000)),
    )  # fmt: skip


def plainly(rule: Rule, facts: Facts) -> bool:
    """A naive reading of what a rule says."""
    for condition in rule.conditions:
        fact = condition.fact
        value = {"tag": facts.tags, "detector": facts.detectors, "threat": facts.threat.lower()}.get(fact) or getattr(
            facts, fact, ()
        )
        if FACTS[fact].kind == TIME:
            minute = (facts.ts_s // 60 + 3 * DAY) % (7 * DAY)  # 1970-01-01 was a Thursday
            ok = any(low <= minute <= high for low, high in condition.spans)
        elif FACTS[fact].kind in (NUMBER, FLAG):
            ok = any(low <= int(value) <= high for low, high in condition.spans)
        else:
            texts = (value,) if FACTS[fact].kind == WORD else tuple(value)
            ok = any(fnmatchcase(text, word) for text in texts for word in condition.words)
        if not ok:
            return False
    return True


@given(policies(), seen())
def test_evaluation_agrees_with_a_naive_reading(rules: tuple[Rule, ...], facts: Facts) -> None:
    expected = next((rule for rule in rules if plainly(rule, facts)), NO_RULE)
    assert Rules(rules).choose(facts) == expected


@given(policies(), st.lists(seen(), min_size=1, max_size=30))
def test_a_rule_that_is_called_dead_is_never_chosen(rules: tuple[Rule, ...], many: list[Facts]) -> None:
    dead = {one.rule.name for one in dead_rules(rules)}
    assert not dead & {Rules(rules).choose(facts).name for facts in many}


def one(fact: str, *words: str, spans: tuple[tuple[int, int], ...] = ()) -> Condition:
    return Condition(fact, spans, words)


# conditions of an earlier rule on line 1, those of a later one, why the later one is dead
DEAD = [
    (
        [one("confidence", spans=((0, 60),))],
        [one("confidence", spans=((10, 20),))],
        "rule a on line 1 takes everything",
    ),
    ([], [one("match", "host")], "rule a on line 1 takes everything"),
    ([one("source", "feed-*")], [one("source", "feed-x")], "rule a on line 1 takes everything"),
    ([one("match", "url")], [one("match", "host"), one("score", spans=((10, 100),))], "is only of match behaviour"),
    ([one("match", "url")], [one("match", "address"), one("evidence", "E2")], "match address has evidence E0"),
    ([one("match", "url")], [one("match", "host"), one("evidence", "E0")], "evidence E0 is only of match address"),
]


@pytest.mark.parametrize(("earlier", "later", "reason"), DEAD)
def test_a_rule_that_never_decides_is_found(earlier: list[Condition], later: list[Condition], reason: str) -> None:
    rules = Rule("a", tuple(earlier), ALERT, line=1), Rule("b", tuple(later), BLOCK, line=2)
    (dead,) = dead_rules(rules)
    assert dead.rule.name == "b" and reason in dead.reason
