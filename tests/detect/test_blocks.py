"""Blocks in force: found by target, address and pair, and nothing left behind when they go."""

from __future__ import annotations

import pytest

from egressd.detect.blocks import Block, Blocks, main_target
from egressd.model import Match, Target
from tests.detect.scene import A, B, X, Y, listed, packed


def match(line: str, level: str = "host") -> Match:
    (indicator,) = listed(line)
    return Match(level, indicator, indicator.registered_domain, "example")


def block(blocks: Blocks, line: str = "bad.example") -> Block:
    found = match(line)
    return blocks.add(main_target(found), found, 0)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("c2.bad.example", Target("registered_domain", "bad.example")),
        ("c2.bad.example scope=host", Target("host", "c2.bad.example")),
        ("c2.bad.example scope=exact", Target("exact", "c2.bad.example")),
        ("*.c2.bad.example", Target("host", "c2.bad.example")),
        ("www.platform.example", Target("host", "www.platform.example")),
        ("hosted.example force=yes", Target("exact", "hosted.example")),
        (X, Target("address", X)),
        ("198.51.100.0/24", Target("network", "198.51.100.0/24")),
        ("http://bad.example/x", Target("url", "bad.example/x")),
    ],
)
def test_what_a_block_is_about(line: str, target: Target) -> None:
    assert main_target(match(line)) == target


def test_ids_count_up_whatever_was_removed() -> None:
    blocks = Blocks()
    first = block(blocks)
    blocks.remove(first)
    second = block(blocks)
    assert (first.id, second.id, len(blocks)) == ("D1", "D2", 1)
    assert blocks.by_id == {"D2": second}


def test_addresses_cover_everybody_and_pairs_one() -> None:
    blocks = Blocks()
    one, two = block(blocks), block(blocks, "worse.example")
    blocks.add_address(one, packed(X), 1)
    blocks.add_pair(two, packed(A), packed(Y), 2)
    assert blocks.covering(packed(B), packed(X)) is one
    assert blocks.covering(packed(B), packed(f"::ffff:{X}")) is one
    assert blocks.covering(packed(A), packed(Y)) is two
    assert blocks.covering(packed(B), packed(Y)) is None
    assert blocks.is_held(packed(X)) and blocks.is_held(packed(Y)) and not blocks.is_held(packed("203.0.113.1"))
    assert blocks.holders(packed(X)) == [one]
    assert blocks.holders(packed(Y)) == []
    assert blocks.pairs_at(packed(Y)) == [(two, packed(A))]
    assert blocks.pairs_at(packed(X)) == []


def test_an_address_of_two_blocks_is_held_until_both_let_go() -> None:
    blocks = Blocks()
    one, two = block(blocks), block(blocks, "worse.example")
    for holder in (one, two, one):
        blocks.add_address(holder, packed(X), 1)
        blocks.add_pair(holder, packed(A), packed(Y), 1)
    assert (blocks.addresses, blocks.pairs) == (2, 2)
    blocks.withdraw_address(one, packed(X))
    blocks.withdraw_pair(one, packed(A), packed(Y))
    assert blocks.covering(packed(B), packed(X)) is two
    assert blocks.covering(packed(A), packed(Y)) is two
    blocks.remove(two)
    assert not blocks.is_held(packed(X)) and not blocks.is_held(packed(Y))
    assert (blocks.addresses, blocks.pairs) == (0, 0)


def test_two_forms_of_one_address_are_held_apart() -> None:
    blocks = Blocks()
    one = block(blocks)
    blocks.add_address(one, packed(X), 1)
    blocks.add_address(one, packed("64:ff9b::c633:6407"), 1)
    assert blocks.holders(packed(X)) == [one]
    blocks.withdraw_address(one, packed(X))
    assert blocks.covering(packed(B), packed(X)) is one
    blocks.withdraw_address(one, packed("64:ff9b::c633:6407"))
    assert blocks.covering(packed(B), packed(X)) is None
