"""The exports of abuse.ch, by the names of their columns: URLhaus (CSV), ThreatFox and Feodo Tracker (CSV and JSON)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from egressd.intel.entries import URL, parse_entry
from egressd.intel.formats.fields import Columns, join_ref, parse_header, parse_host_port, parse_moment, parse_percent
from egressd.intel.formats.jsontext import JsonText, Record, begins_as_json
from egressd.intel.formats.judgement import Found, Ignored, Judge, Rules, tidy
from egressd.intel.lines import Word, Wrong, problem_at, show, split_lines

OFFLINE: Final = "not online any more"
COMPROMISED: Final = "a compromised site: what lives there is its victim's"
NOT_CONTROL: Final = "not command and control (threat_type is not botnet_cc)"
FILE_HASH: Final = "a file's hash"

_URLHAUS: Final = frozenset({"url", "dateadded"})
_THREATFOX: Final = frozenset({"ioc_value", "ioc_type", "threat_type"})
_FEODO: Final = frozenset({"dst_ip"})

Row = Columns | Record
ReadRow = Callable[[Judge, int, Row], Found]


def read_urlhaus(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of URLhaus' CSV. A URL stays one: it lies on a host that is often a victim's or shared."""
    yield from _read_csv(text, Judge(source, rules), _URLHAUS, _urlhaus_row)


def read_threatfox(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of ThreatFox' CSV and JSON exports and of its API's answers."""
    judge = Judge(source, rules)
    if begins_as_json(text):
        yield from _read_json(text, judge, _threatfox_row)
    else:
        yield from _read_csv(text, judge, _THREATFOX, _threatfox_row)


def read_feodo(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of Feodo Tracker's CSV and JSON. It may be empty: then no such server is known."""
    judge = Judge(source, rules)
    if begins_as_json(text):
        yield from _read_json(text, judge, _feodo_row)
    else:
        yield from _read_csv(text, judge, _FEODO, _feodo_row)


def _parse_header(line: str, needed: frozenset[str]) -> dict[str, int] | None:
    """Column numbers by name, when a line (or comment) holds the names needed."""
    try:
        header = parse_header(line.strip().lstrip("# "))
    except Wrong:
        return None
    return header if needed <= header.keys() else None


def _read_csv(text: str, judge: Judge, needed: frozenset[str], read: ReadRow) -> Iterator[Found]:
    header: dict[str, int] | None = None
    for number, line in enumerate(split_lines(text), 1):
        bare = line.strip()
        try:
            if not bare:
                continue
            if header is None:
                header = _parse_header(bare, needed)
                if header is not None or bare[0] == "#":
                    continue
                advice = "keep the header line, which names " + ", ".join(sorted(needed))
                raise Wrong(1, "a record before any header", advice)
            if bare[0] != "#":
                yield read(judge, number, Columns(line, header))
        except Wrong as wrong:
            yield problem_at(judge.source, number, wrong)


def _read_json(text: str, judge: Judge, read: ReadRow) -> Iterator[Found]:
    """Records in an array, in a member `data`, or in one array for each id."""
    document = JsonText(text)
    answer = "[" not in text and ":" in text  # an object with words in it only: an error, and no empty list
    try:
        for record in document.records(levels=2):
            try:
                if not record.members:
                    raise Wrong(1, "not a record with named values", "fetch it again")
                yield read(judge, record.line, record)
            except Wrong as wrong:
                yield problem_at(judge.source, record.line, record.wrong(wrong))
        if answer:
            raise Wrong(document.column, "no list of records in it", "look whether the server tells an error")
    except Wrong as wrong:
        yield problem_at(judge.source, document.line, wrong)


def _urlhaus_row(judge: Judge, number: int, row: Row) -> Found:
    word = row.word("url")
    entry = parse_entry(word)
    if entry.kind != URL:
        raise Wrong(word.column, f'not a URL: "{show(word.text)}"', "write it with http://")
    said = judge.default._replace(
        threat=judge.default.threat or tidy(row.get("threat")),
        ref=join_ref(row.get("urlhaus_link")),
        first_seen_s=parse_moment(row.get("dateadded"), 1, "dateadded"),
    )
    return judge.take(entry, word.column, number, said)


def _threatfox_row(judge: Judge, number: int, row: Row) -> Found:
    kind = row.get("ioc_type").lower()
    if kind.endswith("_hash"):
        return Ignored(number, FILE_HASH)
    if row.get("threat_type").lower() != "botnet_cc":
        return Ignored(number, NOT_CONTROL)
    if row.get("is_compromised").lower() in ("true", "1", "yes"):
        return Ignored(number, COMPROMISED)
    word = row.word("ioc_value") if row.get("ioc_value") else row.word("ioc")
    if kind not in ("ip:port", "domain", "url"):
        raise Wrong(word.column, f'unknown ioc_type "{show(kind)}"', "known are ip:port, domain, url and hashes")
    entry, port = parse_host_port(word)
    malware = row.get("malware_printable") or row.get("fk_malware") or row.get("malware")
    said = judge.default._replace(
        threat=judge.default.threat or tidy("" if malware == "Unknown malware" else malware),
        confidence=parse_percent(row.get("confidence_level"), 1, "confidence_level", judge.default.confidence),
        ref=join_ref(port, "" if row.get("reference") == "None" else row.get("reference")),
        first_seen_s=parse_moment(row.get("first_seen_utc") or row.get("first_seen"), 1, "first_seen"),
    )
    return judge.take(entry, word.column, number, said)


def _feodo_row(judge: Judge, number: int, row: Row) -> Found:
    if (row.get("c2_status") or row.get("status")).lower() != "online":
        return Ignored(number, OFFLINE)
    word = row.word("dst_ip") if row.get("dst_ip") else row.word("ip_address")
    port = row.get("dst_port") or row.get("port")
    said = judge.default._replace(
        threat=judge.default.threat or tidy(row.get("malware")),
        ref=join_ref(f"port {port}" if port else ""),
        first_seen_s=parse_moment(row.get("first_seen_utc") or row.get("first_seen"), 1, "first_seen"),
    )
    return judge.take(parse_entry(Word(word.text, word.column)), word.column, number, said)
