"""CrowdSec's decisions: the local API's stream, `cscli decisions list` (JSON, raw) and the CSV that it imports.

They are about attackers, so what they ban is who comes in; what goes out to the same addresses is worth knowing, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from egressd.intel.entries import ADDRESS, NETWORK, parse_entry
from egressd.intel.formats.fields import Columns, join_ref, parse_header, parse_moment
from egressd.intel.formats.jsontext import JsonText, Record, begins_as_json
from egressd.intel.formats.judgement import Found, Ignored, Judge, Rules, tidy
from egressd.intel.lines import Word, Wrong, problem_at, show, split_lines
from egressd.units import DAY_S

TAKEN_BACK: Final = "a decision that was taken back"
OVER: Final = "its time is over"
NO_BAN: Final = "asks for less than a ban (captcha, throttle ...)"
OTHER_SCOPE: Final = "of another scope (country, AS, user ...)"
SIMULATED: Final = "simulated"

_UNITS_S: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION: Final = re.compile(r"(-?)((?:[0-9]{1,9}(?:\.[0-9]{1,18})?(?:ms|us|µs|ns|[dhms]))+)")
_PART: Final = re.compile(r"([0-9.]+)(ms|us|µs|ns|[dhms])")
_MAX_S: Final = 10 * 366 * DAY_S  # longer is for ever

Row = Columns | Record


def read_crowdsec(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of decisions. Lifetimes count from `rules.now_s`."""
    judge = Judge(source, rules)
    if begins_as_json(text):
        document = JsonText(text)
        try:
            yield from _read_json(document, judge)
        except Wrong as wrong:
            yield problem_at(source, document.line, wrong)
    else:
        yield from _read_csv(text, judge)


def _read_csv(text: str, judge: Judge) -> Iterator[Found]:
    header: dict[str, int] = {}
    for number, line in enumerate(split_lines(text), 1):
        bare = line.strip()
        if not bare or bare[0] == "#":
            continue
        try:
            if header:
                yield _decision(judge, number, Columns(line, header))
                continue
            header = parse_header(line)
            if not {"value", "ip"} & header.keys():
                header = {}
                raise Wrong(1, "no header line with a column value", "begin with a line such as duration,scope,value")
        except Wrong as wrong:
            yield problem_at(judge.source, number, wrong)


def _read_json(document: JsonText, judge: Judge) -> Iterator[Found]:
    """Raises Wrong."""
    if document.peek() == "[":
        for _ in document.elements():
            if document.peek() == "{" and "decisions" in document.fork().record().members:
                for key in document.members():  # an alert, whose decisions are what counts
                    if key == "decisions":
                        yield from _decisions(document, judge)
            else:
                yield _from_record(document.record(), judge)
    else:
        known = False
        for key in document.members():
            known = known or key in ("new", "deleted", "decisions")
            if key == "new" or key == "decisions":
                yield from _decisions(document, judge)
            elif key == "deleted" and document.peek() == "[":
                for _ in document.elements():
                    yield Ignored(document.record().line, TAKEN_BACK)
        if not known:
            raise Wrong(document.column, "no decisions in it", "look whether the server tells an error")
    document.end()


def _decisions(document: JsonText, judge: Judge) -> Iterator[Found]:
    """Raises Wrong."""
    if document.peek() == "[":  # null, where there are none
        for _ in document.elements():
            yield _from_record(document.record(), judge)


def _from_record(record: Record, judge: Judge) -> Found:
    try:
        return _decision(judge, record.line, record)
    except Wrong as wrong:
        return problem_at(judge.source, record.line, record.wrong(wrong))


def _decision(judge: Judge, number: int, row: Row) -> Found:
    """Raises Wrong."""
    scope, word = row.get("scope").lower() or "ip", row.word("value")
    if not word.text and ":" in row.get("ip"):  # `cscli decisions list -o raw` writes Ip:192.0.2.1
        scope, _, value = row.get("ip").partition(":")
        scope, word = scope.lower(), Word(value, row.word("ip").column)
    if scope not in ("ip", "range"):
        return Ignored(number, OTHER_SCOPE)
    if (row.get("type") or row.get("action") or "ban").lower() != "ban":
        return Ignored(number, NO_BAN)
    if row.get("simulated").lower() == "true":
        return Ignored(number, SIMULATED)
    now_s = judge.rules.now_s
    lifetime_s = _parse_duration(row.get("duration") or row.get("expiration"))
    until_s = parse_moment(row.get("until"), 1, "until")
    if (lifetime_s is not None and lifetime_s <= 0) or 0 < until_s <= now_s:
        return Ignored(number, OVER)
    counted_s = now_s + lifetime_s if now_s and lifetime_s is not None and lifetime_s < _MAX_S else 0
    entry = parse_entry(word)
    if entry.kind not in (ADDRESS, NETWORK):
        raise Wrong(word.column, f'not an address or network: "{show(word.text)}"', "check the scope")
    said = judge.default._replace(
        threat=judge.default.threat or tidy(row.get("scenario") or row.get("reason")),
        expires_s=until_s or counted_s,
        ref=join_ref(row.get("origin") or row.get("source")),
    )
    return judge.take(entry, word.column, number, said)


def _parse_duration(text: str) -> int | None:
    """Seconds of a Go duration such as `3h59m50.5s`, None when it is left out. Raises Wrong."""
    if not text.strip():
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise Wrong(1, f'not a duration: "{show(text)}"', "write it as 4h or 30m")
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(found[2]))
    return -int(seconds) if found[1] else int(seconds)
