"""What `egressd explain --live` shows of the daemon's answer."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import wrap
from typing import Final

from egressd.cli.client import Answer
from egressd.cli.screen import Row, date, number, part, rows, text, texts
from egressd.cli.terminal import printable
from egressd.plural import count

_TIMES: Final = (("first seen", "first_seen_s"), ("added", "added_s"), ("until", "expires_s"))
_SAID: Final = ("threat", "ref", "owner")


def render_live(subject: str, answer: Answer) -> list[str]:
    """The daemon's answer for people."""
    one = answer.result
    listed = one.get("listed") is True
    head = f"LISTED, match level {text(one, 'match_level')}" if listed else "not listed"
    if one.get("held"):
        verb = "BLOCKED" if one.get("enforced") is True else "would be blocked"
        head += f"; {verb} {text(one, 'held')} by {text(part(one, 'decision'), 'id')}"
    said = [("registered domain", _of(one, "registered_domain")), ("suffix rule", _of(one, "suffix_rule"))]
    indicator = one.get("indicator")
    if isinstance(indicator, dict):
        said += _line(indicator, texts(one, "also"))
    feed = one.get("feed")
    if isinstance(feed, dict):
        said.append(("feed", _feed(feed)))
    said += [("guarded", _of(one, "guard")), ("protected", _of(one, "protected"))]
    said.append(("shared", _of(one, "shared")))
    said += [("allowance", _of(one, "allowance")), ("would", _of(one, "would"))]
    said += [("rule", line) for line in texts(one, "rules")]
    decision = one.get("decision")
    if isinstance(decision, dict):
        said.append(("decision", f"{text(decision, 'id')} {text(decision, 'state')}, by {text(decision, 'author')}"))
        said += [("because", _of(decision, "reason")), ("covers", ", ".join(texts(decision, "targets")))]
        said += [("not", one) for one in texts(decision, "spared")]
    said += [("incident", _incident(row)) for row in rows(one, "incidents")]
    said += [("in history", _of(one, "untold")), ("mode", answer.mode)]
    lines = [f"{printable(subject)}: {head}"]
    for what, words in said:
        if words:
            lines += wrap(words, 79, initial_indent=f"  {what:<19}", subsequent_indent=" " * 21, break_on_hyphens=False)
    return lines


def _of(row: Row, key: str) -> str:
    return text(row, key) if row.get(key) else ""


def _line(indicator: Row, also: list[str]) -> list[tuple[str, str]]:
    words = [f"confidence {number(indicator, 'confidence')}"]
    words += [f"{key} {text(indicator, key)}" for key in _SAID if indicator.get(key)]
    words += [f"{what} {_day(number(indicator, key))}" for what, key in _TIMES if number(indicator, key)]
    narrowed = _of(indicator, "narrowed")
    return [
        ("indicator", text(indicator, "value")),
        ("from", f"{text(indicator, 'source')}:{number(indicator, 'line')}"),
        ("also in", ", ".join(also)),
        ("says", ", ".join(words)),
        ("scope", text(indicator, "scope") + (f" ({narrowed})" if narrowed else "")),
    ]


def _feed(feed: Row) -> str:
    hits = f"{count(number(feed, 'hits'), 'contact')} met, {number(feed, 'unique_hits'):,} by it alone"
    judged = f"judged wrong {number(feed, 'false_positives')} and right {count(number(feed, 'confirmed'), 'time')}"
    size = count(number(feed, "indicators"), "indicator")
    return f"{text(feed, 'name')}: {text(feed, 'state')}, {size}; {hits}; {judged}"


def _incident(row: Row) -> str:
    counts = f"{count(number(row, 'contacts'), 'contact')}, {number(row, 'attempts'):,} after the decision"
    return f"{text(row, 'id')} {text(row, 'client')}: {counts}, last {date(row.get('last'))}"


def _day(epoch_s: int) -> str:
    try:
        return datetime.fromtimestamp(epoch_s, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):  # of a daemon of another version
        return "at no time"
