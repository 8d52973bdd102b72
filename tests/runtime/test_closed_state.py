"""A state folder that is closed to the daemon, or can only be read, while it runs: nothing ends, each trouble is told
once, and all is well again when the folder is opened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loops import HANG_S

CLOSED = {"closed": 0o000, "read-only": 0o500}
# Root may come in anywhere, but for this.
POWERS = "-dac_override,-dac_read_search"
CONFINED = ("setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}")


@pytest.mark.parametrize("how", CLOSED)
@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="needs setpriv (util-linux), as root")
def test_a_state_folder_that_is_closed_ends_nothing(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-m", "tests.runtime.closed_state", str(tmp_path), str(CLOSED[how])]
    try:
        done = subprocess.run(
            [*(CONFINED if os.geteuid() == 0 else ()), *command], capture_output=True, text=True, timeout=HANG_S,
            check=False,
        )  # fmt: skip
    finally:
        (tmp_path / "state").chmod(0o700)
    assert done.returncode == 0, done.stderr[-3_000:]
    told: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(told, indent=1))
    for stage in ("whole", "shut", "open"):
        assert told[stage]["failed"] == [], stage
    lines = told["shut"]["told"]
    assert len(lines) == len(set(lines)), "each is told once"
    assert any("ledger.db.backup" in line for line in lines) and any("back" in one for one in told["shut"]["shown"])
    assert all(line.endswith("works again") for line in told["open"]["told"])
    assert told["open"]["shown"] == []
    assert (told["events"], told["errors"], told["history"]) == (6, 0, 6), "what could be written all the time was"
    assert told["marks"] == ["proxy"]
