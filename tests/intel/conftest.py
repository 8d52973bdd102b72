"""For the tests of intel."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from egressd.runtime import feed_build
from egressd.runtime.child import ChildError


@pytest.fixture(autouse=True)
def judged_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of feeds are judged in this process, which costs a tenth of a child; what goes down and comes up is
    packed as for one. A real child judges in tests/runtime/test_feed_build.py."""

    def ask_here(module: str, job: object) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(json.dumps(feed_build.run_in_child(pickle.loads(pickle.dumps(job)))))
        except OSError as error:
            raise ChildError("see what was logged above; is there room on the disk and in memory?") from error
        return answer

    monkeypatch.setattr(feed_build, "ask_child", ask_here)
