"""Zeek's intelligence files (docs.zeek.org, Intelligence Framework): columns between TABs, named by `#fields`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from egressd.intel.entries import ADDRESS, DOMAIN, NETWORK, parse_entry
from egressd.intel.formats.fields import join_ref, parse_moment, parse_percent, parse_url
from egressd.intel.formats.judgement import ALLOWANCE, Found, Ignored, Judge, Rules, tidy
from egressd.intel.lines import MAX_LINE, Word, Wrong, problem_at, show, split_lines
from egressd.plural import count

OTHER_TYPE: Final = "an indicator of another type (files, hashes, mail, users, software ...)"

_KINDS: Final = {
    "Intel::DOMAIN": (DOMAIN,),
    "Intel::ADDR": (ADDRESS,),
    "Intel::SUBNET": (ADDRESS, NETWORK),
    "Intel::URL": (),
}
_OTHERS: Final = frozenset(
    {"Intel::SOFTWARE", "Intel::EMAIL", "Intel::USER_NAME", "Intel::FILE_HASH", "Intel::FILE_NAME"}
    | {"Intel::CERT_HASH", "Intel::PUBKEY_HASH"}
)


def read_zeek(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of intelligence files."""
    judge = Judge(source, rules)
    header: list[str] = []
    for number, line in enumerate(split_lines(text), 1):
        bare = line.rstrip("\r")
        if not bare.strip():
            continue
        try:
            if bare.startswith("#fields"):
                header = bare.split("\t")[1:]
                if "indicator" not in header or "indicator_type" not in header:
                    header = []
                    raise Wrong(1, "no columns indicator and indicator_type", "names are separated by one TAB each")
            elif bare[0] != "#":
                yield _read_line(judge, number, bare, header)
        except Wrong as wrong:
            yield problem_at(source, number, wrong)


def _read_line(judge: Judge, number: int, line: str, header: list[str]) -> Found:
    """Raises Wrong."""
    if not header:
        raise Wrong(1, "an indicator before any #fields line", "begin with #fields, indicator, indicator_type, by TABs")
    if len(line) > MAX_LINE:
        raise Wrong(MAX_LINE + 1, f"the line is longer than {MAX_LINE} characters", "put one indicator on a line")
    values = line.split("\t")
    if len(values) != len(header):
        what = f"{count(len(values), 'column')}, where #fields has {len(header)}"
        raise Wrong(1, what, "columns are separated by one TAB each, no spaces; - stands for an empty one")
    row = dict(zip(header, ("" if value in ("-", "(empty)") else value for value in values), strict=True))
    kind = row["indicator_type"]
    at = header.index("indicator")
    word = Word(row["indicator"].strip(), sum(map(len, values[:at])) + at + 1)
    if kind in _OTHERS:
        return Ignored(number, OTHER_TYPE)
    kinds = _KINDS.get(kind)
    if kinds is None:
        raise Wrong(1, f'unknown indicator_type "{show(kind)}"', "known are " + ", ".join(_KINDS))
    if row.get("meta.whitelist") == "T":
        return Ignored(number, ALLOWANCE)
    entry = parse_entry(word) if kinds else parse_url(word)
    if kinds and entry.kind not in kinds:
        raise Wrong(word.column, f'not of the type {kind}: "{show(word.text)}"', "check the type")
    default = judge.default
    said = default._replace(
        threat=default.threat or tidy(row.get("meta.desc", "")),
        confidence=parse_percent(row.get("meta.confidence", ""), 1, "meta.confidence", default.confidence),
        ref=join_ref(row.get("meta.url", "")),
        owner=tidy(row.get("meta.source", "")),
        first_seen_s=parse_moment(row.get("meta.first_seen", ""), 1, "meta.first_seen"),
    )
    return judge.take(entry, word.column, number, said)
