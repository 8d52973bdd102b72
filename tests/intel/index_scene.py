"""What the tests of indexes share: an index in memory as the file would hold it."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from egressd.intel.index_format import suffix_digest
from egressd.intel.mapped import MappedIndex, open_mapped
from egressd.intel.mapped_build import IndexBuilder, in_turn
from egressd.model import Indicator
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse("com\njp\nco.jp\n*.ck\n!www.ck\n// ===BEGIN PRIVATE DOMAINS===\ngithub.io\n")
SALT = b"sixteen bytes ok"


class Scratch:
    """A scratch file in memory."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def append(self, packed: bytes) -> int:
        self._bytes += packed
        return len(self._bytes) - len(packed)

    def read(self, place: int, size: int) -> bytes:
        return bytes(self._bytes[place : place + size])

    def close(self) -> None:
        self._bytes.clear()


def built(indicators: Iterable[Indicator], built_s: int = 0, **bounds: int) -> bytes:
    """The bytes of an index file; the builder's bounds by name."""
    builder = IndexBuilder(SALT, suffix_digest("test"), built_s, Scratch)
    builder.first.max_waiting = bounds.pop("max_waiting", builder.first.max_waiting)
    for name, bound in bounds.items():
        setattr(builder, name, bound)
    builder.extend(indicators)
    file = BytesIO()
    builder.write(file)
    return file.getvalue()


def built_in_lanes(indicators: list[Indicator], lanes: int, stretches: int) -> bytes:
    """The bytes of an index file that several builders made, each of its share, written in stretches."""
    whole = IndexBuilder(SALT, suffix_digest("test"), 0, Scratch)
    for lane in range(lanes):
        builder = IndexBuilder(SALT, suffix_digest("test"), 0, Scratch, lane, lanes)
        builder.part()
        builder.extend(indicators[lane::lanes])
        whole.join(builder, builder.told())
    file = BytesIO()
    whole.write(file, in_turn, stretches)
    return file.getvalue()


def opened(raw: bytes, suffixes: Suffixes = SUFFIXES) -> MappedIndex:
    """The index in these bytes."""

    def read(at: int, size: int) -> bytes:
        return raw[at : at + size]

    def map_words(at: int, size: int) -> memoryview:
        return memoryview(raw[at : at + size]).cast("Q")

    return open_mapped(len(raw), read, map_words, suffixes)


def mapped(
    indicators: Iterable[Indicator], built_s: int = 0, suffixes: Suffixes = SUFFIXES, **bounds: int
) -> MappedIndex:
    """A mapped index of these."""
    return opened(built(indicators, built_s, **bounds), suffixes)
