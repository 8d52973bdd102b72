"""A process as the core starts them, that does nothing but say that it is there, and once more before it ends."""

from __future__ import annotations

import os
import sys

from egressd.runtime.inbox import inbox_of_process
from egressd.runtime.messages import render_batch
from egressd.runtime.orders import Stop


def main(fd: int) -> None:
    inbox = inbox_of_process(fd)
    word = render_batch({"stats": {"pid": os.getpid()}})
    inbox.control.sendall(word)
    while inbox.is_open and not isinstance(inbox.first(), Stop):
        pass
    inbox.control.sendall(word)


if __name__ == "__main__":
    main(int(sys.argv[1]))
