"""Fixtures of the proving ground."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.enforce.namespace import bare, need_namespaces
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


@pytest.fixture
def inside() -> Callable[[Callable[[], Any]], Any]:
    """Runs a function in a namespace of its own, in a process of its own."""
    need_namespaces()

    def run(body: Callable[[], Any]) -> Any:
        with bare() as space:
            return space.call(body)

    return run
