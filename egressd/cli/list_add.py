"""`egressd list add`: a line more in a list, with who and why, after a look at what it would hit."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from egressd.cli import list_change, list_effect
from egressd.cli.client import ClientError
from egressd.cli.exit_codes import OK, RUNTIME
from egressd.cli.list_reading import warn_of_urls
from egressd.cli.list_where import Place, Site, load_site
from egressd.cli.paths import path_given
from egressd.cli.screen import show
from egressd.cli.terminal import printable
from egressd.errors import ConfigError
from egressd.intel.lines import Wrong, problem_at
from egressd.intel.list_edit import (
    Note,
    add_line,
    complete_allowance,
    complete_line,
    find_lines,
    options_of,
    wanted_of,
)

WHAT: Final = "add a line to a list, unless it would hit too much"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "line",
        metavar="LINE",
        nargs="+",
        help="a line as in a list: bad.example ref=case-17; an allowance with --allow",
    )
    parser.add_argument(
        "--to", metavar="FILE", type=path_given, help="a file, by path or name (default: the only one, or local.txt)"
    )
    parser.add_argument(
        "--force", action="store_true", help="add it whatever it would hit, and though it is listed with other options"
    )
    list_change.add_arguments(parser)


def run(args: Namespace) -> int:
    """Add it."""
    site = load_site(args)
    place = site.named(args.to) if args.to else site.default()
    typed = " ".join(args.line).strip()
    before = list_change.read(place)
    line = _complete(site, place, before, typed, list_change.note(args.reason), args.force)

    def change(text: str) -> str:
        _require_new(site, place, text, line, args.force)
        after = add_line(text, line)
        if text != before or not checked:
            list_change.check(site, place, text, after)
        checked.append(True)
        return after

    checked: list[bool] = []
    change(before)
    if site.allow:
        effect = list_effect.ask_effect(args, list_effect.allowance_change(line), ())
    else:
        reasons = site.reasons(site.listed(line, place.name)[0])
        effect = list_effect.ask_effect(args, [list_effect.change("+", line)], reasons)
    show(list_effect.effect_lines(effect, allow=site.allow))
    if not site.allow:  # that many go there may be why it is allowed
        list_effect.refuse_large(effect, args.force)
    after = list_change.write(place, before, change).after
    print(f"{printable(place.name)}:{list_change.line_count(after)}: {printable(line)}")
    if not site.allow:
        urls = sum(one.kind == "url" for one in site.listed(line, place.name)[0])
        warn_of_urls(f"{place.name}:{list_change.line_count(after)}", urls)
    what = "; ".join(wanted.shown for wanted in wanted_of(line, allow=site.allow))
    list_change.tell(args, site, place, f"add {place.path.name}: {what}")
    return OK


def _complete(site: Site, place: Place, text: str, typed: str, note: Note, force: bool) -> str:
    """The line with who and why; with `force` also with force=yes, where that alone lets it be listed. Raises
    ConfigError."""
    try:
        if site.allow:
            return complete_allowance(typed, note)
        line = complete_line(typed, note)
        if force and site.listed(line, place.name)[1]:
            forced = complete_line(typed, note, force=True)
            return line if site.listed(forced, place.name)[1] else forced
        return line
    except Wrong as wrong:
        raise ConfigError([problem_at(place.name, list_change.line_count(text) + 1, wrong)]) from None


def _require_new(site: Site, place: Place, text: str, line: str, force: bool) -> None:
    """Raises ClientError when another line says the same; with `force` one with other options does not."""
    for wanted in wanted_of(line, allow=site.allow):
        for found in find_lines(text, wanted):
            if force and options_of(found.line, allow=site.allow) != options_of(line, allow=site.allow):
                continue
            if wanted in wanted_of(found.line, allow=site.allow):
                where = f"{place.name}:{found.number}"
                raise ClientError(f"{where} has it already: {found.line.strip()}\nNothing was changed.", RUNTIME)
