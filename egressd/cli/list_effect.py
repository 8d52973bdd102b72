"""What a change of lists would hit, as the daemon tells it from history, and what the guard says of it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from textwrap import wrap as fill
from typing import Final, NamedTuple

from egressd.cli.client import Answer, ClientError, ask
from egressd.cli.exit_codes import RUNTIME, UNREACHABLE, USAGE
from egressd.cli.list_where import Site
from egressd.cli.screen import Column, Row, head_lines, number, rows, table, text, texts, wrap
from egressd.cli.terminal import cut, printable, room
from egressd.intel.allowances import IGNORE_CLIENT, IGNORE_INDICATOR
from egressd.intel.lines import Wrong, split_comment
from egressd.intel.list_edit import Wanted, wanted_of
from egressd.model import Indicator
from egressd.plural import count

MAX_CHANGES: Final = 5_000  # at once, and characters of each: as web.requests takes them
MAX_TEXT: Final = 512
TIMEOUT_S: Final = 60.0  # a month of a large site's history
_SHOWN: Final = 8
_TOP: Final = (Column("HOST"), Column("NAME", least=20), Column("CONTACTS", right=True))


class Effect(NamedTuple):
    """What is known before a change. `answer` is the daemon's, None when it gave none, `unknown` then says why;
    `reasons` are our own reasons to think twice; `uncounted` changes are not in the answer's numbers."""

    answer: Answer | None
    unknown: str
    reasons: tuple[str, ...]
    uncounted: int

    @property
    def is_large(self) -> bool:
        """Whether this asks for a second thought."""
        return bool(self.reasons) or (self.answer is not None and self.answer.result.get("large") is True)


def change(sign: str, line: str) -> str:
    """A line of a list as the daemon is asked about it, "" when it is too long to be asked about. What is removed is
    removed whatever speaks against listing it."""
    try:
        words = split_comment(line.strip())[0]
    except Wrong:
        return ""
    said = " ".join(word.text for word in words)
    if len(said) > MAX_TEXT - len(" force=yes"):
        said = " ".join(word.text for word in words if word.text.startswith(("scope=", "force=")) or word == words[0])
    if sign == "-" and not any(word.text.startswith("force=") for word in words):
        said += " force=yes"
    return sign + said if words and len(said) <= MAX_TEXT else ""


def removal(wanted: Wanted) -> str:
    """As `change`, for what is taken out of a list."""
    return change("-", ("http://" if wanted.entry.kind == "url" else "") + wanted.shown)


def allowance_change(line: str) -> list[str]:
    """What to ask of an allowance: a listed value that is ignored is as if it were not listed; of a destination the
    question is who goes there. Of clients there is nothing to ask."""
    try:
        found = wanted_of(line, allow=True)
    except Wrong:
        return []
    for one in found:
        if one.kind == IGNORE_INDICATOR:
            value = "http://" + one.entry.value if one.entry.kind == "url" else one.entry.value
            return [change("-", value)]
        if one.kind != IGNORE_CLIENT:
            scope = " scope=host" if one.entry.kind == "domain" else ""
            return [change("+", f"{one.entry.value} force=yes{scope}")]
    return []


def ask_effect(args: Namespace, changes: Iterable[str], reasons: Sequence[str]) -> Effect:
    """Ask the daemon what changes would hit. Not being answered is no error: a list can be edited without a daemon."""
    all_changes = list(dict.fromkeys(changes))
    asked = [one for one in all_changes if one][:MAX_CHANGES]
    uncounted = sum(map(bool, all_changes)) - len(asked) + all_changes.count("")
    if not asked:
        return Effect(None, "", tuple(reasons), uncounted)
    try:
        answer = ask(args, "list-preview", {"lines": asked}, TIMEOUT_S)
    except ClientError as error:
        return Effect(None, str(error).partition("\n")[0], tuple(reasons), uncounted)
    return Effect(answer, "", tuple(reasons), uncounted)


def effect_lines(effect: Effect, *, allow: bool = False) -> list[str]:
    """The screen. `allow` when allowances change: then what is contacted is what would be let through."""
    lines = head_lines(effect.answer) if effect.answer is not None else []
    told: list[str] = []
    if effect.answer is not None:
        result = effect.answer.result
        lines += _body(result, allow=allow)
        told = texts(result, "guards")
    elif effect.unknown:
        lines += _filled(f"What it would have hit is not known: {printable(effect.unknown)}")
    for why in effect.reasons:
        if printable(why) not in told:
            lines += wrap("!! ", printable(why).split(" "), " ")
    if effect.uncounted:
        lines += [f"!! {count(effect.uncounted, 'line is', 'lines are')} not counted in this: too many or too long"]
    return lines


def _body(result: Row, *, allow: bool) -> list[str]:
    lines: list[str] = []
    added = number(result, "added")
    if added or not number(result, "removed"):
        said = text(result, "text")
        lines += _filled(f"what would be allowed: {said}" if allow else said)
    already = texts(result, "already")
    if already:
        lines += wrap("listed already: ", _some(already))
    for one in texts(result, "problems")[:_SHOWN]:
        lines += wrap("!! ", one.split(" "), " ")
    top = rows(result, "top")
    if top:
        cells = [[text(one, "client"), text(one, "name"), f"{number(one, 'contacts'):,}"] for one in top]
        lines += table(_TOP, cells)
        more = number(result, "hosts") - len(top)
        lines += [f"... and {count(more, 'more host')}"] if more > 0 else []
    shared = texts(result, "shared")
    if shared:
        lines += wrap("shared with: ", _some(shared))
    lifted = rows(result, "lifted")
    lines += [_lifted(one) for one in lifted[:_SHOWN]]
    if len(lifted) > _SHOWN:
        lines.append(f"... and {len(lifted) - _SHOWN:,} more would be lifted")
    if number(result, "removed") and not lifted:
        lines.append("No block would be lifted.")
    return lines


def _lifted(one: Row) -> str:
    tries = f"{count(number(one, 'tries'), 'try', 'tries')} of {count(number(one, 'clients'), 'host')}"
    return cut(f"would be lifted: {text(one, 'decision_id', 20)} {text(one, 'target', 40)} ({tries})")


def _some(names: Sequence[str]) -> list[str]:
    more = [f"and {len(names) - _SHOWN:,} more"] if len(names) > _SHOWN else []
    return [cut(one, room() - 20) for one in names[:_SHOWN]] + more


def _filled(said: str) -> list[str]:
    return fill(said, room(), subsequent_indent="  ")


def refuse_large(effect: Effect, force: bool) -> None:
    """Raises ClientError for a change that asks for a second thought and was not forced."""
    if effect.is_large and not force:
        what = "refused, for what is said above. Nothing was changed; --force does it all the same"
        raise ClientError(what, RUNTIME)


def require_answer(effect: Effect) -> None:
    """Raises ClientError when the daemon was to be asked and did not answer."""
    if effect.unknown:
        raise ClientError(effect.unknown, UNREACHABLE)
    if effect.answer is None and effect.uncounted:
        raise ClientError("the lines are too long to be asked about", USAGE)


def indicator_change(sign: str, one: Indicator, site: Site) -> str:
    """An indicator as the daemon is asked about it: what it covers, whatever else is said of it."""
    line = ("http://" if one.kind == "url" else "") + one.value
    if one.kind == "domain":
        line += f" scope={one.scope}"
    forced = not one.registered_domain and bool(site.reasons([one]))
    return change(sign, line + (" force=yes" if forced else ""))
