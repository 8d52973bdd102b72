"""A packet process that tells one thing and ends, and never reads what it was told."""

from __future__ import annotations

import socket
import sys

from egressd.runtime.messages import render_batch


def main() -> None:
    """Once there is something to read, so that it stays unread."""
    with socket.socket(fileno=int(sys.argv[1])) as core:
        core.recv(1, socket.MSG_PEEK)
        core.sendall(render_batch({"n": 1, "t": 0, "events": []}))


if __name__ == "__main__":
    main()
