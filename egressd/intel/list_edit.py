"""Changes of a list's text that leave every other byte as it is: a line more, lines less, two people's changes in one.

Sans-io: text in, text out. Comments, order, line ends (LF or CRLF) and a byte order mark stay. Who changed what, when
and why is kept in the text itself, as a comment, where the next reader of the file looks:

    bad.example ref=case-17 owner=anna # 2026-11-25 anna: beacons seen
    # removed 2026-11-25 anna: worse.example: sinkholed
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from egressd.intel.allowances import ALLOW_DESTINATION, KINDS
from egressd.intel.entries import ADDRESS, NETWORK, Entry, parse_entry
from egressd.intel.formats.judgement import PLAIN
from egressd.intel.formats.ours import OPTIONS, parse_line
from egressd.intel.lines import Word, Wrong, find_comment, parse_options, render_option, split_comment

_BOM: Final = "\ufeff"
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_WHOSE: Final = ("owner=", "reason=")
_ALLOW_OPTIONS: Final = ("client", "owner", "reason", "expires")


class Note(NamedTuple):
    """Who changes a list, on which day (`2026-11-25`), and why: printable text on one line."""

    day: str
    who: str
    why: str


class Wanted(NamedTuple):
    """What lines are looked for: a listed value, whatever its spelling and options; `entry.subtree` when only lines of
    the subtree alone (`*.name`) are meant. Of allowances (`allow`) `kind` and `client` narrow it, "" is any."""

    entry: Entry
    allow: bool = False
    kind: str = ""
    client: str = ""

    @property
    def shown(self) -> str:
        """As a person would write it."""
        value = ("*." if self.entry.subtree else "") + self.entry.value
        return " ".join(word for word in (self.kind, value, self.client and f"client={self.client}") if word)


class Found(NamedTuple):
    """A line that names what is wanted: its number, its text, what it names as a person would write it, and the words
    that do. `whole` when it names nothing else."""

    number: int
    line: str
    named: str
    words: tuple[Word, ...]
    whole: bool


# -- one line


def complete_line(line: str, note: Note, *, force: bool = False) -> str:
    """A line for a block list, with `owner=` when it has none, `force=yes` when that is asked for, and who, when and
    why. Raises Wrong when it is none or cannot be read."""
    _check_characters(line)
    parsed = parse_line(line)
    if parsed is None or not parsed[0]:
        raise Wrong(1, "the line lists nothing", "name a domain, an address, a network or a URL")
    options = parse_options(parsed[1], OPTIONS)
    more = [] if "owner" in options else [render_option("owner", note.who)]
    if force and "force" not in options:
        more.append("force=yes")
    return _joined(line, more, f"{note.day} {note.who}: {note.why}")


def complete_allowance(line: str, note: Note) -> str:
    """A line for an allowances file, with `owner=` and `reason=` when it has none, and who and when. Raises Wrong when
    it is none or cannot be read."""
    _check_characters(line)
    words, _ = split_comment(line)
    if not words or words[0].text not in KINDS:
        raise Wrong(1, "the line allows nothing", "begin it with one of " + ", ".join(KINDS))
    options = parse_options(words[2:], _ALLOW_OPTIONS)
    more = [] if "owner" in options else [render_option("owner", note.who)]
    if "reason" in options:
        return _joined(line, more, f"{note.day} {note.who}: {note.why}")
    more.append(render_option("reason", note.why.replace('"', "'")))
    return _joined(line, more, f"{note.day} {note.who}")


def _check_characters(line: str) -> None:
    """Raises Wrong for what would end the line, or would not be seen in it."""
    for at, char in enumerate(line):
        if not char.isprintable() and char != "\t":
            raise Wrong(at + 1, f"the line holds a character that cannot be printed (U+{ord(char):04X})", "remove it")


def _joined(line: str, more: list[str], told: str) -> str:
    at = find_comment(line)
    said, comment = (line[:at], line[at + 1 :].strip()) if at >= 0 else (line, "")
    return " ".join([said.strip(), *more, "#", told]) + (f"; {comment}" if comment else "")


def _words(line: str) -> list[Word]:
    return split_comment(line)[0]


# -- finding


def parse_wanted(text: str, *, allow: bool = False) -> Wanted:
    """`VALUE`, or of allowances `[KIND] VALUE [client=ADDRESS]`. Raises Wrong when it is none."""
    words = _words(text)
    kind = ""
    if allow and words and words[0].text in KINDS:
        kind = words.pop(0).text
    if not words:
        raise Wrong(1, "nothing is named", "write the value as it is listed")
    client = ""
    if allow and len(words) > 1:
        client = _client(parse_options(words[1:], ("client",)).get("client"))
    elif len(words) > 1:
        raise Wrong(words[1].column, "more than a value", "name what is listed; its options are found by themselves")
    return Wanted(parse_entry(words[0]), allow, kind, client)


def find_lines(text: str, wanted: Wanted) -> list[Found]:
    """The lines that name what is wanted, a comment never. A line that cannot be read names nothing."""
    found = []
    look = _find_allowed if wanted.allow else _find_listed
    value = wanted.entry.value
    for number, line in enumerate(_LINE.findall(text.removeprefix(_BOM)), 1):
        if value not in line and PLAIN.fullmatch(line.strip()):
            continue  # another name, as nearly every line of a long list is
        try:
            one = look(number, line.rstrip("\r\n"), wanted)
        except Wrong:
            continue
        if one is not None:
            found.append(one)
    return found


def wanted_of(line: str, *, allow: bool = False) -> list[Wanted]:
    """What a line names, to look for other lines that do. Raises Wrong."""
    if not allow:
        parsed = parse_line(line)
        return [Wanted(entry) for entry, _ in parsed[0]] if parsed is not None else []
    words = _words(line)
    if len(words) < 2 or words[0].text not in KINDS:
        return []
    client = _client(next((word for word in words[2:] if word.text.startswith("client=")), None))
    return [Wanted(parse_entry(words[1]), True, words[0].text, client)]


def options_of(line: str, *, allow: bool = False) -> frozenset[str]:
    """The options of a line, but for whose it is and why. Raises Wrong."""
    if allow:
        rest = _words(line)[2:]
    else:
        parsed = parse_line(line)
        rest = parsed[1] if parsed is not None else []
    return frozenset(word.text for word in rest if not word.text.startswith(_WHOSE))


def _find_listed(number: int, line: str, wanted: Wanted) -> Found | None:
    parsed = parse_line(line)
    named = {column: entry for entry, column in parsed[0] if _covers(wanted.entry, entry)} if parsed else {}
    if not parsed or not named:
        return None
    words = tuple(word for word in _words(line) if word.column in named)
    shown = Wanted(next(iter(named.values()))).shown
    return Found(number, line, shown, words, len(words) == len(parsed[0]))


def _find_allowed(number: int, line: str, wanted: Wanted) -> Found | None:
    for one in wanted_of(line, allow=True):
        narrowed = wanted.kind in ("", one.kind) and wanted.client in ("", one.client)
        if narrowed and _covers(wanted.entry, one.entry):
            return Found(number, line, one.shown, (_words(line)[1],), True)
    return None


def _covers(wanted: Entry, entry: Entry) -> bool:
    same = (wanted.kind, wanted.value) == (entry.kind, entry.value)
    return same and (entry.subtree or not wanted.subtree)


def _client(word: Word | None) -> str:
    if word is None:
        return ""
    entry = parse_entry(word._replace(text=word.text.removeprefix("client=")))
    if entry.kind not in (ADDRESS, NETWORK):
        raise Wrong(word.column, "not a client's address", f"write {ALLOW_DESTINATION} NAME client=192.0.2.7")
    return entry.value


# -- changing


def add_line(text: str, line: str) -> str:
    """The text with a line more, at its end, with the line end that its last line has."""
    end = "\r\n" if text.endswith("\r\n") or ("\r\n" in text and not text.endswith("\n")) else "\n"
    if text.removeprefix(_BOM) and not text.endswith("\n"):
        text += end
    return text + line + end


def remove_lines(text: str, wanted: Wanted, note: Note | None = None) -> tuple[str, list[Found]]:
    """The text without the lines that name what is wanted, and those lines. Of a line that names other things too only
    the words go. With a note a comment tells who took it out and why, where the line was."""
    found = {one.number: one for one in find_lines(text, wanted)}
    if not found:
        return text, []
    body = text.removeprefix(_BOM)
    out = [text[: len(text) - len(body)]]
    for number, line in enumerate(_LINE.findall(body), 1):
        one = found.get(number)
        if one is None:
            out.append(line)
            continue
        bare = line.rstrip("\r\n")
        end = line[len(bare) :]
        if not one.whole:
            out.append(_without(bare, one.words) + end)
        if note is not None:
            if not one.whole and not end:
                out.append("\n")
            out.append(f"# removed {note.day} {note.who}: {one.named}: {note.why}" + end)
    return "".join(out), list(found.values())


def _without(line: str, words: tuple[Word, ...]) -> str:
    for word in reversed(words):
        at = word.column - 1
        line = line[:at].rstrip() + line[at + len(word.text) :]
    return line


# -- two changes of one text


class _Change(NamedTuple):
    """Lines `start` to `end` of a text become `lines`."""

    start: int
    end: int
    lines: tuple[str, ...]

    def touches(self, other: _Change) -> bool:
        """Whether the same lines change, or one inserts inside what the other replaces."""
        overlap = max(self.start, other.start) < min(self.end, other.end)
        return overlap or self._inside(other) or other._inside(self)

    def _inside(self, other: _Change) -> bool:
        return other.start < self.start == self.end < other.end


def merge(base: str, theirs: str, ours: str) -> str | None:
    """Both changes of `base` in one text, theirs first where both insert at one place; None when they touch the same
    lines, unless they agree. A last line without its end gets one when both changed something."""
    if base in (theirs, ours) or theirs == ours:
        return theirs if base == ours else ours
    old = _lines(base)
    first, second = _changes(old, _lines(theirs)), _changes(old, _lines(ours))
    second = [one for one in second if one not in first]
    if any(one.touches(other) for one in first for other in second):
        return None
    out: list[str] = []
    at = 0
    # Insertions before what is replaced at the same place; sorted() keeps theirs before ours.
    for change in sorted([*first, *second], key=lambda one: (one.start, one.end)):
        out += [*old[at : change.start], *change.lines]
        at = change.end
    return "".join([*out, *old[at:]])


def _lines(text: str) -> list[str]:
    return _LINE.findall(text if text.endswith("\n") or not text else text + "\n")


def _changes(old: list[str], new: list[str]) -> list[_Change]:
    from difflib import SequenceMatcher

    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    before, after = old[head : len(old) - tail], new[head : len(new) - tail]
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    return [
        _Change(i1 + head, i2 + head, tuple(after[j1:j2]))
        for tag, i1, i2, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
    ]
