"""What compiled code (scripts/compile.py) is told of classes. To CPython it says nothing.

`@mypyc_attr(acyclic=True)`: what an instance holds never leads back to it, so the garbage collector need not know it.
That spares 16 bytes each, and the look at young ones. For what packets make by the thousand, out of plain values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**said):
        """A decorator that leaves the class as it is."""
        return _itself


def _itself(made: type) -> type:
    return made
