"""`egressd run`: the daemon, in the foreground; systemd's unit runs this."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path

from egressd.cli.paths import path_given

CONFIG = "/etc/egressd/egressd.yaml"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config", metavar="FILE", type=path_given, default=CONFIG, help=f"configuration (default: {CONFIG})"
    )


def run(args: Namespace) -> int:
    """Run until stopped; returns the exit code. Raises ConfigError."""
    daemon = import_module("egressd.runtime.daemon")  # lazily: it imports every part
    code: int = daemon.run_daemon(Path(args.config))
    return code
