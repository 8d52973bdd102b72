"""Maltrail's trails (github.com/stamparm/maltrail, trails/static): text files, one per family, and the `trails.csv`
that all of them and other feeds are made into (trail, info, reference)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from egressd.intel.formats.fields import join_ref, parse_columns, parse_host_port
from egressd.intel.formats.judgement import Found, Ignored, Judge, Rules, tidy, word_of
from egressd.intel.lines import MAX_LINE, Wrong, problem_at, show, split_lines

BARE_PATH: Final = "a path without a host"
NOT_MALWARE: Final = "of a class other than malware (scanners, bad reputation, suspicious names)"

_REFERENCE: Final = "# Reference:"
_CONTINUED: Final = re.compile(r"-[0-9]+$")  # cobaltstrike-1.txt goes on with cobaltstrike.txt
_MAX_KEPT: Final = 4096  # threats and references in their tidy form; there are some thousands


def read_maltrail(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of a trails file. The family is the file's name unless the rules know a threat."""
    judge = Judge(source, rules._replace(threat=rules.threat or family_of(source)))
    plain = judge.plain
    references: list[str] = []
    fresh = False  # the last line was a reference, too
    for number, line in enumerate(split_lines(text), 1):
        bare = line.strip()
        if not bare or bare[0] == "#":
            if bare.startswith(_REFERENCE):
                references = [*references, bare] if fresh else [bare]
                judge.ref = join_ref(*(one[len(_REFERENCE) :].strip() for one in references[:8]))
                fresh = True
            continue
        fresh = False
        found = plain(bare, number)
        yield found if found is not None else _read_trail(judge, number, line.partition(" #")[0])


def read_maltrail_csv(text: str, source: str, rules: Rules) -> Iterator[Found]:
    """Reader of `trails.csv`: of what it says is malware."""
    judge = Judge(source, rules)
    kept: dict[str, str] = {"": "", "(static)": "", "(custom)": ""}
    for number, line in enumerate(split_lines(text), 1):
        trail, comma, rest = line.partition(",")
        if not trail.strip() or trail[0] == "#":
            continue
        if '"' in line or not comma:
            try:
                trail, rest, *more = parse_columns(line)
                reference = more[0] if more else ""
            except (Wrong, ValueError) as error:
                wrong = error if isinstance(error, Wrong) else Wrong(1, "no comma", "lines are: trail,info,reference")
                yield problem_at(source, number, wrong)
                continue
        else:
            rest, _, reference = rest.partition(",")
        if (trail, rest) == ("trail", "info"):
            continue
        if "malware" not in rest:
            yield Ignored(number, NOT_MALWARE)
            continue
        if len(kept) > _MAX_KEPT:
            kept = {"": "", "(static)": "", "(custom)": ""}
        judge.threat = rules.threat or _keep(kept, rest.removesuffix(" (malware)"))
        judge.ref = _keep(kept, reference.strip())
        found = judge.plain(trail, number)
        yield found if found is not None else _read_trail(judge, number, trail)


def family_of(source: str) -> str:
    """The family that a trails file's name stands for."""
    stem = source.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    return tidy(_CONTINUED.sub("", stem)) if stem not in ("", "-") else ""


def _keep(kept: dict[str, str], text: str) -> str:
    known = kept.get(text)
    if known is None:
        known = kept[text] = tidy(text)
    return known


def _read_trail(judge: Judge, number: int, text: str) -> Found:
    word = word_of(text, 1)
    if word.text.startswith("/"):
        return Ignored(number, BARE_PATH)
    try:
        if len(text) > MAX_LINE:
            raise Wrong(MAX_LINE + 1, f"the line is longer than {MAX_LINE} characters", "put one trail on a line")
        if " " in word.text:
            raise Wrong(word.column, f'more than a trail: "{show(word.text)}"', "put one trail on a line")
        entry, port = parse_host_port(word)
    except Wrong as wrong:
        return problem_at(judge.source, number, wrong)
    said = judge.default._replace(threat=judge.threat, ref=join_ref(port, judge.ref))
    return judge.take(entry, word.column, number, said)
