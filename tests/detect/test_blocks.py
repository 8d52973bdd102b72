"""Blocks in force: found by target, address and pair, and nothing left behind when they go."""

from __future__ import annotations

import pytest

from egressd.detect.blocks import MAX_ADDRESS_HOLDERS, MAX_PAIR_HOLDERS, Block, Blocks, main_target
from egressd.detect.coverage import E1, E2
from egressd.model import Match, Target
from tests.detect.scene import A, B, Scene, X, Y, listed, packed


def match(line: str, level: str = "host") -> Match:
    (indicator,) = listed(line)
    return Match(level, indicator, indicator.registered_domain, "example")


def block(blocks: Blocks, line: str = "bad.example") -> Block:
    found = match(line)
    return blocks.add(main_target(found), found, 0)


def test_a_connection_meets_whichever_block_holds_the_address_as_it_is_written() -> None:
    """Only the first block of a place was asked, which held it as IPv4 alone or was in no kernel, and an answer to what
    the second stops was no leak."""
    blocks = Blocks()
    written = packed(f"64:ff9b::{X}")
    first, second = block(blocks), block(blocks, "worse.example")
    second.enforced = True
    blocks.add_address(first, packed(X), 0)
    blocks.add_address(second, written, 0)
    assert blocks.covering(packed(A), written) is first
    assert blocks.stops(packed(A), written, 10_000) and not blocks.stops(packed(A), written, 9_999)
    assert not blocks.stops(packed(A), packed(X), 10_000)  # that block waits for a person
    blocks.withdraw_address(second, written)
    blocks.add_pair(second, packed(A), written, 0)
    assert blocks.stops(packed(A), written, 10_000) and not blocks.stops(packed(B), written, 10_000)


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


def test_several_who_number_their_blocks_never_meet() -> None:
    given: set[str] = set()
    for process in range(3):
        blocks = Blocks()
        blocks.number_from(100 + process, 4)
        given |= {block(blocks, f"d{number}.example").id for number in range(5)}
    assert len(given) == 15
    assert all(int(id_[1:]) % 4 != 99 % 4 for id_ in given)  # that class is for people


def test_an_id_given_elsewhere_uses_up_no_number() -> None:
    blocks = Blocks()
    found = match("bad.example")
    foreign = blocks.add(main_target(found), found, 5, "D77")
    assert (foreign.id, foreign.created_us, blocks.by_id["D77"]) == ("D77", 5, foreign)
    assert block(blocks, "worse.example").id == "D1"


def test_a_renamed_block_keeps_what_it_holds() -> None:
    blocks = Blocks()
    one = block(blocks)
    blocks.add_address(one, packed(X), 1)
    blocks.add_pair(one, packed(A), packed(Y), 1)
    blocks.rename(one, "D9")
    assert (list(blocks.by_id), one.id, blocks.by_target[one.target]) == (["D9"], "D9", one)
    assert blocks.covering(packed(B), packed(X)) is one
    blocks.remove(one)
    assert (blocks.by_id, blocks.by_target, blocks.addresses, blocks.pairs) == ({}, {}, 0, 0)


def test_what_is_held_again_rests_no_more() -> None:
    blocks = Blocks()
    one = block(blocks)
    one.resting = {packed(X): E2, packed(Y): E1}
    blocks.add_address(one, packed(X), 1)
    assert one.resting == {packed(Y): E1}
    blocks.add_pair(one, packed(A), packed(Y), 1)
    assert one.resting == {}


def test_more_blocks_at_one_address_than_change_anything() -> None:
    """Each would be looked at whenever somebody innocent is seen there: of ten thousand 70 ms a visit."""
    scene = Scene("\n".join(f"c2.bad{number}.example" for number in range(MAX_PAIR_HOLDERS + 20)))
    for site in ("www.good.example", "www.better.example"):
        scene.resolve(0, B, site, X)
    for number in range(MAX_PAIR_HOLDERS + 20):
        scene.tls(1 + number, A, X, f"c2.bad{number}.example", 40_000 + number)
    blocks = scene.engine.blocks
    assert (len(blocks), blocks.pairs, blocks.is_crowded(packed(X), packed(A))) == (36, MAX_PAIR_HOLDERS, True)
    scene.resolve(100, B, "www.best.example", X)
    assert (blocks.pairs, scene.rules("withdraw")) == (0, ["shared"] * MAX_PAIR_HOLDERS)


def test_blocks_for_everybody_at_one_address_and_the_address_in_ipv6() -> None:
    blocks = Blocks()
    for number in range(MAX_ADDRESS_HOLDERS):
        assert not blocks.is_crowded(packed(X))
        blocks.add_address(block(blocks, f"bad{number}.example"), packed(X), 0)
    assert blocks.is_crowded(packed(X)) and not blocks.is_crowded(packed(X), packed(A))
    assert not blocks.is_crowded(packed("64:ff9b::198.51.100.7")), "packets carry another address"
