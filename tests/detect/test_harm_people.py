"""What people say while blocks are in force, and whom a block concerns. Each test tells the harm it prevents."""

from __future__ import annotations

import pytest

from egressd.model import Target
from tests.detect.live_scene import ENFORCE, LiveScene, standing
from tests.detect.scene import A, B, C, Scene, X, Y, at, packed, when
from tests.detect.test_harm_shared import BLOCK, C2, held

ALLOW = "allow-destination {what} {more}owner=it reason=needed\n"


def allow(what: str, more: str = "") -> str:
    return ALLOW.format(what=what, more=more + " " if more else "")


# -- allowances


def test_an_allowance_ends_while_the_block_is_in_force() -> None:
    """An allowance for a day that is never noticed to have ended leaves a hole for ever.

    While it holds the name is passed and nothing is told; from its end on the block is back for it."""
    scene = LiveScene(allow=allow("tools.bad.example", f"expires={when(100)}"))
    scene.resolve(0, A, C2, X)
    scene.resolve(10, B, "tools.bad.example", Y)
    assert held(scene) == ([X], []) and scene.counts(B) == (0, 0)
    scene.resolve(101, B, "tools.bad.example", Y)
    assert held(scene) == ([X, Y], []) and scene.counts(B) == (1, 1)


def test_an_allowance_for_one_host() -> None:
    """The analyst's own machine is kept from what he studies; or, with an allowance for him, everybody may go there.

    His way stays open and counts for nothing; others are kept from it one by one, as they ask."""
    scene = LiveScene(allow=allow(X, f"client={A}"))
    scene.resolve(0, A, C2, X)
    scene.resolve(1, B, C2, X)
    assert held(scene) == ([], [(B, X)])
    assert scene.engine.blocks.covering(packed(A), packed(X)) is None


def test_an_allowance_is_added_while_the_block_is_in_force() -> None:
    """A wrong block that somebody takes back by an allowance must not stay in the kernel until it runs out.

    The block ends at once, with all that was added to it, and says by whose word."""
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.tls(1, B, Y, C2)
    scene.swap(10, C2, allow("bad.example"))
    assert scene.blocks == [] and held(scene) == ([], [])
    assert scene.said("withdraw") == [("withdraw", "allow-destination", "registered_domain bad.example")]
    scene.resolve(20, C, C2, X)
    assert scene.said("block") == [BLOCK]


def test_an_allowance_for_an_address_is_added_and_taken_back() -> None:
    """An address that was allowed for a while would never be blocked again, because it was refused once.

    With the allowance the address is free; without it the next answer blocks it."""
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.swap(10, C2, allow(X))
    assert held(scene) == ([], [])
    scene.resolve(20, A, C2, X)
    scene.swap(30, C2)
    scene.resolve(40, A, C2, X)
    assert held(scene) == ([X], [])


def test_an_allowed_site_lives_on_the_address() -> None:
    """A site under a listed domain that an operator allows lives on the same address as the listed names.

    The address is not blocked for everybody: the allowed site is a tenant like any innocent one."""
    scene = LiveScene(allow=allow("tools.bad.example"))
    scene.resolve(0, B, "tools.bad.example", X)
    scene.resolve(1, A, C2, X)
    assert held(scene) == ([], [(A, X)])


def test_never_block_but_alert() -> None:
    """A partner's domain is listed, and business stops before anybody has looked.

    `never-block` leaves the traffic alone; sightings, incidents and one alert tell of it."""
    scene = LiveScene(allow="never-block bad.example owner=it reason=partner\n")
    scene.resolve(0, A, C2, X)
    scene.tls(1, A, X, C2)
    assert scene.said() == [("alert", "never-block", "registered_domain bad.example")]
    assert held(scene) == ([], []) and len(scene.incidents) == 1


def test_never_block_inside_what_would_be_blocked() -> None:
    """One name that must stay open lies under a listed domain, and the block of the whole takes it along.

    The whole is not blocked; a person must decide how to narrow it."""
    scene = LiveScene("bad.example", "never-block pay.bad.example owner=it reason=payments\n")
    scene.resolve(0, A, C2, X)
    assert scene.said() == [("alert", "never-block", "registered_domain bad.example")]
    assert "lies in bad.example; a person must decide" in scene.decisions[0].reason


def test_never_block_inside_what_is_blocked() -> None:
    """A name below a blocked domain is to stay open from now on, and the domain's block would go on taking it along.

    The block ends at once, as if it had never been made, and a person must decide; with the line it is gone, too."""
    scene = LiveScene("bad.example")
    scene.resolve(0, A, C2, X)
    scene.swap(10, "bad.example", "never-block pay.bad.example owner=it reason=payments\n")
    assert scene.said("withdraw") == [("withdraw", "never-block", "registered_domain bad.example")]
    assert scene.blocks == [] and held(scene) == ([], [])
    scene.resolve(20, A, C2, X)
    assert scene.said("alert") == [("alert", "never-block", "registered_domain bad.example")]
    scene.swap(30, "bad.example")
    scene.resolve(40, A, C2, X)
    assert held(scene) == ([X], [])


def test_a_host_that_is_ignored() -> None:
    """A scanner that asks for every listed name would fill the incidents, and cut others off by what it is told.

    What it does makes no sighting and no block."""
    scene = LiveScene(allow=f"ignore-client {A} owner=it reason=scanner\n")
    scene.resolve(0, A, C2, X)
    scene.tls(1, A, X, C2)
    assert scene.events == [] and held(scene) == ([], [])


# -- indicators that end


def test_an_indicator_ends_while_the_block_is_in_force() -> None:
    """A line for a week blocks for ever.

    At its time the block ends with all that was added to it; the next contact is nobody's business."""
    scene = LiveScene(f"{C2} expires={when(100)}")
    scene.resolve(0, A, C2, X)
    scene.engine.tick(at(101))
    assert scene.said("withdraw") == [("withdraw", "expired", "registered_domain bad.example")]
    scene.resolve(102, A, C2, X)
    assert scene.blocks == [] and held(scene) == ([], [])


def test_an_indicator_is_taken_out_while_the_block_is_in_force() -> None:
    """A feed takes back what was wrong, and the block of it stays.

    With the list the block ends, with all that was added to it."""
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.swap(10, "worse.example")
    assert scene.said("withdraw") == [("withdraw", "unlisted", "registered_domain bad.example")]
    assert held(scene) == ([], [])


def test_one_of_two_indicators_is_taken_out() -> None:
    """One feed takes a name back that another still lists, and the block would flap.

    The block stands on the other line."""
    scene = LiveScene("bad.example\nc2.bad.example")
    scene.resolve(0, A, C2, X)
    scene.swap(10, "bad.example")
    assert scene.said("withdraw") == [] and held(scene) == ([X], [])


def test_two_listed_names_share_an_address_and_one_is_taken_out() -> None:
    """The end of one block opens an address that another block still covers.

    The address stays blocked for the other name's sake."""
    scene = LiveScene("bad.example\nworse.example")
    scene.resolve(0, A, C2, X)
    scene.resolve(1, A, "c2.worse.example", X)
    scene.swap(10, "worse.example\n")
    assert scene.blocks == ["registered_domain worse.example"]
    assert scene.engine.blocks.covering(packed(B), packed(X)) is not None


# -- several packet processes


def test_another_process_adds_addresses() -> None:
    """Each packet process has a budget, and together they add many times of what an operator allowed.

    What others added within the hour counts here too, addresses of one block and blocks in all."""
    scene = LiveScene("bad.example\nworse.example\nworst.example")
    scene.resolve(0, A, C2, X)
    for number in range(1, 17):
        told = standing("bad.example", id_="D1", addresses=tuple(f"203.0.113.{one}" for one in range(1, number + 1)))
        scene.engine.adopt(told, at(number))
    scene.resolve(20, A, C2, Y)
    assert scene.said("refuse") == [("refuse", "budget", f"address {Y}")]
    scene.resolve(3_640, A, C2, Y)
    assert scene.said("extend")[-1] == ("extend", "address", f"address {Y}")


def test_another_process_blocks() -> None:
    """As with addresses: so many blocks an hour, whichever process makes them.

    What others blocked counts; what a restart or a list brings back from days ago, and what people block, does not."""
    scene = LiveScene("bad.example\nworse.example", settings=ENFORCE._replace(blocks_per_hour=2))
    scene.engine.adopt(standing("old.example", id_="D7", second=-86_400), at(0))
    scene.engine.adopt(standing("again.example", id_="D9")._replace(began_us=at(-86_400)), at(0))
    scene.engine.adopt(standing("listed.example", id_="D8"), at(0))
    scene.resolve(1, A, C2, X)
    scene.resolve(2, B, "c2.worse.example", Y)
    assert scene.said("block") == [BLOCK]
    assert scene.said("alert") == [("alert", "budget", "registered_domain worse.example")]


def test_a_host_has_its_share_in_every_process() -> None:
    """Each packet process gives a host a share of the blocks, and takes another's narrow block for one for everybody.

    Which host caused a block, and whether it is for that host alone, is told to all of them."""
    scene = LiveScene("bad.example\nworse.example", settings=ENFORCE._replace(blocks_per_hour=4))
    told = standing("listed.example", id_="D8")._replace(client=packed(A), rule="level-host")
    scene.engine.adopt(told, at(0))
    scene.engine.adopt(standing("bad.example", id_="D9")._replace(client=packed(A), rule="share"), at(0))
    scene.resolve(1, A, C2, X)
    scene.resolve(2, A, "c2.worse.example", Y)
    assert held(scene) == ([], [(A, X), (A, Y)])
    assert scene.said("block") == [("block", "share:level-host", "registered_domain worse.example")]
    scene.engine.adopt(standing("bad.example", id_="D9")._replace(client=packed(A), rule="level-host"), at(3))
    scene.resolve(4, A, C2, X)
    assert held(scene) == ([X], [(A, X), (A, Y)])


# -- whom it concerns


def test_two_segments_are_hit() -> None:
    """Two offices share the gateway, and the second is never told that it is hit too (Japan 2015).

    One block for both, an incident for each host, one campaign."""
    scene = LiveScene()
    scene.resolve(0, "10.1.0.5", C2, X)
    scene.resolve(60, "10.2.0.5", "b.bad.example", X)
    assert scene.said() == [BLOCK, ("extend", "address", f"address {X}")]
    assert [one.client for one in scene.incidents] == [packed("10.1.0.5"), packed("10.2.0.5")]
    assert len({one.campaign for one in scene.incidents}) == 1


def test_hosts_of_an_innocent_site_are_no_attempts() -> None:
    """A host that visits the innocent site on a shared address is reported as infected.

    Connections without a name to an address that others share count for nobody."""
    scene = LiveScene()
    scene.resolve(0, B, "www.florist.example", X)
    scene.resolve(1, A, C2, X)
    scene.flow(2, B, X)
    scene.tls(2.1, B, X, "www.florist.example")
    scene.flow(3, C, X, 41000)
    assert scene.counts(B) == scene.counts(C) == (0, 0)
    assert scene.attempts == []


def test_nothing_is_isolated_by_itself() -> None:
    """A host that is cut off whole because of one name, with a patient's monitor on it.

    Whatever policy does by itself acts on destinations and pairs, never on a host or a segment."""
    scene = LiveScene(f"bad.example\n{Y}")
    for second in range(50):
        scene.resolve(second, A, C2, X)
        scene.tls(second + 0.1, A, X, C2, 40_000 + second)
        scene.flow(second + 0.2, A, Y, 45_000 + second)
    kinds = {target.kind for one in scene.decisions for target in one.targets}
    assert kinds == {"registered_domain", "address"}


def test_what_a_person_blocked_stays() -> None:
    """An innocent name on an address that a person blocked for one host would undo what he did.

    His pair stands, whatever is seen there; his end of it is his."""
    scene = LiveScene()
    pair = Target("pair", f"{A}>{X}")
    scene.engine.adopt(standing(target=pair, level="person", pairs=((A, X),)), 1)
    for number, site in enumerate(("one.example", "two.example")):
        scene.resolve(number, B, site, X)
    assert held(scene) == ([], [(A, X)])


def test_a_restart_after_the_ranges_were_edited() -> None:
    """What was blocked before a restart comes back from the ledger, though its range was added meanwhile.

    What stands again is looked at against the ranges of now."""
    scene = LiveScene(ranges="198.51.100.0/24 operator=CDN")
    scene.engine.adopt(standing(addresses=(X, "203.0.113.9"), pairs=((B, Y),)), 1)
    assert held(scene) == (["203.0.113.9"], [])
    assert scene.said() == [("withdraw", "shared", f"address {X}"), ("withdraw", "shared", f"pair {B}>{Y}")]


@pytest.mark.parametrize("mode", ["monitor", "approve", "enforce"])
def test_the_same_verdicts_in_every_mode(mode: str) -> None:
    """A trial in mode monitor that says other things than enforce will do is worth nothing.

    With the resolvers known, verdicts and targets are the same in every mode; only the mode in them differs."""
    scene = LiveScene(settings=ENFORCE._replace(mode=mode), ranges="203.0.113.0/24 operator=CDN")
    scene.resolve(0, A, C2, X, "203.0.113.9", "192.0.2.1")
    assert scene.said() == [
        BLOCK, ("extend", "address", f"address {X}"), ("refuse", "shared", "address 203.0.113.9"),
        ("refuse", "protected", "address 192.0.2.1"),
    ]  # fmt: skip
    assert {one.mode for one in scene.decisions} == {mode}


def test_a_replay_says_the_same_twice() -> None:
    """Verdicts that depend on the order of a set cannot be explained afterwards.

    The same traffic gives the same decisions, word for word."""

    def told() -> list[str]:
        scene = Scene("bad.example\nworse.example", ranges="203.0.113.0/24 operator=CDN")
        for number in range(40):
            scene.resolve(number, A, C2, f"198.51.100.{number}", f"203.0.113.{number}")
            scene.resolve(number + 0.5, B, f"s{number % 5}.site{number % 7}.example", f"198.51.100.{number % 3}")
        return [repr(one) for one in scene.decisions]

    assert told() == told()
