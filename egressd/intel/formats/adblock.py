"""AdBlock and AdGuard DNS filter syntax (adguard-dns.io/kb/general/dns-filtering-syntax): `||name^`, names alone and
lines of hosts files are taken. A rule that asks for more than a whole name, or only sometimes, lists nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from egressd.intel.entries import parse_entry
from egressd.intel.formats.hosts import read_hosts_line
from egressd.intel.formats.judgement import ALLOWANCE, Found, Ignored, Judge, Rules
from egressd.intel.lines import Word, Wrong, problem_at, split_lines
from egressd.intel.networks import parse_address

COSMETIC: Final = "a cosmetic rule: hides parts of pages"
EXPRESSION: Final = "a regular expression"
PATTERN: Final = "a pattern that is no whole name"
CONDITION: Final = "blocks on a condition or answers otherwise ($client, $denyallow, $dnsrewrite, $third-party ...)"
UNKNOWN: Final = "a modifier that is not known: the whole rule is left out"
SWITCH: Final = "switches another rule off ($badfilter)"
SWITCHED_OFF: Final = "switched off by a rule with $badfilter"

_RULE: Final = re.compile(r"\|\|(\*\.)?([^\^$|/*\s]+)\^\|?(?:\$(\S+))?")
_NO_NAME: Final = re.compile(r"[|^*$/\s]")
# A text alone is a name in filters for DNS and any part of a URL in those for browsers: -300x250.gif is no host.
_PART: Final = re.compile(
    r"[-_.&?=].*|.*\.(?:gif|jpe?g|png|webp|svg|swf|flv|mp4|js|css|json|xml|php\d?|html?|aspx?|jsp|cgi)", re.I | re.S
)
_COSMETIC: Final = re.compile(r"#@?(?:[?$%]{1,2})?#")
_TAKEN: Final = frozenset({"important", "all", "document", "doc"})  # whatever is asked of the name is blocked
_CONDITIONS: Final = frozenset(
    {"app", "client", "ctag", "denyallow", "dnsrewrite", "dnstype", "domain", "from", "to", "method", "popup", "script"}
    | {"image", "stylesheet", "object", "xmlhttprequest", "xhr", "subdocument", "frame", "ping", "websocket", "other"}
    | {"third-party", "3p", "first-party", "1p", "match-case", "network", "csp", "redirect", "removeparam", "header"}
    | {"generichide", "genericblock", "elemhide", "media", "font", "strict1p", "strict3p", "badfilter"}
)


def read_adblock(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of AdBlock and DNS filter lists."""
    judge = Judge(source, rules)
    plain = judge.plain
    off = _switched_off(text)
    for number, line in enumerate(split_lines(text), 1):
        rule = line.strip()
        if not rule or rule[0] == "!":
            continue
        if off and rule in off:
            yield Ignored(number, SWITCHED_OFF)
            continue
        found = None
        if rule[-1] == "^" and rule.startswith("||"):
            found = plain(rule[2:-1], number)
        elif _PART.fullmatch(rule) is None:
            found = plain(rule, number)
        if found is not None:
            yield found
        else:
            yield from _read_rule(judge, number, line, rule)


def _switched_off(text: str) -> frozenset[str]:
    if "badfilter" not in text:
        return frozenset()
    off = set()
    for line in split_lines(text):
        rule, dollar, modifiers = line.strip().rpartition("$")
        rest = modifiers.split(",")
        if dollar and "badfilter" in rest:
            kept = ",".join(one for one in rest if one != "badfilter")
            off.add(f"{rule}${kept}" if kept else rule)
    return frozenset(off)


def _read_rule(judge: Judge, number: int, line: str, rule: str) -> list[Found]:
    if _COSMETIC.search(rule) is not None:
        return [Ignored(number, COSMETIC)]
    if rule[0] == "#" or (rule.lower().startswith("[ad") and rule[-1] == "]"):
        return []  # a comment, the header that names the dialect
    if rule.startswith("@@"):
        return [Ignored(number, ALLOWANCE)]
    if rule[0] == "/" and rule.rpartition("$")[0].endswith("/") | rule.endswith("/"):
        return [Ignored(number, EXPRESSION)]
    rule = rule.partition(" #")[0].rstrip()
    column = len(line) - len(line.lstrip()) + 1
    first = rule.split(None, 1)[0]
    if parse_address(first.partition("%")[0]) and first != rule:
        return read_hosts_line(judge, number, line)
    found = _RULE.fullmatch(rule)
    if found is None:
        if _NO_NAME.search(rule) is not None or "." not in rule or _PART.fullmatch(rule) is not None:
            return [Ignored(number, PATTERN)]
        return _take(judge, number, Word(rule, column))
    subtree, name, modifiers = found.groups(default="")
    if modifiers:
        names = {one.partition("=")[0].lstrip("~") for one in modifiers.split(",")}
        if "badfilter" in names:
            return [Ignored(number, SWITCH)]
        if not names <= _TAKEN:
            return [Ignored(number, CONDITION if names <= _TAKEN | _CONDITIONS else UNKNOWN)]
    return _take(judge, number, Word(subtree + name, column + 2))


def _take(judge: Judge, number: int, word: Word) -> list[Found]:
    try:
        entry = parse_entry(word)
    except Wrong as wrong:
        return [problem_at(judge.source, number, wrong)]
    return [judge.take(entry, word.column, number)]
