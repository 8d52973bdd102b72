"""For every test."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy with something else is no bug: no property fails because an example took long.
settings.register_profile("egressd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("egressd")


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: twice as many as there are cores, for tests wait for processes and sockets half of the time."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.fixture
def monkeypatch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pytest's own; but the constants of a compiled module (scripts/compile.py) have become part of its code, so a test
    that changes one is skipped there. COMPILED only chooses between two forms of one loop: the test runs, with the one
    form that there is."""
    plain = monkeypatch.setattr

    def setattr_or_skip(target: Any, *args: Any, **options: Any) -> None:
        if isinstance(target, str) and target.rpartition(".")[0] in sys.modules:  # "egressd.wire.http.read_fields"
            module, _, name = target.rpartition(".")
            target, args = sys.modules[module], (name, *args)
        if isinstance(target, ModuleType) and target.__name__.startswith("egressd.") and args[0] != "COMPILED":
            if not str(target.__file__).endswith(".py"):
                pytest.skip("compiled: a constant cannot be changed")
        plain(target, *args, **options)

    monkeypatch.setattr = setattr_or_skip  # type: ignore[method-assign,assignment]
    return monkeypatch
