"""side_by_side: every piece is done once, and what one of the processes could not do is told."""

from __future__ import annotations

import os
from functools import partial

import pytest

from egressd.runtime.side_by_side import side_by_side


def pid_and(number: int) -> tuple[int, int]:
    return os.getpid(), number


def test_results_come_in_order_and_the_first_is_done_here() -> None:
    results = side_by_side([partial(pid_and, number) for number in range(4)])
    assert [number for _, number in results] == [0, 1, 2, 3]
    assert results[0][0] == os.getpid()
    assert len({pid for pid, _ in results}) == 4
    assert side_by_side([]) == []


def test_a_large_result_fits_the_pipe() -> None:
    assert [len(one) for one in side_by_side([partial(bytes, size) for size in (1, 5 << 20)])] == [1, 5 << 20]


def full() -> int:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_is_told() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        side_by_side([int, full])


def killed() -> int:
    os.kill(os.getpid(), 9)
    return 0


def wrong() -> int:
    raise ValueError("a bug")


@pytest.mark.parametrize("fate", [killed, wrong])
def test_a_process_that_ends_too_soon_is_told(fate: object, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="ended too soon"):
        side_by_side([int, fate])  # type: ignore[list-item]
    assert ("a bug" in capfd.readouterr().err) == (fate is wrong)


def test_when_our_own_piece_fails_nobody_is_left_over() -> None:
    with pytest.raises(OSError, match="No space"):
        side_by_side([full, int, int])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
