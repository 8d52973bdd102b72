"""Fixtures of the proving ground."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.spaces import missing


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips, and says what to install, where no namespaces can be made."""
    reason = missing()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A server's certificate and key."""
    from tests.netns.servers import make_certificate

    yield make_certificate(tmp_path_factory.mktemp("certificate"))
