"""How values stand in the ledger's columns: ids, matches, counts by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final

from egressd.model import Indicator, Match
from egressd.store.errors import CORRUPT, StoreError, refused

DECISION: Final = "D"
INCIDENT: Final = "I"
CAMPAIGN: Final = "C"
ENTRY: Final = "E"
_WORDS: Final = {DECISION: "decision", INCIDENT: "incident", CAMPAIGN: "campaign", ENTRY: "entry"}
_TABLES: Final = {DECISION: "decisions", INCIDENT: "incidents", CAMPAIGN: "campaigns", ENTRY: "entries"}
_MAX_DIGITS: Final = 18  # stays inside SQLite's 64 bits
MAX_GIVEN: Final = 10**17  # no number of a row, nor a sum of counts or a time, comes near: beyond it a value is damaged


def number_of(id_: str, kind: str) -> int:
    """`D12` -> 12. Raises StoreError for what is no id of that kind."""
    digits = id_[1:]
    if id_[:1] != kind or not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
        raise refused(f"{id_!a} is no {_WORDS[kind]}'s id; those look like {kind}12")
    return int(digits)


def campaign_number(id_: str) -> int:
    """A campaign's number, 0 for "", which is none."""
    return number_of(id_, CAMPAIGN) if id_ else 0


def campaign_id(number: int) -> str:
    """The other way; a damaged number is none."""
    return f"{CAMPAIGN}{number}" if is_given(number) else ""


def is_given(number: int) -> bool:
    """Whether a number may be one that was given out; else it is damaged."""
    return 0 < number <= MAX_GIVEN


def is_count(value: int) -> bool:
    """Whether a value may be a count, or a sum of them; else it is damaged."""
    return 0 <= value <= MAX_GIVEN


def parse_count(text: str) -> int | None:
    """A count or a time that stands as text; None when that is damaged."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and is_count(int(text))
    return int(text) if is_number else None


def plus(column: str, more: str = "?") -> str:
    """SQL of a count, or a time, and `more`: never beyond what a column holds, which would refuse all that is written
    along with it. The names are the caller's own words."""
    return bounded(f"{column} + {more}")


def bounded(expression: str) -> str:
    """SQL of a count or a time as far as it may be one. The words are the caller's own."""
    return f"CAST(max(0, min({expression}, {MAX_GIVEN})) AS INTEGER)"


def last_numbers(connection: Connection) -> dict[str, int]:
    """The number given out last of each kind; where that is damaged, the highest that there is."""
    known = dict(connection.execute("SELECT kind, last FROM numbers"))
    found: dict[str, int] = {}
    for kind, table in _TABLES.items():
        of_rows = f"SELECT coalesce(max(number), 0) FROM {table} WHERE number <= {MAX_GIVEN}"
        last = known.get(kind, 0)
        found[kind] = max(0, connection.execute(of_rows).fetchone()[0], last if is_given(last) else 0)
    return found


def mend_numbers(connection: Connection) -> None:
    """Go on from `last_numbers`: a damaged one had every further row refused."""
    connection.executemany(
        "INSERT INTO numbers VALUES(?, ?) ON CONFLICT(kind) DO UPDATE SET last = excluded.last"
        " WHERE last <> excluded.last",
        last_numbers(connection).items(),
    )


def next_number(connection: Connection, kind: str) -> int:
    """The next number of a kind; given out once in the ledger's life."""
    row = connection.execute("UPDATE numbers SET last = last + 1 WHERE kind = ? RETURNING last", (kind,)).fetchone()
    return int(row[0])


def claim_number(connection: Connection, id_: str, kind: str) -> int:
    """The number of an id that somebody else gave out; later ones will be higher."""
    number = number_of(id_, kind)
    connection.execute("UPDATE numbers SET last = max(last, ?) WHERE kind = ?", (number, kind))
    return number


def render_match(match: Match) -> str:
    """A match as ASCII JSON."""
    return _dump(match._asdict() | {"indicator": match.indicator._asdict()})


def parse_match(text: str) -> Match:
    """The other way. Fields that this version does not know are left out, those that are missing are empty: a row may
    come from another version. Raises StoreError for what is no match."""
    row = _load(text)
    inner = row.get("indicator", {})
    if not isinstance(inner, dict):
        raise StoreError("a match in the ledger has no indicator", CORRUPT)
    return Match(
        level=str(row.get("level", "")),
        indicator=Indicator(**{name: _field(inner, name, type_) for name, type_ in _INDICATOR.items()}),
        registered_domain=str(row.get("registered_domain", "")),
        suffix_rule=str(row.get("suffix_rule", "")),
    )


_INDICATOR: Final[dict[str, type]] = {
    name: int if name in ("line", "confidence", "added_s", "expires_s", "first_seen_s") else str
    for name in Indicator._fields
}


def _field(row: dict[str, Any], name: str, type_: type) -> Any:
    value = row.get(name)
    is_damaged = isinstance(value, int) and abs(value) > MAX_GIVEN
    return value if isinstance(value, type_) and not is_damaged else type_()


def indicator_of(match: Match) -> dict[str, Any]:
    """What people are shown of an indicator."""
    indicator = match.indicator
    shown = {
        "value": indicator.value,
        "source": indicator.source,
        "line": indicator.line,
        "threat": indicator.threat,
        "confidence": indicator.confidence,
    }
    if match.level == "behaviour":
        shown["said"] = indicator.ref  # what was seen, in words
    return shown


def render_counts(counts: dict[str, int]) -> str:
    """Counts by name as ASCII JSON, in order of arrival."""
    return _dump(counts)


def parse_counts(text: str) -> dict[str, int]:
    """The other way. Raises StoreError."""
    return {str(name): count for name, count in _load(text).items() if isinstance(count, int) and is_count(count)}


def render_addresses(addresses: Sequence[bytes]) -> str:
    """Packed addresses as a JSON list of hexadecimal texts."""
    return _dump([one.hex() for one in addresses])


def parse_addresses(text: str) -> list[bytes]:
    """The other way. Raises StoreError."""
    try:
        found = [bytes.fromhex(one) for one in parse_texts(text)]
    except ValueError as error:
        raise StoreError("a column of addresses of the ledger cannot be read", CORRUPT) from error
    if any(len(one) not in (4, 16) for one in found):
        raise StoreError("a column of addresses of the ledger holds something else", CORRUPT)
    return found


def render_texts(texts: Sequence[str]) -> str:
    """Texts as an ASCII JSON list."""
    return _dump(list(texts))


def parse_texts(text: str) -> list[str]:
    """The other way. Raises StoreError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError("a JSON column of the ledger cannot be read", CORRUPT) from error
    if not isinstance(value, list):
        raise StoreError("a JSON column of the ledger is no list", CORRUPT)
    return [one for one in value if isinstance(one, str)]


def render_reasons(reasons: Mapping[str, str]) -> str:
    """Reasons by id as ASCII JSON."""
    return _dump(dict(reasons))


def parse_reasons(text: str) -> dict[str, str]:
    """The other way. Raises StoreError."""
    return {str(id_): reason for id_, reason in _load(text).items() if isinstance(reason, str)}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def _load(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError("a JSON column of the ledger cannot be read", CORRUPT) from error
    if not isinstance(value, dict):
        raise StoreError("a JSON column of the ledger is no object", CORRUPT)
    return value
