"""`egressd list rm`: the lines of a value out of a list, with a comment that says who took them out and why."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final, NamedTuple

from egressd.cli import list_change, list_effect
from egressd.cli.client import ClientError
from egressd.cli.exit_codes import OK, RUNTIME, USAGE
from egressd.cli.list_where import Place, Site, load_site
from egressd.cli.paths import path_given
from egressd.cli.screen import show
from egressd.cli.terminal import cut, printable
from egressd.errors import ConfigError, Problem
from egressd.intel.lines import Wrong, problem_at
from egressd.intel.list_edit import Found, Wanted, parse_wanted, remove_lines
from egressd.plural import count
from egressd.store.list_files import FileRefused

WHAT: Final = "take a value out of a list, and say which blocks that lifts"
_SHOWN: Final = 20


class Removal(NamedTuple):
    """A text without the value, the lines that went, and what is still wrong in it."""

    after: str
    found: list[Found]
    problems: list[Problem]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "value",
        metavar="VALUE",
        nargs="+",
        help="what is listed, in any spelling; with --allow also KIND VALUE, and client=ADDRESS",
    )
    parser.add_argument(
        "--from", metavar="FILE", type=path_given, dest="from_", help="a file (default: the only one that lists it)"
    )
    parser.add_argument("--no-trace", action="store_true", help="leave no comment in the line's place")
    list_change.add_arguments(parser)


def run(args: Namespace) -> int:
    """Take it out."""
    site = load_site(args)
    try:
        wanted = parse_wanted(" ".join(args.value).strip(), allow=site.allow)
    except Wrong as wrong:
        raise ConfigError([problem_at("VALUE", 1, wrong)]) from None
    place = site.named(args.from_) if args.from_ else _only(site, wanted)
    note = None if args.no_trace else list_change.note(args.reason)
    before = list_change.read(place)

    done: dict[str, Removal] = {}  # a long list is read twice only when it changed meanwhile

    def change(text: str) -> str:
        if text not in done:
            after, found = remove_lines(text, wanted, note)
            if not found:
                raise ClientError(f"no line of {place.name} is {wanted.shown}; nothing was changed", RUNTIME)
            done[text] = Removal(after, found, list_change.check(site, place, text, after, mends=True))
        return done[text].after

    change(before)
    still = _elsewhere(site, place, wanted) if args.from_ else []
    changes = [] if site.allow or still else [list_effect.removal(wanted)]
    show(list_effect.effect_lines(list_effect.ask_effect(args, changes, ())) + still)
    edit = list_change.write(place, before, change)
    gone = done[edit.before].found
    for one in gone[:_SHOWN]:
        print(f"{printable(place.name)}:{one.number}: removed: {printable(one.line.strip())}")
    if len(gone) > _SHOWN:
        print(f"... and {count(len(gone) - _SHOWN, 'more line')}")
    list_change.warn_of_rest(place, done[edit.before].problems)
    list_change.tell(args, site, place, f"rm {place.path.name}: {wanted.shown}")
    return OK


def _only(site: Site, wanted: Wanted) -> Place:
    """The one file that lists it. Raises ClientError."""
    try:
        held = site.holding(wanted)
    except FileRefused as error:
        raise ClientError(str(error), RUNTIME) from None
    if len(held) == 1:
        return held[0][0]
    if not held:
        files = f"no file under {site.option}: of the configuration"
        raise ClientError(f"{files} has a line that is {wanted.shown}; nothing was changed", RUNTIME)
    places = "\n".join(f"  {place.name}:{found[0].number}" for place, found in held)
    raise ClientError(f"several files have it; say --from one of them:\n{places}", USAGE)


def _elsewhere(site: Site, place: Place, wanted: Wanted) -> list[str]:
    """Lines about other files that keep it listed. Raises ClientError."""
    try:
        held = site.holding(wanted)
    except FileRefused as error:
        raise ClientError(str(error), RUNTIME) from None
    others = [(other, found) for other, found in held if not other.path.samefile(place.path)]
    lines = [cut(f"still listed: {printable(other.name)}:{found[0].number}") for other, found in others[:_SHOWN]]
    return [*lines, *(["No block would be lifted."] if lines and not site.allow else [])]
