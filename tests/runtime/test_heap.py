"""What is large is given back to the system when it is left, also after some of it was given back before."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from egressd.runtime.heap import LARGE_BYTES

PROGRAM = f"""
import sys
from pathlib import Path
from egressd.runtime.heap import keep_large_apart

if sys.argv[1] == "apart":
    assert keep_large_apart()
bytearray({32 * LARGE_BYTES})  # taken, and given back
kept = [bytes({2 * LARGE_BYTES}) for _ in range(8)]
heap = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
low, high = (int(end, 16) for end in heap[0].split()[0].split("-"))
print(sum(low <= id(one) < high for one in kept))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_large_tables_lie_outside_the_heap() -> None:
    def in_the_heap(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert in_the_heap("as it is") > 0
    assert in_the_heap("apart") == 0
