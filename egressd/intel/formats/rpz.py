"""Response policy zones (draft-vixie-dnsop-dns-rpz-00) as zone files (RFC 1035 section 5.1).

Read are names and answered addresses (`rpz-ip`) whose policy is NXDOMAIN, NODATA, drop, or an address of no use. Own
line parser: 80 times as fast as a full zone reader, and lists of a million records are common.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from egressd.intel.entries import DOMAIN, Entry, parse_entry, parse_name
from egressd.intel.formats.hosts import REWRITE, SINKS
from egressd.intel.formats.judgement import ALLOWANCE, Found, Ignored, Judge, Rules
from egressd.intel.lines import MAX_LINE, Word, Wrong, problem_at, show, split_lines
from egressd.intel.networks import parse_address

OF_THE_ZONE: Final = "a record of the zone itself"
CLIENTS: Final = "is about clients (rpz-client-ip)"
NAME_SERVERS: Final = "is about name servers (rpz-nsdname, rpz-nsip)"
TCP_ONLY: Final = "asks clients to come again by TCP: no block"
OTHER_DATA: Final = "data beside the policy"

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|;.*|[()]|(?:\\.|[^\s;()"\\])+|["\\]')
_TTL: Final = re.compile(r"\d+(?:[smhdw]\d+)*[smhdw]?", re.I | re.ASCII)
_CLASSES: Final = frozenset({"IN", "CH", "HS", "ANY"})
_ZONE_TYPES: Final = frozenset({"SOA", "NS", "DNSKEY", "NSEC", "NSEC3", "NSEC3PARAM", "RRSIG", "ZONEMD"})
_BLOCKS: Final = frozenset({".", "*.", "rpz-drop."})
_MAX_LINES: Final = 100  # that one record in parentheses may take


def read_rpz(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of response policy zones."""
    zone = _Zone(Judge(source, rules))
    plain = zone.judge.plain
    for number, line in enumerate(split_lines(text), 1):
        words = line.split(None, 3)
        if len(words) == 3 and words[1:] == _NXDOMAIN and zone.is_flat and not zone.open_since and line[0] > " ":
            name = zone.owner = words[0]
            found = plain(name, number) if "rpz-" not in name else None
            if found is not None:
                yield found
                continue
        yield from zone.read(number, line)
    if zone.open_since:
        yield zone.unclosed()


_NXDOMAIN: Final = ["CNAME", "."]


class _Zone:
    """What lines of a zone file mean depends on those before: $ORIGIN, the owner, open parentheses."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        # Without their last dots, lower case: the zone's own name, "" as long as nothing tells it, and what relative
        # names go on with, None as long as that is taken to be the zone's name.
        self.zone = ""
        self.origin: str | None = None
        self.is_flat = True  # a relative name is what the zone says it of
        self.owner = ""
        self.open_since = 0  # line, while a parenthesis is open
        self._words: list[str] = []
        self._owned = False  # the record began with an owner

    def read(self, number: int, line: str) -> list[Found]:
        """What a line comes to; nothing while its record goes on."""
        try:
            if len(line) > MAX_LINE:
                raise Wrong(MAX_LINE + 1, f"the line is longer than {MAX_LINE} characters", "put one record on a line")
            return self._read(number, line)
        except Wrong as wrong:
            self.open_since = 0
            return [problem_at(self.judge.source, number, wrong)]

    def unclosed(self) -> Found:
        """The problem of a record that never ends."""
        wrong = Wrong(1, "a parenthesis is not closed: what follows it is not read", "close it")
        return problem_at(self.judge.source, self.open_since, wrong)

    def _read(self, number: int, line: str) -> list[Found]:
        if not self.open_since:
            self._words = []
            self._owned = line[:1] > " "
        depth = 1 if self.open_since else 0
        for token in _TOKEN.findall(line):
            if token == "(":
                depth = 1
            elif token == ")":
                depth = 0
            elif token[0] != ";":
                self._words.append(token)
        if depth:
            self.open_since = self.open_since or number
            if number - self.open_since >= _MAX_LINES:
                found = self.unclosed()
                self.open_since = 0
                return [found]
            return []
        first, self.open_since = self.open_since or number, 0
        return self._record(first, self._words) if self._words else []

    def _record(self, number: int, words: list[str]) -> list[Found]:
        """Raises Wrong."""
        if words[0][0] == "$":
            return self._directive(number, words)
        if self._owned:
            self.owner = words[0]
            words = words[1:]
        elif not self.owner:
            raise Wrong(1, "a record without an owner", "begin the line with a name")
        at = 0
        while at < len(words) and (words[at].upper() in _CLASSES or _TTL.fullmatch(words[at]) is not None):
            at += 1
        if at == len(words):
            raise Wrong(1, f'not a record: "{show(self.owner)}"', "lines are: name CNAME .")
        kind, values = words[at].upper(), words[at + 1 :]
        if kind in _ZONE_TYPES:
            if kind == "SOA":
                self._begins(_absolute(self.owner, self.origin))
            return [Ignored(number, OF_THE_ZONE)]
        if kind not in ("CNAME", "A", "AAAA"):
            return [Ignored(number, OTHER_DATA)]
        if len(values) != 1:
            raise Wrong(1, f"{kind} takes one value", "lines are: name CNAME .")
        return self._policy(number, kind, values[0])

    def _directive(self, number: int, words: list[str]) -> list[Found]:
        name = words[0].upper()
        if name == "$ORIGIN" and len(words) == 2:
            if not words[1].endswith(".") and not self.origin:
                raise Wrong(1, f'an origin without its last dot: "{show(words[1])}"', "write $ORIGIN rpz.example.")
            if self.owner and self.origin is not None:  # a record that names no owner has the last one, wherever it was
                self.owner = _absolute(self.owner, self.origin) + "."
            self.origin = _absolute(words[1], self.origin)
            below = self.zone and (self.origin == self.zone or self.origin.endswith("." + self.zone))
            self._begins(self.zone if below or not self.origin else self.origin)
            return []
        if name == "$TTL":
            return []
        raise Wrong(1, f'a directive that is not read: "{show(words[0])}"', "write the records out")

    def _begins(self, zone: str) -> None:
        """That is the zone's own name. Name servers write the names of a zone under many origins below it."""
        self.zone = zone or self.zone
        self.is_flat = self.origin is None or self.origin == self.zone or not self.zone

    def _policy(self, number: int, kind: str, value: str) -> list[Found]:
        name = self._relative()
        if not name:
            return [Ignored(number, OF_THE_ZONE)]
        value = value.lower()
        if kind == "CNAME":
            itself = (self.owner.lower(), name, f"{name}.{self.zone}")
            if value not in _BLOCKS and value.rstrip(".") in ("rpz-passthru", *itself):
                return [Ignored(number, ALLOWANCE)]  # the name as its own alias is how the first drafts wrote it
            if value == "rpz-tcp-only.":
                return [Ignored(number, TCP_ONLY)]
            if value not in _BLOCKS:
                return [Ignored(number, REWRITE)]
        elif parse_address(value) not in SINKS:
            return [Ignored(number, REWRITE)]
        rest, _, last = name.rpartition(".")
        if last == "rpz-client-ip":
            return [Ignored(number, CLIENTS)]
        if last in ("rpz-nsdname", "rpz-nsip"):
            return [Ignored(number, NAME_SERVERS)]
        if last == "rpz-ip":
            entry = _parse_address_labels(rest)
        elif name == "*":
            raise Wrong(1, "* stands for every name there is", "list names")
        else:
            subtree = name.startswith("*.")
            entry = Entry(DOMAIN, parse_name(name[2:] if subtree else name, 1), subtree)
        return [self.judge.take(entry, 1, number)]

    def _relative(self) -> str:
        """The owner below the zone's own name, "" for that itself. Raises Wrong when it lies elsewhere."""
        name = self.owner.lower()
        if self.is_flat and not name.endswith("."):
            return "" if name == "@" else name
        name = _absolute(name, self.origin)
        if self.zone and (name == self.zone or name.endswith("." + self.zone)):
            return name[: -len(self.zone) - 1]
        what = f'not a name of this zone: "{show(self.owner)}"'
        raise Wrong(1, what, "leave the last dot out, or give the zone's name as $ORIGIN")


def _absolute(name: str, origin: str | None) -> str:
    """A name in full, without its last dot, lower case; "" when that is not known."""
    name = name.lower()
    if name.endswith("."):
        return name.rstrip(".")
    if not origin:
        return "" if origin is None or name == "@" else name
    return origin if name == "@" else f"{name}.{origin}"


def _parse_address_labels(text: str) -> Entry:
    """`32.7.113.0.203` and `48.zz.1.db8.2001`: prefix length, then the address from its end. Raises Wrong."""
    length, *parts = text.split(".")
    parts.reverse()
    if len(parts) == 4 and all(part.isdigit() for part in parts):
        address = ".".join(parts)
    else:
        address = ":".join("" if part == "zz" else part for part in parts)
        address = (":" if parts[:1] == ["zz"] else "") + address + (":" if parts[-1:] == ["zz"] else "")
    try:
        return parse_entry(Word(f"{address}/{length}" if parse_address(address) else "", 1))
    except Wrong as wrong:
        what = wrong.what if parse_address(address) else f'not an address in labels: "{show(text)}"'
        raise Wrong(1, what, "write prefix length and address from its end: 32.7.113.0.203.rpz-ip") from None
