"""The policy file: the shipped one is what is built in, examples hold, each mistake is told at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.config.load import load_config, load_intel
from egressd.config.policy_conditions import Known
from egressd.config.policy_file import PolicyFile, check_examples, parse_policy
from egressd.config.settings import policy_settings
from egressd.detect.rules import Condition, Facts, default_rules

ROOT = Path(__file__).resolve().parent.parent.parent
SHIPPED = (ROOT / "config" / "policy.yaml").read_text(encoding="utf-8")
KNOWN = Known(("office", "lab"), ("printer",), 50)


def read(text: str, known: Known = KNOWN) -> PolicyFile:
    found, problems = parse_policy(text, "p.yaml", known)
    assert problems == []
    return found


def condition(text: str, known: Known = KNOWN) -> Condition:
    """The one condition of a rule, of which `text` is the YAML."""
    rules = read(f"rules:\n  - name: r\n    when: {{{text}}}\n    then: alert\n", known).rules.rules
    return rules[0].conditions[0]


@pytest.mark.parametrize("confidence", [1, 50, 100])
def test_the_shipped_policy_is_the_built_in_one(confidence: int) -> None:
    found = read(SHIPPED, Known((), (), confidence))
    plain = [one._replace(why="", line=0, column=0) for one in found.rules.rules]
    assert plain == list(default_rules(confidence).rules)
    assert all(one.why for one in found.rules.rules)


def test_the_shipped_policy_is_packaged_as_it_lies_in_config() -> None:
    assert (ROOT / "egressd" / "intel" / "data" / "policy.yaml").read_text(encoding="utf-8") == SHIPPED


def test_the_shipped_policy_holds_its_examples_and_has_one_for_every_rule() -> None:
    found = read(SHIPPED)
    assert check_examples(found) == []
    assert {one.rule for one in found.examples} == {one.name for one in found.rules.rules}


CONDITIONS = [
    ("match: host", Condition("match", words=("host",))),
    ("confidence: 70", Condition("confidence", ((70, 70),))),
    ("confidence: {above: 70}", Condition("confidence", ((71, 100),))),
    ("confidence: {min: 20, below: 40}", Condition("confidence", ((20, 39),))),
    ("confidence: {min: block_confidence}", Condition("confidence", ((50, 100),))),
    ("threat: [Ransom*, bot]", Condition("threat", words=("ransom*", "bot"))),
    ("segment: [lab, none]", Condition("segment", words=("lab", ""))),
    ("popular: no", Condition("popular", ((0, 0),))),
    ("time: {days: [mon-tue], hours: '08:00-18:00'}", Condition("time", ((480, 1079), (1920, 2519)), ("UTC",))),
    ("time: {days: sun, hours: '22:00-06:00'}", Condition("time", ((0, 359), (9960, 10079)), ("UTC",))),
    (
        "time: {days: sat-sun, zone: Europe/Berlin}",
        Condition("time", ((7200, 8639), (8640, 10079)), ("Europe/Berlin",)),
    ),
]


@pytest.mark.parametrize(("text", "expected"), CONDITIONS, ids=[text for text, _ in CONDITIONS])
def test_a_condition_is_read(text: str, expected: Condition) -> None:
    assert condition(text) == expected


def test_a_bound_that_the_option_switches_off_is_no_mistake() -> None:
    assert condition("confidence: {below: block_confidence}", Known()) == Condition("confidence", ((0, 49),))
    off = condition("confidence: {below: block_confidence}", Known((), (), 0))
    assert not any(low <= 0 <= high for low, high in off.spans)


def test_a_rule_in_full() -> None:
    text = """\
scores: {feed-*: 80}
rules:
  - name: narrow
    why: because
    when: {match: [host, sibling]}
    then: block
    scope: pair
    ttl: 2h
    escalation: [10m, 1d]
"""
    found = read(text).rules
    (rule,) = found.rules
    assert (rule.scope, rule.ttl_s, rule.ladder_s, rule.why, rule.line) == ("pair", 7200, (600, 86_400), "because", 3)
    assert found.score_of("feed-x") == 80 and found.origin == "p.yaml"


# what stands under rules:, and what is said of it
BAD = [
    ("[]", "1:8: there are no rules"),
    ("- {name: a, then: block, when: {match: [host, behaviour]}}", "2:21: rule a: would block for everybody by behav"),
    ("- {name: a, then: block}", "2:21: rule a: would block for everybody by behaviour alone"),
    ("- {name: a, then: blok}", '2:21: rule a: then: cannot be "blok"; did you mean "block"?'),
    ("- {name: a}", "2:5: rule a: does not say what to do; add then:"),
    ("- {then: alert}", "2:5: rule: has no name"),
    ("- {name: protected, then: alert}", "2:12: rule protected: is a name of egressd's own"),
    ("- {name: A, then: alert}", "2:12: rule A: cannot be a rule's name"),
    ("- {name: a, then: alert, whem: {}}", "2:28: rule: whem: unknown key; known are name, why, when"),
    ("- {name: a, then: alert, when: {sgement: lab}}", "2:35: rule a: when: sgement: unknown condition"),
    ("- {name: a, then: alert, when: {segment: bar}}", "2:44: rule a: when.segment: there is no segment bar; segme"),
    ("- {name: a, then: alert, when: {tag: bar}}", "2:40: rule a: when.tag: there is no tag bar; tags are printer"),
    ("- {name: a, then: alert, when: {share: {min: 5, max: 4}}}", "2:42: rule a: when.share: no number satisfies it"),
    ("- {name: a, then: alert, when: {share: 101}}", "2:42: rule a: when.share: 101 is out of bounds; write a whole"),
    ("- {name: a, then: alert, when: {time: {hours: 8-9}}}", '2:49: rule a: when.time.hours: not hours: "8-9"'),
    ("- {name: a, then: alert, when: {time: {days: noon}}}", '2:48: rule a: when.time.days: not a day: "noon"'),
    ("- {name: a, then: alert, when: {time: {zone: Mars/X}}}", "2:48: rule a: when.time.zone: unknown time zone Mars"),
    ("- {name: a, then: alert, ttl: 2h}", "2:33: rule a: ttl has no meaning with then: alert; take it out"),
    ("- {name: a, then: ask, ttl: 2}", "2:31: rule a: ttl: needs text, not the number 2"),
    ("- {name: a, then: ask, ttl: 2y}", '2:31: rule a: ttl: not a time from a minute to a year: "2y"'),
    ("- {name: a, then: ask, escalation: [2h, 1h]}", "2:38: rule a: escalation: its steps get shorter"),
    ("- {name: a, then: ask, scope: pair}", "2:33: rule a: scope pair is of names; write match: [host, sibling]"),
    ("- {name: a, then: isolate, scope: host}", "2:37: rule a: isolate is about the client, not host"),
    ("- {name: a, then: ask, when: {match: url}, scope: address}", "2:53: rule a: scope address is of listed addresse"),
    ("- {name: a, then: alert}\n  - {name: a, then: ask}", "3:12: rule a: is the name of another rule, on line 2"),
    ("- {name: a, then: alert}\n  - {name: b, then: ask}", "3:5: rule b never decides: rule a on line 2 takes every"),
    (
        "- {name: a, then: alert, when: {match: host, score: {min: 3}}}",
        "2:5: rule a never decides: score 3 or more is only of match behaviour",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD, ids=[expected for _, expected in BAD])
def test_a_mistake_and_its_place(text: str, expected: str) -> None:
    whole = f"rules:\n  {text}\n" if text != "[]" else "scores: {}\n"
    expected = expected if text != "[]" else "1:1: there are no rules"
    _, problems = parse_policy(whole, "p.yaml", KNOWN)
    assert any(str(one).startswith(f"p.yaml:{expected}") for one in problems), [str(one) for one in problems]


@pytest.mark.parametrize(("text", "column"), [("rules: []\n", 8), ("rules:\n", 7), ("rules: ~\n", 8)])
def test_rules_of_which_there_are_none(text: str, column: int) -> None:
    """A policy by which nothing is blocked was taken."""
    _, problems = parse_policy(text, "p.yaml", KNOWN)
    assert [str(one).partition(",")[0] for one in problems] == [f"p.yaml:1:{column}: rules: there are no rules"]


def test_an_example_that_fails_says_what_came_out() -> None:
    text = "rules:\n  - {name: a, then: alert}\nexamples:\n  - {name: x, given: {match: url}, expect: ask}\n"
    (problem,) = check_examples(read(text))
    assert str(problem).startswith("p.yaml:4:5: example x: alert by a, expected ask; correct")


def test_an_example_of_no_rule_is_told() -> None:
    text = "rules:\n  - {name: a, then: alert}\nexamples:\n  - {name: x, expect: alert, rule: b}\n"
    _, problems = parse_policy(text, "p.yaml", KNOWN)
    assert [str(one) for one in problems] == ["p.yaml:4:5: example x: there is no rule b; rules are a"]


def test_facts_of_an_example_are_read() -> None:
    text = """\
rules: [{name: a, then: alert}]
examples:
  - name: x
    given: {match: address, tag: [printer], time: 2024-01-01T08:00Z, popular: yes, segment: lab, sources: 2}
    expect: alert
"""
    found = read(text).examples[0].facts
    assert found == Facts(
        "address", evidence="E0", tags=("printer",), ts_s=1_704_096_000, popular=True, segment="lab", sources=2
    )


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    found, problems = parse_policy(text, "p.yaml", KNOWN)
    assert problems or found.rules.rules


def test_the_configuration_names_its_policy(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("rules: [{name: a, when: {segment: lab}, then: ask}]\n", encoding="utf-8")
    config = tmp_path / "egressd.yaml"
    config.write_text(
        "policy: {file: p.yaml}\nsegments: {lab: [10.2.0.0/16]}\nmodes: {lab: enforce}\n", encoding="utf-8"
    )
    loaded = load_intel(load_config(config), base_dir=tmp_path)
    assert loaded.problems == [] and loaded.policy is not None
    settings = policy_settings(load_config(config), loaded.policy)
    assert [rule.name for rule in settings.rules_in_force().rules] == ["a"]
    assert (
        settings.site().mode_of(bytes((10, 2, 0, 1))) == "enforce" and settings.site().mode_of(b"\n\0\0\1") == "monitor"
    )
    (tmp_path / "p.yaml").write_text("rules: [{name: a, then: alert}]\n", encoding="utf-8")
    assert load_intel(load_config(config), base_dir=tmp_path).problems == []
