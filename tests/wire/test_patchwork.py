"""Both ways to put pieces together, against a map of single bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egressd.wire.patchwork import PIECE_OVERHEAD, Patchwork

PIECES = st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=16)), max_size=12)


def laid_out(made: Patchwork) -> dict[int, int]:
    """The bytes that are there, by place; the pieces must be sorted and apart."""
    found: dict[int, int] = {}
    behind = 0
    for start, piece in zip(made.starts, made.pieces, strict=True):
        assert piece
        assert start >= behind
        behind = start + len(piece)
        found.update(enumerate(piece, start))
    assert made.have == len(found)
    assert made.cost == made.have + PIECE_OVERHEAD * len(made.pieces)
    return found


@given(PIECES)
def test_the_byte_that_came_first_stands(pieces: list[tuple[int, bytes]]) -> None:
    made, expected = Patchwork(), {}  # type: tuple[Patchwork, dict[int, int]]
    for start, body in pieces:
        new = dict(enumerate(body, start))
        agrees = all(expected.get(at, byte) == byte for at, byte in new.items())
        assert made.insert(start, body) == agrees
        expected = {**new, **expected}
        assert laid_out(made) == expected


@given(PIECES)
def test_the_byte_that_came_last_stands(pieces: list[tuple[int, bytes]]) -> None:
    made, expected = Patchwork(), {}  # type: tuple[Patchwork, dict[int, int]]
    for start, body in pieces:
        made.lay(start, True, body, 17)
        expected |= dict(enumerate(body, start))
        assert laid_out(made) == expected


@given(PIECES, st.integers(0, 40), st.binary(min_size=1, max_size=16))
def test_the_last_fragment_ends_what_came_last(pieces: list[tuple[int, bytes]], start: int, body: bytes) -> None:
    made = Patchwork()
    for at, piece in pieces:
        made.lay(at, True, piece, 17)
    before = laid_out(made)
    made.lay(start, False, body, 17)
    kept = {at: byte for at, byte in before.items() if at < start}
    assert laid_out(made) == {**kept, **dict(enumerate(body, start))}
    assert made.total == start + len(body)
    assert made.is_whole == (made.have == made.total)


def test_a_copy_goes_its_own_way() -> None:
    one = Patchwork()
    assert one.fits(8, True)
    one.insert(0, b"12345678")
    other = one.copy()
    other.lay(0, True, b"abcdefgh", 6)
    assert (one.joined(), other.joined()) == (b"12345678", b"abcdefgh")


def test_what_ends_elsewhere_does_not_fit() -> None:
    one = Patchwork()
    assert one.fits(16, False)
    assert not one.fits(24, False)
    assert not one.fits(24, True)
    assert one.fits(8, True)
    long = Patchwork()
    long.insert(0, bytes(16))
    assert not long.fits(8, False)
