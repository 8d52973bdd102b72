"""Numbers in network byte order, and which of two forms of a loop to run.

CPython is quickest with one `Struct.unpack_from` for several fields, compiled code (scripts/compile.py) with indexing:
a call through the struct module costs it some 500 instructions, these functions a dozen. So what runs for every packet
has a form for each, chosen by COMPILED, with the same results; the tests run both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # a machine integer to mypyc, and nothing at run time
    from mypy_extensions import i64

COMPILED: Final = not __file__.endswith(".py")


def read_u16(buf: bytes, at: i64) -> i64:
    """Two bytes as a number."""
    first: i64 = buf[at]
    second: i64 = buf[at + 1]
    return first << 8 | second


def read_u32(buf: bytes, at: i64) -> i64:
    """Four bytes as a number."""
    first: i64 = buf[at]
    second: i64 = buf[at + 1]
    third: i64 = buf[at + 2]
    fourth: i64 = buf[at + 3]
    return first << 24 | second << 16 | third << 8 | fourth
