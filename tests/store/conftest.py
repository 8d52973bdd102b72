"""For the tests of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from egressd.store.db import Database
from tests.store.scene import ledger_at


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Database]:
    with ledger_at(tmp_path / "ledger.db") as opened:
        yield opened
