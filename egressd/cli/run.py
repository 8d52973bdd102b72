"""`egressd run`: the daemon, in the foreground; systemd's unit runs this."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path

from egressd.cli.check_config import SYSTEM_CONFIG


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config", metavar="FILE", default=SYSTEM_CONFIG, help=f"configuration (default: {SYSTEM_CONFIG})"
    )


def run(args: Namespace) -> int:
    """Run until stopped; returns the exit code. Raises ConfigError."""
    daemon = import_module("egressd.runtime.daemon")  # lazily: it imports every part
    code: int = daemon.run_daemon(Path(args.config))
    return code
