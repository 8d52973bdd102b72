"""Rules of the policy: conditions over plain facts, tried in order, the first that applies decides.

Read from YAML elsewhere (config/policy_file.py); here they are values. Nothing is evaluated for traffic that matches
nothing: a rule is asked about a sighting whose target is not blocked yet, or about what a detector says.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from egressd.model import BEHAVIOUR

# What is done. From `ask` on something waits for a person or is cut off.
IGNORE: Final = "ignore"
ALERT: Final = "alert"
ASK: Final = "ask"
BLOCK: Final = "block"
ISOLATE: Final = "isolate"
OUTCOMES: Final = (IGNORE, ALERT, ASK, BLOCK, ISOLATE)

LEVELS: Final = ("host", "sibling", "address", "url", BEHAVIOUR)
LISTED: Final = LEVELS[:4]
NAMES: Final = ("host", "sibling")  # levels at which a name was met: there a scope can be a host or a pair
EVIDENCE: Final = ("E0", "E1", "E2")

# How wide a decision may act. "" is as wide as the list and the evidence carry.
REGISTERED_DOMAIN: Final = "registered_domain"
HOST: Final = "host"
ADDRESS: Final = "address"
PAIR: Final = "pair"
CLIENT: Final = "client"
SCOPES: Final = (REGISTERED_DOMAIN, HOST, ADDRESS, PAIR, CLIENT)

DAY_MINUTES: Final = 1_440
UTC_NAME: Final = "UTC"
UNKNOWN: Final = -1  # a source that has no score

NUMBER: Final = "number"
FLAG: Final = "true or false"
WORD: Final = "word"  # one text
WORDS: Final = "words"  # several texts, of which one has to fit
TIME: Final = "time"


class Facts(NamedTuple):
    """What rules know of a sighting. `source` names the list or feed, `source_score` is -1 when it has none; `sources`
    counts the sensors that saw it; `share` is the percentage of the known clients that hit the same, of `clients` in
    number; `score` and `detectors` are a behaviour's. `ts_s` is packet time."""

    match: str = "host"
    confidence: int = 100
    threat: str = ""
    source: str = ""
    source_score: int = UNKNOWN
    evidence: str = "E1"
    sources: int = 1
    segment: str = ""
    tags: tuple[str, ...] = ()
    popular: bool = False
    clients: int = 1
    share: int = 0
    score: int = 0
    detectors: tuple[str, ...] = ()
    ts_s: int = 0


class Fact(NamedTuple):
    """How a condition on one fact is written: `kind` as above, `low` to `high` for numbers, `known` when only these
    words can stand there, `globs` when * and ? may."""

    kind: str
    low: int = 0
    high: int = 0
    known: tuple[str, ...] = ()
    globs: bool = False


FACTS: Final[dict[str, Fact]] = {
    "match": Fact(WORD, known=LEVELS),
    "confidence": Fact(NUMBER, 0, 100),
    "threat": Fact(WORD, globs=True),
    "source": Fact(WORD, globs=True),
    "source_score": Fact(NUMBER, 0, 100),
    "evidence": Fact(WORD, known=EVIDENCE),
    "sources": Fact(NUMBER, 1, 64),
    "segment": Fact(WORD),
    "tag": Fact(WORDS),
    "popular": Fact(FLAG, 0, 1),
    "clients": Fact(NUMBER, 1, 1_000_000),
    "share": Fact(NUMBER, 0, 100),
    "score": Fact(NUMBER, 0, 100),
    "detector": Fact(WORDS, globs=True),
    "time": Fact(TIME),
}


class Condition(NamedTuple):
    """What one fact has to be. Numbers and minutes of the week lie in one of `spans` (first and last); a text is one of
    `words`, or of several one is, which for `time` hold the zone."""

    fact: str
    spans: tuple[tuple[int, int], ...] = ()
    words: tuple[str, ...] = ()


class Rule(NamedTuple):
    """A rule of a policy. `conditions` hold all; `scope` "" is as wide as the list says; `ttl_s` 0 is as long as the
    indicator is listed; `ladder_s` are the terms of addresses that were found out, () the usual ones. `why` is its
    author's reason; `line` and `column` say where it stands."""

    name: str
    conditions: tuple[Condition, ...]
    outcome: str
    scope: str = ""
    ttl_s: int = 0
    ladder_s: tuple[int, ...] = ()
    why: str = ""
    line: int = 0
    column: int = 0


# The rule of a block for one client alone, which had caused its share of an hour's (budgets.py). Behind a colon follows
# the name of the rule that would have blocked for everybody: that one says for how long.
SHARE: Final = "share"


def is_share(rule: str) -> bool:
    """Whether what this rule decided is for one client alone."""
    return rule.partition(":")[0] == SHARE


class Rules(NamedTuple):
    """A policy. `scores` are those of sources, by name with * and ?, the first that fits counts; `origin` is the file
    that it was read from."""

    rules: tuple[Rule, ...]
    scores: tuple[tuple[str, int], ...] = ()
    origin: str = ""

    def score_of(self, source: str) -> int:
        """A source's score, UNKNOWN when it has none."""
        for pattern, score in self.scores:
            if fnmatchcase(source, pattern):
                return score
        return UNKNOWN

    def named(self, name: str) -> Rule | None:
        """The rule of that name, or behind `share:`; None when there is none."""
        name = name.removeprefix(f"{SHARE}:")
        for rule in self.rules:
            if rule.name == name:
                return rule
        return None

    def choose(self, facts: Facts) -> Rule:
        """The rule that decides."""
        for rule in self.rules:
            if failing(rule, facts) is None:
                return rule
        return NO_RULE


# What no rule speaks of is told to people and left as it is.
NO_RULE: Final = Rule("no-rule", (), ALERT, why="no rule of the policy applies")


def default_rules(block_confidence: int, ask_score: int = 80) -> Rules:
    """The policy that is shipped (config/policy.yaml has it with its reasons; a test holds them together)."""
    certain = Condition("confidence", ((0, block_confidence - 1),))
    rules = [Rule("confidence", (Condition("match", words=LISTED), certain), ALERT)] if block_confidence else []
    rules += [Rule(f"level-{level}", (Condition("match", words=(level,)),), BLOCK) for level in LISTED]
    behaves = Condition("match", words=(BEHAVIOUR,))
    volume = Condition("source", words=(f"{BEHAVIOUR}:volume",))
    rules.append(Rule("behaviour-volume", (behaves, volume), ALERT))
    rules.append(Rule("behaviour-strong", (behaves, Condition("score", ((ask_score, 100),))), ASK))
    rules.append(Rule("behaviour", (behaves,), ALERT))
    return Rules(tuple(rules), origin="the shipped policy")


def failing(rule: Rule, facts: Facts) -> Condition | None:
    """The first condition of a rule that does not hold; None when the rule applies."""
    for condition in rule.conditions:
        if not holds(condition, facts):
            return condition
    return None


def holds(condition: Condition, facts: Facts) -> bool:
    """Whether a condition holds."""
    fact = condition.fact
    kind = FACTS[fact].kind
    if kind == TIME:
        return _within(_minute_of_week(facts.ts_s, condition.words[0]), condition.spans)
    if kind in (NUMBER, FLAG):
        return _within(number_of(fact, facts), condition.spans)
    return any(_fits(text, condition.words) for text in texts_of(fact, facts))


def number_of(fact: str, facts: Facts) -> int:
    """A fact that is a number or a truth value."""
    if fact == "confidence":
        return facts.confidence
    if fact == "source_score":
        return facts.source_score
    if fact == "sources":
        return facts.sources
    if fact == "popular":
        return 1 if facts.popular else 0
    if fact == "clients":
        return facts.clients
    if fact == "share":
        return facts.share
    return facts.score


def texts_of(fact: str, facts: Facts) -> tuple[str, ...]:
    """The texts of a fact, one or several."""
    if fact == "match":
        return (facts.match,)
    if fact == "threat":
        return (facts.threat.lower(),)
    if fact == "source":
        return (facts.source,)
    if fact == "evidence":
        return (facts.evidence,)
    if fact == "segment":
        return (facts.segment,)
    if fact == "tag":
        return facts.tags
    return facts.detectors


def _within(number: int, spans: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= number <= high for low, high in spans)


def _fits(text: str, words: tuple[str, ...]) -> bool:
    return any(text == word or fnmatchcase(text, word) for word in words)


def _minute_of_week(ts_s: int, zone: str) -> int:
    """Monday 00:00 is 0."""
    where: tzinfo = UTC if zone == UTC_NAME else _zone(zone)  # UTC needs no time zone files
    local = datetime.fromtimestamp(ts_s, where)
    return local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # takes 0.6 MB of each packet process, and few have a rule that names a zone

    return ZoneInfo(name)


# -- in words


def told(condition: Condition) -> str:
    """A condition in words, such as `confidence 50 to 100`."""
    fact = FACTS[condition.fact]
    if fact.kind == FLAG:
        return condition.fact if condition.spans == ((1, 1),) else f"not {condition.fact}"
    if fact.kind == TIME:
        return f"time {', '.join(_day_time(*span) for span in condition.spans)} {condition.words[0]}"
    if fact.kind == NUMBER:
        parts = []
        for low, high in condition.spans:
            parts.append(f"{low} or more" if high >= fact.high else f"{low} to {high}" if low != high else str(low))
        return f"{condition.fact} {' or '.join(parts)}"
    return f"{condition.fact} {' or '.join(word or '(none)' for word in condition.words)}"


def failed(condition: Condition, facts: Facts) -> str:
    """Why a condition does not hold: what it wants and what is there."""
    kind = FACTS[condition.fact].kind
    if kind == TIME:
        minute = _minute_of_week(facts.ts_s, condition.words[0])
        return f"{told(condition)}: it is {_day_time(minute, minute).partition('-')[0]}"
    if kind in (NUMBER, FLAG):
        number = number_of(condition.fact, facts)
        there = "unknown" if number == UNKNOWN else str(number) if kind == NUMBER else "yes" if number else "no"
        return f"{told(condition)}: it is {there}"
    return f"{told(condition)}: it is {', '.join(texts_of(condition.fact, facts)) or 'none'}"


DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _day_time(first: int, last: int) -> str:
    day, minute = divmod(first, DAY_MINUTES)
    until = last % DAY_MINUTES
    return f"{DAYS[day]} {minute // 60:02}:{minute % 60:02}-{until // 60:02}:{until % 60:02}"
