"""`egressd list edit`: a list in your editor, checked and previewed before it is saved with what others saved."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from egressd.cli import list_change, list_effect
from egressd.cli.client import ClientError
from egressd.cli.exit_codes import OK, RUNTIME, USAGE
from egressd.cli.list_diff import difference, say
from egressd.cli.list_effect import Effect
from egressd.cli.list_preview import changes_of
from egressd.cli.list_where import Place, Site, load_site
from egressd.cli.paths import path_given
from egressd.cli.screen import show
from egressd.cli.terminal import printable
from egressd.errors import ConfigError
from egressd.intel.list_edit import merge
from egressd.plural import count
from egressd.store.list_files import FileRefused, read_list

WHAT: Final = "edit a list; it is checked and previewed before it is saved"
_SHOWN: Final = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "file", metavar="FILE", type=path_given, help="a file, by path or name; it opens in $VISUAL or $EDITOR"
    )
    parser.add_argument("--force", action="store_true", help="save it whatever it would hit")
    list_change.add_arguments(parser)


def run(args: Namespace) -> int:
    """Edit, check, show, ask, save."""
    from shutil import rmtree
    from tempfile import mkdtemp

    site = load_site(args)
    place = site.named(args.file)
    base = list_change.read(place)
    folder = Path(mkdtemp(prefix="egressd-list-"))
    copy = folder / place.path.name
    copy.write_text(base, encoding="utf-8", newline="")
    done = False
    try:
        done = _edit(args, site, place, base, copy)
    finally:
        if done or _same(copy, base):
            rmtree(folder, ignore_errors=True)
        else:
            print(f"egressd: your copy is {printable(str(copy))}", file=sys.stderr)
    return OK


def _edit(args: Namespace, site: Site, place: Place, base: str, copy: Path) -> bool:
    """Whether it is done, so that the copy is of no use any more. Raises ConfigError, ClientError."""
    text = _edited(site, place, base, copy)
    if text == base:
        print("Nothing was changed.")
        return True
    # "Nothing differs" to the daemon when only comments or the order were edited: that is saved all the same.
    found = difference(say(site, base, place.name)[0], say(site, text, place.name)[0])
    changes, reasons = changes_of(site, found)
    effect = list_effect.ask_effect(args, changes, reasons)
    if changes:
        show(list_effect.effect_lines(effect, allow=site.allow))
    summary = f"+{len(found.added)} -{len(found.removed)}"
    # Of allowances many contacts are no reason against them: that many go there may be why.
    forced = args.force or site.allow or not effect.is_large
    if not _may_save(effect, f"Save {printable(place.name)}, {summary}?", forced):
        return False

    def change(now: str) -> str:
        merged = merge(base, now, text)
        if merged is None:
            raise ClientError(f"{place.name} was changed meanwhile, in the same lines; nothing was saved", RUNTIME)
        if merged != text:
            list_change.check(site, place, now, merged)
        return merged

    edit = list_change.write(place, base, change)
    also = ", with what others changed meanwhile" if edit.before != base else ""
    print(f"{printable(place.name)}: {summary} saved{also}")
    list_change.tell(args, site, place, f"edit {place.path.name}: {summary}")
    return True


def _edited(site: Site, place: Place, base: str, copy: Path) -> str:
    """What the person made of the copy, without mistakes. Raises ConfigError when he leaves some, ClientError."""
    while True:
        _open_editor(copy)
        try:
            text = read_list(copy)
        except FileRefused as error:
            raise ClientError(str(error), RUNTIME) from None
        problems = site.problems(text, place.name)
        if not problems or text == base:
            return text
        if not sys.stdin.isatty():
            raise ConfigError(problems)
        for problem in problems[:_SHOWN]:
            print(printable(str(problem)), file=sys.stderr)
        if _answer(f"{count(len(problems), 'mistake')}. Edit again? [Y/n]").lower() in ("n", "no"):
            raise ClientError("nothing was saved", RUNTIME)


def _open_editor(copy: Path) -> None:
    from subprocess import run as run_program

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    if not editor and not sys.stdin.isatty():
        raise ClientError("list edit opens an editor and needs a terminal; without one: list add, list rm", USAGE)
    editor = editor or "vi"
    try:
        words = shlex.split(editor)
        code = run_program([*words, str(copy)], check=False).returncode
    except (ValueError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ClientError(f"the editor {editor} cannot be started ({why}); set $EDITOR", USAGE) from None
    if code:
        raise ClientError(f"the editor {editor} ended with {code}; nothing was saved", RUNTIME)


def _may_save(effect: Effect, question: str, forced: bool) -> bool:
    """Ask who is there to be asked; what is large and not forced needs the word `force`."""
    if not sys.stdin.isatty():
        list_effect.refuse_large(effect, forced)
        return True
    if not forced:
        return _answer(f"{question} It is large: type force to do it") == "force"
    return _answer(f"{question} [y/N]").lower() in ("y", "yes")


def _answer(question: str) -> str:
    print(question + " ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _same(copy: Path, text: str) -> bool:
    try:
        return read_list(copy) == text
    except FileRefused:
        return False
