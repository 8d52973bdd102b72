"""Fixtures of the proving ground."""

from __future__ import annotations

import os

import pytest

from tests.netns.spaces import missing


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips, and says what to install, where no namespaces can be made."""
    reason = missing()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def alone() -> None:
    """Skips where other tests run at the same time: fractions of a millisecond need the machine for themselves."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("needs the machine for itself: python -m pytest tests/netns -n 0")
