"""A packet process that cannot have its lists says so and ends; the core starts another one."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

from egressd.intel.index import Index
from egressd.intel.index_format import suffix_digest
from egressd.intel.layered import LayeredIndex
from egressd.intel.mapped_build import IndexBuilder
from egressd.runtime.messages import DOWN_OBJECT, render_frame
from egressd.runtime.packet_process import NO_INDEX
from egressd.store.index_files import IndexFolder, ScratchFile, open_index
from tests.intel.index_scene import SALT, SUFFIXES


def test_an_index_that_is_gone(tmp_path: Path) -> None:
    builder = IndexBuilder(SALT, suffix_digest("test"), 0, partial(ScratchFile, tmp_path))
    path = IndexFolder(tmp_path).write(builder.write, {})
    order = pickle.dumps(LayeredIndex(Index.build([], SUFFIXES), (open_index(str(path), b"", SUFFIXES),), SUFFIXES))
    path.unlink()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(render_frame(DOWN_OBJECT, order))
        done = subprocess.run(
            [sys.executable, "-m", "egressd.runtime.packet_process", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True, check=False, timeout=30,
        )  # fmt: skip
    assert done.returncode == NO_INDEX
    assert "index-1.idx: No such file or directory; reload the lists" in done.stderr
