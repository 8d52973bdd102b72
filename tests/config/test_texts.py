"""Text files that people name: whose links are followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from egressd.config.texts import read_text
from egressd.errors import Problem


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make links as another user")
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_of_somebody_who_has_not_the_file_is_not_followed(tmp_path: Path, is_folder: bool) -> None:
    """Who may only write lists was told, as mistakes with their lines, what is in any file that the daemon may read."""
    secret = tmp_path / "of_root" / "credential"
    secret.parent.mkdir()
    secret.write_text("token: secret\n")
    link = tmp_path / "lists" if is_folder else tmp_path / "x.txt"
    link.symlink_to(secret.parent if is_folder else secret)
    path = link / "credential" if is_folder else link
    assert read_text(path, "x.txt", 100) == "token: secret\n", "root's link"
    os.chown(link, 65534, 65534, follow_symlinks=False)
    found = read_text(path, "x.txt", 100)
    assert isinstance(found, Problem) and found.what == "is reached by a link of user 65534, and is not that user's"
    os.chown(secret, 65534, 65534)
    assert read_text(path, "x.txt", 100) == "token: secret\n", "the owner's link"
