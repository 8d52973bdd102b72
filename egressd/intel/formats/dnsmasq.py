"""dnsmasq configuration (dnsmasq(8), --local, --address, --server): names that it answers with nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from egressd.intel.entries import DOMAIN, Entry, parse_name
from egressd.intel.formats.hosts import REWRITE
from egressd.intel.formats.judgement import ALLOWANCE, Found, Ignored, Judge, Rules
from egressd.intel.lines import MAX_LINE, Wrong, problem_at, show, split_lines

FORWARD: Final = "sends a name to another resolver: no block"
UNQUALIFIED: Final = "is about names without a dot"
OPTION: Final = "an option of dnsmasq that blocks no name"

_OPTION: Final = re.compile(r"(?:--)?([a-z][a-z0-9-]*)[ \t]*(?:=[ \t]*(.*))?", re.S)
_SINKS: Final = frozenset({"", "#", "0.0.0.0", "127.0.0.1", "::", "::1"})
_BLOCKING: Final = frozenset({"local", "address", "server"})


def read_dnsmasq(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of dnsmasq configuration."""
    judge = Judge(source, rules)
    plain = judge.plain
    for number, line in enumerate(split_lines(text), 1):
        option, _, rest = line.partition("=/")
        if option == "local" or option == "address":
            name, slash, value = rest.partition("/")
            if slash and value.strip() in _SINKS:
                found = plain(name, number)
                if found is not None:
                    yield found
                    continue
        try:
            yield from _read_line(judge, number, line)
        except Wrong as wrong:
            yield problem_at(source, number, wrong)


def _read_line(judge: Judge, number: int, line: str) -> list[Found]:
    """Raises Wrong."""
    if len(line) > MAX_LINE:
        raise Wrong(MAX_LINE + 1, f"the line is longer than {MAX_LINE} characters", "put one option on a line")
    bare = line.strip()
    if bare.startswith("#"):
        return []
    bare = re.split(r"\s#", bare, maxsplit=1)[0].rstrip()
    if not bare:
        return []
    found = _OPTION.fullmatch(bare)
    if found is None:
        raise Wrong(1, f'not an option of dnsmasq: "{show(bare)}"', "lines are: local=/name/")
    option, value = found[1], found[2] or ""
    if option not in _BLOCKING or not value.startswith("/"):
        return [Ignored(number, FORWARD if option in ("server", "local") else OPTION)]
    *names, target = value[1:].split("/")
    if not names:
        raise Wrong(1, f'the name does not end: "{show(bare)}"', "close it with a slash: local=/name/")
    target = target.strip()
    if option == "server" and target == "#":
        return [Ignored(number, ALLOWANCE)]  # to the usual resolvers, although a wider rule says otherwise
    if option in ("server", "local") and target:
        return [Ignored(number, FORWARD)]
    if target not in _SINKS:
        return [Ignored(number, REWRITE)]
    if not any(names):
        return [Ignored(number, UNQUALIFIED)]
    return judge.take_all(_parse_names(names, line), number)


def _parse_names(names: list[str], line: str) -> list[tuple[Entry, int]]:
    """Raises Wrong."""
    entries = []
    at = line.index("/")
    for name in names:
        column = at + 2
        at += len(name) + 1
        if name == "#":
            raise Wrong(column, "# stands for every name there is", "list names")
        if name:
            subtree = name.startswith("*.")
            entries.append(
                (Entry(DOMAIN, parse_name(name.removeprefix("*").removeprefix("."), column), subtree), column)
            )
    return entries
