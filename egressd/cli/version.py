"""`egressd version`."""

from __future__ import annotations

import json
import platform
from argparse import ArgumentParser, Namespace
from pathlib import Path

from egressd import __version__
from egressd.config.load import default_config, load_intel
from egressd.wire import dissector


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="one object")


def run(args: Namespace) -> int:
    """Print versions and dates."""
    loaded = load_intel(default_config(), base_dir=Path())
    shipped = {
        "egressd": __version__,
        "packet_path": "pure Python" if dissector.__file__.endswith(".py") else "compiled",
        "python": platform.python_version(),
        "suffix_list": loaded.intel.suffixes.version,
    }
    if args.json:
        print(json.dumps(shipped))
    else:
        print(f"egressd {__version__} (packet path: {shipped['packet_path']})")
        print(f"Python {shipped['python']}, Public Suffix List of {shipped['suffix_list']}")
    return 0
