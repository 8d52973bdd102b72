"""The core as a whole: restarts, ids, the clock, reviews, modes; without packet processes and without a kernel."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from egressd.capture.rtnetlink import Address, Link
from egressd.capture.surroundings import Surroundings
from egressd.enforce.adapter import AdapterError
from egressd.errors import Malformed
from egressd.runtime import screens
from egressd.runtime.daemon import unread_rows
from egressd.runtime.in_force import RESTING
from egressd.runtime.named_hosts import NamedHosts
from egressd.runtime.orders import Adopt, Dropped, End, Learn, Swap
from egressd.store import meta
from egressd.store.decisions import ACTIVE, PROPOSED
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import BERT, CONFIG, Site, site_at
from tests.runtime.process import Process
from tests.runtime.scene import (
    SECOND,
    T0,
    A,
    B,
    Hands,
    X,
    Y,
    about,
    address,
    attempt,
    flow,
    match,
    pair,
    sighting,
    verdict,
)

LISTED = match("c2.listed.example")
OURS = about("listed.example")
TWO = CONFIG + "capture: {processes: 2}\n"


def policy_block(*more: Any, id_: str = "D1", mode: str = "enforce") -> list[Any]:
    told = [sighting(found=LISTED), verdict(id_, "block", OURS, found=LISTED, mode=mode)]
    return [*told, verdict(id_, "extend", *more, found=LISTED)] if more else told


def numbers(site: Site) -> list[int]:
    """The first number of each class: people's, then those of the packet processes."""
    first = [site.core.start_of(number)[0].first_number for number in range(site.core.config.capture.processes)]
    return [int(site.core.new_id()[1:]), *first]


# -- restarts


@in_loop
async def test_everything_that_stood_stands_again(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(
            *policy_block(address(X), pair(A, Y)),
            attempt(A, 5, first=True, found=LISTED),
            attempt(A, 6, leak=True, found=LISTED),
        )
        site.hands.pass_s(601)
        await site.core.tick()  # the address was tried, the pair was not
        before = (
            site.rules(),
            site.core.register.by_id["D1"].held,
            site.core.intake.leaks,
            list(site.core.campaigns.incidents),
        )
        await site.core.scribe.settled()
        hands = site.hands
    async with site_at(tmp_path, hands=hands) as again:
        one = again.core.register.by_id["D1"]
        assert again.rules() == before[0] == ["registered_domain listed.example", "address 198.51.100.7"]
        for target, held in before[1].items():
            now = one.held[target]
            assert (now.state, now.level, now.expires_us, now.added_us, now.attempts) == (
                held.state, held.level, held.expires_us, held.added_us, held.attempts,
            )  # fmt: skip
        assert one.held[pair(A, Y)].state == RESTING
        assert (again.core.intake.leaks, list(again.core.campaigns.incidents)) == before[2:]
        watch = again.core.intake.watched.by_decision["D1"][A]
        assert (watch.count, watch.leaks, watch.first_us) == (1, 1, T0 + 5 * SECOND)
        _, (adopt, *_) = again.core.start_of(0)
        assert isinstance(adopt, Adopt)
        assert (adopt.standing[0].addresses, adopt.standing[0].resting) == ((X,), ((Y, "E1"),))


@in_loop
@pytest.mark.parametrize("value", ["'{'", "CAST(x'ff' AS TEXT)"])
async def test_a_block_stands_again_though_its_reasons_are_damaged(tmp_path: Path, value: str) -> None:
    """What is listed still finds its reasons anew; its incident counts on."""
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(X)))
        await site.core.scribe.settled()
        rules, hands = site.rules(), site.hands
        for table in ("decisions", "incidents"):
            await site.ledger.run(lambda one, name: one.execute(f"UPDATE {name} SET match = {value}"), table)
    async with site_at(tmp_path, hands=hands) as again:
        assert again.rules() == rules
        assert again.core.register.by_id["D1"].match.indicator.source == "csirt.txt"
        again.sees(sighting(B, found=LISTED))
        again.sees(sighting(A, found=LISTED))
        assert {one.client for one in again.core.campaigns.incidents.values()} == {A, B}
        await again.core.scribe.settled()
        assert again.core.scribe.trouble == ""
        assert len((await screens.hosts(again.core))["hosts"]) == 2


def test_damaged_rows_are_named_and_many_are_counted() -> None:
    assert unread_rows(["decision D1: x"]) == ["the ledger is damaged: decision D1: x"]
    many = unread_rows([f"watch of D{number}: x" for number in range(1, 1_012)])
    assert (len(many), many[-1]) == (11, "the ledger is damaged: and 1,001 rows more")


@in_loop
async def test_what_was_tried_before_a_restart_goes_on_after_it(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(X)))
        site.hands.pass_s(10)
        site.sees(attempt(A, 10, found=LISTED))
        await site.core.scribe.settled()
        hands = site.hands
    hands.pass_s(600)
    async with site_at(tmp_path, hands=hands) as again:
        await again.core.tick()
        held = again.core.register.by_id["D1"].held[address(X)]
        assert (held.state, held.level, held.attempts) == (ACTIVE, 1, 1)


@in_loop
async def test_what_ended_while_we_were_away_ends_at_the_first_tick(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="198.51.100.7", for_s=60)
        hands = site.hands
    hands.pass_s(3_600)
    async with site_at(tmp_path, hands=hands) as again:
        await again.core.tick()
        assert again.rules() == []


# -- ids


@pytest.mark.parametrize("config", [CONFIG, TWO])
@in_loop
async def test_numbers_of_people_and_processes_never_meet(tmp_path: Path, config: str) -> None:
    async with site_at(tmp_path, config=config) as site:
        stride = site.core.config.capture.processes + 1
        first = numbers(site)
        assert len({number % stride for number in first}) == stride
        starts = [site.core.start_of(number)[0] for number in range(stride - 1)]
        assert {start.stride for start in starts} == {stride}
        assert all(start.first_number % stride == start.number + 1 for start in starts)
        assert int(site.core.new_id()[1:]) == first[0] + stride


@in_loop
async def test_numbers_go_on_after_all_that_were_given(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(id_="D7"))
        assert min(numbers(site)) > 7
        await site.core.scribe.settled()
    async with site_at(tmp_path) as again:
        assert min(numbers(again)) > 7


@in_loop
async def test_a_process_that_begins_anew_gives_no_number_of_what_has_ended(tmp_path: Path) -> None:
    """Else its decision is refused by the ledger, which has one of that number."""
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(id_="D7"))
        await site.do("unblock", what="D7")
        assert site.core.start_of(0)[0].first_number > 7
        assert int(site.core.new_id()[1:]) > 7
        await site.core.scribe.settled()
    async with site_at(tmp_path) as again:
        assert min(numbers(again)) > 7


# -- reviews


@in_loop
async def test_what_becomes_protected_is_given_free(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(X), address(Y), pair(A, X)))
        site.core.station.around = site.core.station.around._replace(networks=((X, 32, "gateway of this machine"),))
        await site.core.renew()
        assert site.rules() == ["registered_domain listed.example", "address 198.51.100.8"]
        row = await site.row("D1")
        assert [one.state for one in row.targets] == [ACTIVE, "withdrawn", ACTIVE, "withdrawn"]
        kept = [(act, reason) for actor, act, _, reason in await site.audit() if actor == "rule:kept"]
        assert len(kept) == 2 and all("gateway of this machine" in reason for _, reason in kept)


@in_loop
async def test_a_decision_rests_on_its_newest_line(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block())
        (tmp_path / "csirt.txt").write_text("# newer\nc2.listed.example threat=other\n")
        await site.core.reload()
        found = site.core.register.by_id["D1"].match.indicator
        assert (found.line, found.threat) == (2, "other")
        assert isinstance(site.told[-1], Swap)


# -- modes


@in_loop
async def test_from_monitor_to_approve_everything_waits_for_a_person(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.sees(*policy_block(address(X), mode="monitor"))
        await site.do("mode", BERT, mode="approve")
        assert (site.rules(), site.core.register.by_id["D1"].state) == ([], PROPOSED)
        assert (await site.row("D1")).state == PROPOSED
        await site.do("approve", id="D1")
        assert ("uid:anna", "approve", "D1") in [row[:3] for row in await site.audit()]
        assert site.rules() == ["registered_domain listed.example", "address 198.51.100.7"]


@in_loop
async def test_what_waits_for_a_person_waits_after_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.sees(*policy_block(mode="monitor"))
        await site.do("mode", BERT, mode="approve")
        await site.core.scribe.settled()
    async with site_at(tmp_path, "approve") as again:
        assert again.rules() == []


@in_loop
async def test_blocks_of_monitor_wait_for_a_person_when_the_next_start_is_in_approve(tmp_path: Path) -> None:
    """The operator edits `mode: approve` into the configuration and restarts: nobody said yes to anything."""
    async with site_at(tmp_path, "monitor") as site:
        site.sees(*policy_block(mode="monitor"))
        await site.core.scribe.settled()
    async with site_at(tmp_path, "approve") as again:
        assert (again.rules(), again.core.register.by_id["D1"].state) == ([], PROPOSED)


@pytest.mark.parametrize("restart", [False, True])
@in_loop
async def test_in_enforce_nothing_waits(tmp_path: Path, restart: bool) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(*policy_block(address(X), mode="approve"))
        assert site.rules() == []
        if not restart:
            await site.do("mode", BERT, mode="enforce")
            assert site.rules() == ["registered_domain listed.example", "address 198.51.100.7"]
        assert (await site.row("D1")).state == (PROPOSED if restart else ACTIVE)
    async with site_at(tmp_path, "enforce") as again:
        assert again.rules() == ["registered_domain listed.example", "address 198.51.100.7"]
        row = await again.row("D1")
        assert (row.state, row.mode) == (ACTIVE, "enforce")


@in_loop
async def test_a_mode_of_the_file_that_the_kernel_refused_is_tried_at_the_next_reading(tmp_path: Path) -> None:
    """It counted as taken: the file said enforce, no reload tried it again, and nothing was blocked."""
    async with site_at(tmp_path, "monitor") as site:
        await site.lose_mode()
        with pytest.raises(AdapterError, match="another egressd"):
            await site.core.reload()
        assert site.core.arming.mode == "monitor"
        site.kernel.refuses = ""
        assert "the mode is enforce" in await site.core.reload()
        assert site.core.arming.mode == "enforce"
        await site.do("mode", BERT, mode="monitor")
        await site.core.reload()
        assert site.core.arming.mode == "monitor"  # what a person has set since stands


@pytest.mark.parametrize("verb", ["panic", "mode"])
@in_loop
async def test_a_mode_that_the_kernel_refused_is_not_tried_again_once_a_person_disarms(
    tmp_path: Path, verb: str
) -> None:
    """The next list that was saved armed the gateway, behind the back of whoever had said that nothing be blocked."""
    async with site_at(tmp_path, "monitor") as site:
        await site.lose_mode()
        await site.do(verb, BERT, **({"mode": "monitor"} if verb == "mode" else {}))
        site.kernel.refuses = ""
        await site.core.reload(only_lists=True)
        assert site.core.arming.mode == "monitor"


@in_loop
async def test_what_a_person_says_of_modes_while_the_file_is_read_stands(tmp_path: Path) -> None:
    """A reload that had been asked for before `panic` armed the gateway behind it, and took back a segment's mode."""
    async with site_at(tmp_path, "monitor") as site:
        site.path.write_text(f"mode: enforce\n{CONFIG}")
        read = site.core.reloading.read

        async def slow(*args: Any, **options: Any) -> Any:
            found = await read(*args, **options)
            await site.do("mode", BERT, mode="approve", segment="lab")
            await site.do("panic", BERT)
            await site.do("mode", BERT, mode="approve", segment="lab")
            return found

        site.core.reloading.read = slow  # type: ignore[method-assign]
        await site.core.reload()
        assert (site.core.arming.mode, site.core.arming.modes) == ("monitor", {"lab": "approve"})


@in_loop
async def test_one_reading_is_over_before_the_next_begins(tmp_path: Path) -> None:
    """The one that took longer had the last word, whichever was asked for first."""
    async with site_at(tmp_path) as site:
        read, at_once, most = site.core.reloading.read, 0, 0

        async def counted(*args: Any, **options: Any) -> Any:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            try:
                return await read(*args, **options)
            finally:
                at_once -= 1

        site.core.reloading.read = counted  # type: ignore[method-assign]
        await asyncio.gather(*(site.core.reload() for _ in range(3)))
        assert most == 1


@in_loop
async def test_one_mode_is_set_before_the_next_is(tmp_path: Path) -> None:
    """`panic` while a reload arms: both changed the kernel at the same time."""
    async with site_at(tmp_path, "monitor") as site:
        changes: list[str] = []

        async def change_mode(mode: str) -> None:
            changes.append(f"to {mode}")
            for _ in range(5):
                await asyncio.sleep(0)
            changes.append(mode)

        site.kernel.change_mode = change_mode  # type: ignore[method-assign]
        await asyncio.gather(site.core.arming.set("enforce"), site.do("panic", BERT))
        assert changes == ["to enforce", "enforce", "to monitor", "monitor"]
        assert site.core.arming.mode == "monitor"


@in_loop
async def test_remedies_are_there_after_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("isolate", client="10.0.0.5", remedy=["10.9.0.1", "2001:db8:9::/64"])
        before = site.kernel.remedies
        await site.core.scribe.settled()
    async with site_at(tmp_path) as again:
        assert again.kernel.remedies == before == ((packed("10.9.0.1"), 32), (packed("2001:db8:9::"), 64))
        await again.do("release", client="10.0.0.5")
        await again.core.scribe.settled()
    async with site_at(tmp_path) as third:
        assert (third.core.isolation.remedies, third.kernel.remedies) == ({}, ())
        assert await third.ledger.read(meta.under, "remedies") == {}


# -- batches


@in_loop
async def test_a_batch_goes_to_everybody_concerned(tmp_path: Path) -> None:
    async with site_at(tmp_path, config=TWO) as site:
        seen: list[tuple[str, int, int]] = []
        site.core.on_canary = lambda name, seen_us, pushed_us: seen.append((name, seen_us, pushed_us))
        batch = Process().batch(
            canaries=[["x.canary.egressd.invalid", T0, -1]],
            history=[["0a000005", "a.example", "a.example", "c6336407", T0, T0, 1]],
            tenants=[["a.example", "c6336407", T0]],
        )
        await site.core.take(0, batch)
        assert seen == [("x.canary.egressd.invalid", T0, -1)]
        assert site.core.learning.history_waiting == [(A, "a.example", "a.example", X, T0, T0, 1)]
        assert site.core.learning.tenants_waiting == [("a.example", X, T0)]
        learned = [one for one in site.told if isinstance(one, Learn)]
        assert learned == [Learn((("a.example", X, T0),))]  # the other process alone
        with pytest.raises(Malformed):
            await site.core.take(0, {"canaries": [["x", "y", 0]]})


@in_loop
async def test_history_that_nobody_writes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from egressd.runtime import learning

    monkeypatch.setattr(learning, "HISTORY_WAITING", 3)
    async with site_at(tmp_path) as site:
        row = ["0a000005", "a.example", "a.example", "c6336407", T0, T0, 1]
        await site.core.take(0, Process().batch(history=[row] * 5, tenants=[["a.example", "c6336407", T0]] * 5))
        assert (
            len(site.core.learning.history_waiting),
            site.core.learning.history_lost,
            len(site.core.learning.tenants_waiting),
        ) == (3, 2, 3)


@in_loop
async def test_what_the_kernel_dropped_goes_to_the_packet_processes(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.core._dropped([(T0, flow())])
        assert site.told[-1] == Dropped(((T0, flow()),))


@in_loop
async def test_segments_and_campaigns_have_names(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        assert [site.core.segment_of(packed(one)) for one in ("10.1.0.9", "10.3.0.9")] == ["lab", ""]
        assert site.core.segment_of(b"") == ""
        site.sees(sighting(found=LISTED))
        assert (site.core.domain_of("C1"), site.core.domain_of("C9")) == ("listed.example", "")


@in_loop
async def test_two_processes_one_decision(tmp_path: Path) -> None:
    async with site_at(tmp_path, config=TWO) as site:
        site.sees(*policy_block(id_="D1"), number=0)
        site.sees(*policy_block(address(X), id_="D2"), attempt(A, 1, id_="D2", found=LISTED), number=1)
        assert list(site.core.register.by_id) == ["D1"]
        assert {one.id for order in site.told if isinstance(order, Adopt) for one in order.standing} == {"D1"}
        row = await site.row("D1")
        assert [one.target for one in row.targets] == [OURS, address(X)]
        assert row.targets[1].attempts == 1
        await site.do("unblock", what="D1")
        assert End(("D1",)) in site.told
        assert site.core.scribe.refused == 0


@in_loop
async def test_watches_are_bounded_after_a_restart_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    async with site_at(tmp_path) as site:
        site.sees(*policy_block(), attempt(A, found=LISTED), attempt(packed("10.0.0.9"), found=LISTED))
        await site.core.scribe.settled()
    monkeypatch.setattr("egressd.runtime.watched.MAX_WATCHES", 1)
    async with site_at(tmp_path) as again:
        await again.do("unblock", what="D1")
        again.sees(*policy_block(id_="D3"))
        again.sees(*(attempt(packed(f"10.0.0.{n}"), id_="D3", found=LISTED) for n in range(5)))
        assert len(again.core.intake.watched.by_decision["D3"]) == 1


# -- what this machine depends on


@in_loop
async def test_where_feeds_come_from_is_protected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressd.runtime.station.read_surroundings", lambda: Surroundings([], [], [], [], [], []))
    feeds = (
        "feeds:\n  c2: {url: https://feeds.ours.example/c2.txt}\n  old: {url: https://192.0.2.7/x, enabled: false}\n"
    )
    async with site_at(tmp_path, config=CONFIG + feeds) as site:
        core = site.core
        core.station.named = NamedHosts(lambda name: [packed("203.0.113.7")], lambda: 0.0)
        await core.look_around()
        await core.station.named.resolve_due()
        await core.look_around()
        protected = core.knowledge.intel.protected
        assert "feed c2 feeds.ours.example" in protected.why(packed("203.0.113.7"))
        assert not protected.why(packed("192.0.2.7"))


@in_loop
async def test_packet_processes_hear_which_networks_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = [Link(number, name, 1, b"", True, False, "", 0, 0) for number, name in ((2, "lan0"), (3, "wan0"))]
    addresses = [
        Address(2, packed("2001:db8:2::1"), packed("2001:db8:2::"), 64),
        Address(3, packed("2001:db8:f::1"), packed("2001:db8:f::"), 64),
    ]
    monkeypatch.setattr(
        "egressd.runtime.station.read_surroundings", lambda: Surroundings(links, addresses, [], [], [], [])
    )
    async with site_at(tmp_path, config=CONFIG + "capture: {interfaces: [lan0]}\n") as site:
        await site.core.look_around()
        await site.core.renew()
        assert [one for one in site.told if isinstance(one, Swap)][-1].settings.lan == (
            (packed("2001:db8:2::"), 64, ""),
        )


@in_loop
async def test_time_servers_and_administrators_are_protected_while_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of the address where the administrator sits, or of a time server, is lifted, and may come back later."""
    seen = [packed("192.0.2.7")]
    servers = ["time.ours.example", "192.0.2.123"]
    monkeypatch.setattr(
        "egressd.runtime.station.read_surroundings", lambda: Surroundings([], [], [], [], seen.copy(), servers.copy())
    )
    async with site_at(tmp_path) as site:
        core = site.core
        core.station.named = NamedHosts(lambda name: [packed("203.0.113.123")], lambda: 0.0)
        for where in ("192.0.2.7", "192.0.2.123", "203.0.113.123"):
            await site.do("block", what=where)
        await core.look_around()
        await core.station.named.resolve_due()
        await core.look_around()
        assert site.rules() == []
        protected = core.knowledge.intel.protected
        assert "somebody is logged in from there" in protected.why(packed("192.0.2.7"))
        assert "time server time.ours.example" in protected.why(packed("203.0.113.123"))
        assert "(time server)" in protected.why(packed("192.0.2.123"))
        assert (packed("192.0.2.7"), 32) not in core.station.own  # an administrator's machine may be isolated
        seen.clear()
        servers.clear()
        await core.look_around()
        assert not core.knowledge.intel.protected.why(packed("192.0.2.7"))
        await site.do("block", what="192.0.2.7")
        assert site.rules() == ["address 192.0.2.7"]


@in_loop
async def test_the_newest_decisions_are_told_and_that_there_are_more(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        for number in range(5):
            await site.do("block", what=f"192.0.2.{number + 1}")
        told = await screens.decisions(site.core, {"state": "active", "id": None, "limit": 3})
        assert [one["targets"][0]["value"] for one in told["decisions"]] == ["192.0.2.3", "192.0.2.4", "192.0.2.5"]
        assert told["more"]
        assert not (await screens.decisions(site.core, {"state": None, "id": None, "limit": 5}))["more"]


@in_loop
async def test_a_list_is_as_old_as_its_file(tmp_path: Path) -> None:
    async with site_at(tmp_path, hands=Hands(time.time_ns() // 1_000)) as site:
        site.hands.pass_s(3 * 86_400 + 60)
        (row,) = screens.lists(site.core, site.core.clock.now_us())
        assert (row["source"], row["age_s"] // 86_400) == ("csirt.txt", 3)
        await site.do("reload")  # is no sign that anybody keeps it
        (row,) = screens.lists(site.core, site.core.clock.now_us())
        assert row["age_s"] // 86_400 == 3
