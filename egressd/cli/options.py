"""Arguments that several verbs share, and what they load."""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Final

from egressd.cli.paths import path_given
from egressd.config.load import LoadedIntel, default_config, load_config, load_intel
from egressd.config.schema import Config

SYSTEM_CONFIG: Final = "/etc/egressd/egressd.yaml"


def add_intel_arguments(parser: ArgumentParser, default: str = "none is needed") -> None:
    """Where configuration, lists and allowances come from; `default` says what is taken where none is given."""
    parser.add_argument("--config", metavar="FILE", type=path_given, help=f"configuration (default: {default})")
    parser.add_argument(
        "--list", metavar="FILE", type=path_given, action="append", default=[], dest="lists", help="a blocklist; repeat"
    )
    parser.add_argument(
        "--allow", metavar="FILE", type=path_given, action="append", default=[], help="an allowances file; repeat"
    )


def take_system_config(args: Namespace) -> None:
    """Where nothing is given, what this machine's daemon reads, if it is there: asked on a gateway, `is it listed?` is
    not about the demonstration list."""
    if not args.config and not args.lists and not args.allow and os.path.exists(SYSTEM_CONFIG):  # noqa: PTH110
        args.config = SYSTEM_CONFIG


def intel_options(args: Namespace) -> str:
    """The same arguments as they would be typed again, with a blank behind; "" for none."""
    given = [("--config", args.config)] if args.config else []
    given += [("--list", one) for one in args.lists] + [("--allow", one) for one in args.allow]
    return "".join(f"{option} {shlex.quote(value)} " for option, value in given)


def config_of(args: Namespace) -> Config:
    """The configuration of --config, or the one without a file. Raises ConfigError."""
    return load_config(Path(args.config)) if args.config else default_config()


def base_dir(args: Namespace) -> Path:
    """The folder that relative paths of the configuration start at."""
    return Path(args.config).parent if args.config else Path()


def load(args: Namespace, *, long_lists: bool = False) -> tuple[Config, LoadedIntel]:
    """The configuration and everything the text files say. Raises ConfigError with every problem. With `long_lists`
    the long ones are built into an index as the daemon does, instead of held in memory."""
    base = base_dir(args)
    config = config_of(args)
    if args.allow:
        config = replace(config, allow=(*config.allow, *(str(Path(one).absolute()) for one in args.allow)))
    lists = [Path(one) for one in args.lists]
    if not long_lists:
        loaded = load_intel(config, lists, base_dir=base)
    else:
        from tempfile import TemporaryDirectory

        from egressd.runtime.index_build import builder_in, index_folder

        state = base / config.state.directory
        with TemporaryDirectory(prefix="egressd-") as scratch:
            folder = index_folder(state) if is_ours(state) else Path(scratch)
            loaded = load_intel(config, lists, base_dir=base, build=builder_in(folder))
    loaded.check()
    return config, loaded


def is_ours(state: Path) -> bool:
    """Whether the directory of the state is this user's: the daemon's own user leaves there what the daemon will find;
    nobody else may make files among its own."""
    try:
        return state.is_dir() and state.stat().st_uid == os.geteuid()
    except OSError:
        return False
