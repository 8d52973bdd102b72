"""What `list convert` and `list lint` share: files of lists in any format, and what they are judged by."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final, NamedTuple

from egressd.cli.options import base_dir, config_of
from egressd.cli.paths import path_given
from egressd.cli.terminal import printable
from egressd.config.load import load_ground
from egressd.config.texts import escape_path, load_text
from egressd.errors import ConfigError
from egressd.intel.formats.detection import detect_format
from egressd.intel.formats.feed import FORMATS
from egressd.intel.formats.judgement import Rules
from egressd.plural import count

MAX_FILE_BYTES: Final = 512 << 20  # ten million names; one that is larger is no list


class ListText(NamedTuple):
    """A list that was read from disk. `source` is what its indicators and problems are called by."""

    source: str
    format: str
    text: str


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    formats = ", ".join(FORMATS)
    parser.add_argument("--format", choices=tuple(FORMATS), metavar="F", help=f"{formats} (default: by the content)")
    parser.add_argument(
        "--config", metavar="FILE", type=path_given, help="configuration: own domains, guard, protected addresses"
    )


def warn_of_urls(first: str, urls: int) -> None:
    """Who lists https://bad.example takes it for blocked. `first` is where the first of them stands."""
    if urls:
        what = f"{count(urls, 'URL')} listed, told of where requests can be read and never blocked"
        print(f"egressd: warning: {printable(first)}: {what}; to block, list the host alone", file=sys.stderr)


def load_rules(args: Namespace) -> Rules:
    """What lists are judged by, with the time now. Raises ConfigError."""
    ground = load_ground(config_of(args), base_dir=base_dir(args))
    if ground.problems:
        raise ConfigError(ground.problems)
    return Rules(ground.suffixes, ground.guard, ground.protected, now_s=int(time.time()))


def load_list(file: str, format_: str | None, source: str = "") -> ListText:
    """The text of a file, or of standard input when it is "-". Raises ConfigError."""
    name = source or ("standard input" if file == "-" else escape_path(file))
    text = load_text(Path("/dev/stdin" if file == "-" else file), name, MAX_FILE_BYTES)
    return ListText(name, format_ or detect_format(text), text)
