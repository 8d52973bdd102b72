"""Hosts files: `0.0.0.0 name name  # comment`. Names under an address of no use are blocked ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from egressd.intel.entries import DOMAIN, Entry, parse_name
from egressd.intel.formats.judgement import Found, Ignored, Judge, Rules
from egressd.intel.lines import Word, Wrong, problem_at, show, split_comment, split_lines
from egressd.intel.networks import parse_address

SINKS: Final = frozenset(parse_address(text) for text in ("0.0.0.0", "127.0.0.1", "::", "::1"))
LOCAL_NAMES: Final = frozenset(
    {"localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0", "ip6-localhost", "ip6-loopback"}
    | {"ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts"}
)
LOCAL: Final = "names of the machine itself"
REWRITE: Final = "gives a name another address: a rewrite, no block"

_SINK_TEXTS: Final = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1"})


def read_hosts(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of hosts files."""
    judge = Judge(source, rules)
    plain = judge.plain
    for number, line in enumerate(split_lines(text), 1):
        addr, _, rest = line.partition(" ")
        if addr in _SINK_TEXTS:
            name = rest.strip()
            found = plain(name, number) if name not in LOCAL_NAMES else None
            if found is not None:
                yield found
                continue
        yield from read_hosts_line(judge, number, line)


def read_hosts_line(judge: Judge, number: int, line: str) -> list[Found]:
    """What one line comes to; nothing when it is blank or comment."""
    try:
        words = split_comment(line)[0]
        if not words:
            return []
        addr = parse_address(words[0].text.partition("%")[0])
        if not addr:
            raise Wrong(words[0].column, f'not an address: "{show(words[0].text)}"', "lines are: 0.0.0.0 name")
        if len(words) == 1:
            raise Wrong(words[0].column, "no name after the address", "lines are: 0.0.0.0 name")
        entries = parse_hosts(words[0], words[1:])
    except Wrong as wrong:
        return [problem_at(judge.source, number, wrong)]
    if entries is None:
        return [Ignored(number, REWRITE)]
    return judge.take_all(entries, number) or [Ignored(number, LOCAL)]


def parse_hosts(first: Word, names: list[Word]) -> list[tuple[Entry, int]] | None:
    """The blocked names of a hosts line and their columns, none when they are names of the machine itself; None when
    the address is no sink. Raises Wrong."""
    listed = [word for word in names if word.text.lower() not in LOCAL_NAMES]
    if not listed and parse_address(first.text.partition("%")[0]):
        return []
    if parse_address(first.text) not in SINKS:
        return None
    return [(Entry(DOMAIN, parse_name(word.text, word.column)), word.column) for word in listed]
