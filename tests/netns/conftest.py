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


@pytest.fixture(autouse=True)
def the_machine_for_itself(request: pytest.FixtureRequest) -> None:
    """Skips what is marked `alone` where other tests run at the same time."""
    if request.node.get_closest_marker("alone") and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("needs the machine for itself: python -m pytest tests/netns -n 0 -m alone")
