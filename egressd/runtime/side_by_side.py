"""Work of a child process (runtime/child.py) that several processors share: it parts into processes of its own.

They begin with all that the child holds, as it holds it (fork(2)), and have one thread. Each does its piece, says what
came of it, and ends. The first piece is done by the child itself.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")
AT_MOST: Final = 4  # processes; the disk and the memory that each takes are shared too


def processors() -> int:
    """How many processes are of use here."""
    return min(AT_MOST, len(os.sched_getaffinity(0)))


def side_by_side(work: Sequence[Callable[[], T]]) -> list[T]:
    """What came of each piece, in order. Raises OSError when one of the others could not do its piece."""
    started = [_start(one) for one in work[1:]]
    try:
        results = [one() for one in work[:1]]
    finally:
        told = [_finish(pid, pipe) for pid, pipe in started]
    for is_good, result in told:
        if not is_good:
            raise OSError(*result)
        results.append(result)
    return results


def _start(work: Callable[[], Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.close(reading)
        try:
            answer = pickle.dumps((True, work()), pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            answer = pickle.dumps((False, (error.errno, error.strerror)))
        with os.fdopen(writing, "wb") as file:
            file.write(answer)
        code = 0
    except Exception:  # noqa: BLE001, it must not go on as the child that it was copied from
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _finish(pid: int, pipe: int) -> tuple[bool, Any]:
    with os.fdopen(pipe, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(pid, 0)
    if not answer or os.waitstatus_to_exitcode(status):
        return False, (None, "a process that built a part of it ended too soon")
    told: tuple[bool, Any] = pickle.loads(answer)
    return told
