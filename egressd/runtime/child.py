"""Work that takes a processor for seconds, in a child process of its own: the core goes on meanwhile.

The job goes down as the core pickled it, in that direction alone; the answer comes up in JSON, for the child has read
what strangers wrote.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from egressd.errors import EgressdError

MAX_S: Final = 900.0
FIRST_TO_GO: Final = 800  # of -1000 to 1000 (proc(5), oom_score_adj); the service has -500


class ChildError(EgressdError):
    """The child did not answer. The message is a sentence for people."""


def ask_child(module: str, job: object) -> dict[str, Any]:
    """Run `python -m module` on a job; its answer. Waits. Raises ChildError."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=pickle.dumps(job, pickle.HIGHEST_PROTOCOL), stdout=subprocess.PIPE, timeout=MAX_S, check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise ChildError(f"it took longer than {MAX_S:.0f} s") from None
    except (OSError, ValueError) as error:
        raise ChildError("see what was logged above; is there room on the disk and in memory?") from error
    if not isinstance(answer, dict):
        raise ChildError("what it answered cannot be used")
    return answer


def serve_as_child(run: Callable[[Any], dict[str, Any]]) -> int:
    """The child: one job, one answer; the exit code. Nobody waits for it as for a packet: it stands behind everybody
    else (sched(7); the unit allows that call, and nice(2) not), is the first to go when memory is short, and does not
    look for garbage, for what it makes is freed by counting and it ends soon."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))
    gc.disable()
    try:
        answer = run(pickle.load(sys.stdin.buffer))
    except OSError as error:
        sys.stderr.write(f"<3>egressd: no index could be written: {error.strerror}\n")
        return 1
    sys.stdout.write(json.dumps(answer))
    return 0
