"""Arguments that several verbs share, and what they load."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from egressd.config.load import LoadedIntel, default_config, load_config, load_intel
from egressd.config.schema import Config


def add_intel_arguments(parser: ArgumentParser) -> None:
    """Where configuration, lists and allowances come from."""
    parser.add_argument("--config", metavar="FILE", help="configuration (default: none is needed)")
    parser.add_argument("--list", metavar="FILE", action="append", default=[], dest="lists", help="a blocklist; repeat")
    parser.add_argument("--allow", metavar="FILE", action="append", default=[], help="an allowances file; repeat")


def load(args: Namespace) -> tuple[Config, LoadedIntel]:
    """The configuration and everything the text files say. Raises ConfigError with every problem."""
    base_dir = Path(args.config).parent if args.config else Path()
    config = load_config(Path(args.config)) if args.config else default_config()
    if args.allow:
        config = replace(config, allow=(*config.allow, *(str(Path(one).absolute()) for one in args.allow)))
    loaded = load_intel(config, [Path(one) for one in args.lists], base_dir=base_dir)
    loaded.check()
    return config, loaded
