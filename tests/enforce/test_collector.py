"""The garbage collector, held still and let go."""

from __future__ import annotations

import gc

import pytest

from egressd.enforce.collector import held_still


def test_it_runs_again_when_the_last_one_is_out() -> None:
    assert gc.isenabled()
    with held_still():
        assert not gc.isenabled()
        with held_still():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_runs_again_after_an_error() -> None:
    with pytest.raises(RuntimeError), held_still():
        raise RuntimeError
    assert gc.isenabled()


def test_one_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with held_still():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
