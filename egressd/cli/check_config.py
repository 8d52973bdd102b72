"""`egressd check-config`: every mistake in configuration and lists, as file:line:column; exit 3 when there is one."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from egressd.cli.exit_codes import INVALID, OK, USAGE
from egressd.cli.list_reading import warn_of_urls
from egressd.cli.options import SYSTEM_CONFIG, is_ours, load, take_system_config
from egressd.cli.paths import path_given
from egressd.cli.terminal import printable
from egressd.config.guard_options import SHIPPED_RANGES
from egressd.config.load import LoadedIntel
from egressd.config.named_files import NamedFiles
from egressd.config.schema import Config
from egressd.errors import ConfigError, Problem
from egressd.plural import count

ORACLE_LIMIT = 20_000  # indicators that are compared with the second reader of the suffix list; more take too long


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        type=path_given,
        help=f"configuration (*.yaml) or lists (default: {SYSTEM_CONFIG} if there)",
    )
    parser.add_argument("--config", metavar="FILE", type=path_given, help="configuration")
    parser.add_argument(
        "--list", metavar="FILE", type=path_given, action="append", default=[], dest="lists", help="a blocklist; repeat"
    )
    parser.add_argument(
        "--for-start",
        action="store_true",
        help="as the daemon starts: a list with mistakes does no harm while its last good content stands in for it",
    )
    parser.add_argument(
        "--allow", metavar="FILE", type=path_given, action="append", default=[], help="an allowances file; repeat"
    )


def run(args: Namespace) -> int:
    """Check everything; problems go to standard output, the verdict to standard error."""
    for file in args.files:
        if file.endswith((".yaml", ".yml")):
            if args.config:
                print("egressd: one configuration at a time", file=sys.stderr)
                return USAGE
            args.config = file
        else:
            args.lists.append(file)
    take_system_config(args)
    if args.for_start:
        return _can_start(args)
    try:
        config, loaded = load(args, long_lists=True)
        problems = _second_opinion(loaded)
    except ConfigError as error:
        problems = error.problems
    if problems:
        for problem in problems:
            print(printable(str(problem)))
        concerned = "; a daemon that reads this goes on with the last good state" if args.config else ""
        print(f"egressd: {count(len(problems), 'problem')}{concerned}", file=sys.stderr)
        return INVALID
    _warn(config, Path(args.config or "").parent)
    if loaded.demo:
        where = printable(config.origin) if config.origin else "no configuration"
        what = "names no list: only the built-in demonstration list of reserved names is looked for"
        print(f"egressd: warning: {where}: {what}", file=sys.stderr)
    _warn_of_urls(loaded)
    for one in loaded.lists:
        print(f"{printable(one.name)}: {count(one.indicators, 'indicator')}")
    print(f"ok: {_in_force(loaded)}, mode {config.mode}")
    return OK


def _in_force(loaded: LoadedIntel) -> str:
    """How many indicators are, and how many are not any more, or not yet."""
    now_s = time.time()
    listed = list(loaded.intel.index.listed()) if loaded.intel.index.size <= ORACLE_LIMIT else []
    over = sum(0 < one.expires_s <= now_s for one in listed)
    later = sum(one.added_s > now_s and not 0 < one.expires_s <= now_s for one in listed)
    said = f"{count(loaded.intel.index.size - over - later, 'indicator')} in force"
    return said + (f", {over:,} expired" if over else "") + (f", {later:,} not yet" if later else "")


def _can_start(args: Namespace) -> int:
    """What is wrong, and whether the daemon can start all the same."""
    if not args.config or args.lists or args.allow:
        print("egressd: --for-start is about one configuration", file=sys.stderr)
        return USAGE
    from tempfile import TemporaryDirectory

    from egressd.runtime.knowledge import load_own_config, load_texts

    path = Path(args.config)
    ours = is_ours(path.parent / load_own_config(path).state.directory)
    with TemporaryDirectory(prefix="egressd-") as scratch:
        loaded = load_texts(path, scratch=None if ours else Path(scratch))
    for problem in loaded.kept:
        print(printable(str(problem)))
    if loaded.kept:
        print(f"egressd: {count(len(loaded.kept), 'problem')}; the last good content stands in", file=sys.stderr)
    _warn(loaded.config, path.parent)
    return OK


def _warn(config: Config, base_dir: Path) -> None:
    """What is no mistake of the file, but may be one here: groups, interfaces and files that only the daemon may read
    are those of the machine that it runs on."""
    if config.origin and config == Config() and not config.places:
        where = printable(config.origin)
        print(f"egressd: warning: {where}: names no list and no mode; egressd run does not take it", file=sys.stderr)
    for key, what in (*_missing_here(config), *_idle_patterns(config, base_dir), *_unusable_files(config, base_dir)):
        line, column = config.places.get(key, (0, 0))
        print(f"egressd: warning: {printable(str(Problem(config.origin, line, column, what)))}", file=sys.stderr)


def _warn_of_urls(loaded: LoadedIntel) -> None:
    """Who lists https://bad.example takes it for blocked."""
    if loaded.intel.index.size > ORACLE_LIMIT:
        return
    urls = [one for one in loaded.intel.index.listed() if one.kind == "url"]
    if urls:
        warn_of_urls(f"{urls[0].source}:{urls[0].line}", len(urls))


def _missing_here(config: Config) -> Iterator[tuple[str, str]]:
    """(option, what) for groups and interfaces that this machine has not."""
    from socket import if_nametoindex

    from egressd.web.peers import is_group

    control = config.control
    for role, groups in (("viewers", control.viewers), ("operators", control.operators), ("admins", control.admins)):
        for number, group in enumerate(groups):
            if not is_group(group):
                yield f"control.{role}[{number}]", f"control.{role}: no group {group} on this machine"
    for number, name in enumerate(config.capture.interfaces):
        try:
            if_nametoindex(name)
        except OSError:
            key = f"capture.interfaces[{number}]"
            yield key, f"{key}: no interface {name} on this machine; the daemon waits until there is one"


def _idle_patterns(config: Config, base_dir: Path) -> Iterator[tuple[str, str]]:
    """(option, what) for patterns that match no file. A folder may be empty, but mostly an ending is misspelt."""
    named = NamedFiles(base_dir, lambda *_: None, {}, frozenset())
    ranges = config.guard.shared_ranges
    for option, entries in (("lists", config.lists), ("allow", config.allow), ("guard.shared_ranges", ranges)):
        for number, entry in enumerate(entries):
            if entry != SHIPPED_RANGES and not named.of(option, [entry]):
                key = f"{option}[{number}]"
                yield key, f'{key}: no file matches "{entry}"'


def _unusable_files(config: Config, base_dir: Path) -> Iterator[tuple[str, str]]:
    """(option, what) for what feeds cannot be fetched with. They fail, and are tried again; the rest goes on. What
    systemd hands over is known to the service alone."""
    for name, feed in config.feeds.items():
        if not feed.enabled or not (feed.credential or feed.ca_file):
            continue
        from egressd.intel.feeds.fetch import FeedError, trust
        from egressd.intel.feeds.follow import FOLDER_VARIABLE, load_credential

        handed = FOLDER_VARIABLE in feed.credential and "CREDENTIALS_DIRECTORY" not in os.environ
        needed: dict[str, Callable[[], object]] = {}
        if feed.credential and not handed:
            needed["credential"] = partial(load_credential, feed.credential, base_dir)
        if feed.ca_file:
            needed["ca_file"] = partial(trust, str(base_dir / feed.ca_file))
        for option, read in needed.items():
            try:
                read()
            except FeedError as error:
                what = f"feeds.{name}.{error}; where the daemon finds the same, it does not fetch the feed"
                yield f"feeds.{name}.{option}", what


def _second_opinion(loaded: LoadedIntel) -> list[Problem]:
    """Our public suffixes decide what a block covers; tldextract reads the same file and must agree on every line."""
    from tldextract import TLDExtract

    if loaded.intel.index.size > ORACLE_LIMIT:
        return []
    domains = [one for one in loaded.intel.index.listed() if one.kind == "domain" and one.registered_domain]
    if not domains:
        return []
    extract = TLDExtract(
        suffix_list_urls=(loaded.suffix_list.resolve().as_uri(),),
        cache_dir=None,
        fallback_to_snapshot=False,
        include_psl_private_domains=True,
    )
    problems = []
    for one in domains:
        if one.suffix_rule.startswith("* "):
            continue  # tldextract knows no unlisted top-level domain
        theirs = extract(one.value).top_domain_under_public_suffix
        if theirs != one.registered_domain:
            what = (
                f"registered domain of {one.value}: we say {one.registered_domain}, tldextract says {theirs or 'none'}"
            )
            problems.append(Problem(one.source, one.line, 1, what, "do not rely on this line, and report it"))
    return problems
