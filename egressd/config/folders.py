"""Where shipped files are; and of folders whose files a pattern names: what is not there, and what we may not look at,
which is not the same."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

ABSENT: Final = "absent"
SHIPPED: Final = Path(__file__).resolve().parent.parent / "intel" / "data"
SHIPPED_POLICY: Final = SHIPPED / "policy.yaml"  # config/policy.yaml is the same, to be read and copied

_CLOSED: Final = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


def may_be_file(path: Path) -> bool:
    """Whether to read it. What may not be looked at is taken for a file: reading it tells why it cannot be. So is a
    link that leads nowhere, to a share that is not mounted, perhaps: nobody has taken the list away."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno in _CLOSED or os.path.islink(path)  # noqa: PTH114  (Path.is_symlink raises)


def why_closed(folder: Path) -> str:
    """Why nobody can say what is in a folder: ABSENT, the system's reason, or "" when one can."""
    try:
        with os.scandir(folder):
            return ""
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except OSError as error:
        return error.strerror or type(error).__name__
