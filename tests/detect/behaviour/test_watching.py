"""All detectors over the engine: what is told, what is not, and that no table grows beyond its bound."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.detect.behaviour import ground as ground_module
from egressd.detect.behaviour import watching as watching_module
from egressd.detect.behaviour.ground import Ground
from egressd.detect.behaviour.openings import NAME_WITHIN_US, PENDING
from egressd.detect.behaviour.settings import ALERT, DETECTORS, OFF, BehaviourSettings, Switch
from egressd.detect.engine import Engine
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.index import Index
from egressd.model import DNS_ANSWER, DNS_QUERY, TLS_SNI, UDP, ClientHello, DnsMessage, DnsQuestion
from egressd.units import DAY_US
from tests.detect import scene
from tests.detect.scene import GUARD, PROTECTED, RESOLVERS, SUFFIXES, A, B, Scene, X, Y, allowed, flow, listed, when

HOUR = 3_600.0
OFFICE = [f"10.0.1.{number}" for number in range(1, 60)]


class Office(Scene):
    """A scene whose learning time, of an hour, is over; everybody has visited the portal in it."""

    def __init__(
        self,
        behaviour: BehaviourSettings | None = None,
        allow: str = "",
        learned: bool = True,
        lists: str = "c2.bad.example",
    ) -> None:
        super().__init__(allow=allow)
        intel = Intel(
            Index.build(listed(lists), SUFFIXES), SUFFIXES, allowed(allow), PROTECTED, RESOLVERS, guard=GUARD,
            behaviour=behaviour or BehaviourSettings(learning_s=3_600),
        )  # fmt: skip
        self.engine = Engine(intel, PolicySettings(), self.events.append)
        self.now = 0.0
        if learned:
            for number, client in enumerate([*OFFICE, A, B]):
                self.tls(number * 1.0, client, Y, "www.portal.example")
            self.now = HOUR + 10

    def every(self, gap: float, count: int, jitter: float = 0.0) -> Iterator[float]:
        """Times of so many contacts from now on."""
        draw = random.Random(7)
        for _ in range(count):
            yield self.now
            self.now += gap * draw.uniform(1 - jitter, 1 + jitter)

    def failing(self, second: float, client: str, name: str, rcode: int = 3, rrtype: int = 1) -> None:
        self.txid += 1
        key = flow(client, "192.0.2.53", 50_000, 53, UDP)
        questions = (DnsQuestion(name, name, rrtype),)
        self.see(DNS_QUERY, second, key, name, DnsMessage(self.txid, False, 0, 0, False, questions, (), 0, False, ""))
        self.see(
            DNS_ANSWER, second, key, name, DnsMessage(self.txid, True, 0, rcode, False, questions, (), 0, False, "")
        )

    @property
    def told(self) -> dict[str, list[str]]:
        """Destinations with the detectors of the last sighting, strongest first."""
        return {one.match.indicator.value: [part.detector for part in one.parts] for one in self.sightings}

    @property
    def actions(self) -> list[str]:
        return [decision.action for decision in self.decisions]


def opaque(number: int) -> str:
    return "/i.php?id=" + base64.urlsafe_b64encode(random.Random(number).randbytes(30)).decode()


def test_opaque_gets_are_put_before_a_person_and_block_nothing() -> None:
    office = Office()
    for number, second in enumerate(office.every(300, 6, 0.3)):
        office.http(second, A, X, "cdn.odd.example", opaque(number), sport=40_000 + number)
    assert office.told == {"odd.example": ["opaque-gets", "new-domain"]}
    assert office.actions == ["alert", "ask"]
    assert office.targets("ask") == ["registered_domain odd.example"]
    assert [(one.client, one.match.level) for one in office.incidents] == [(flow(A, X).client, "behaviour")]
    assert [block.waits for block in office.engine.blocks.by_id.values()] == [True]


@pytest.mark.parametrize("kind", ["tls", "http", "dns"])
@pytest.mark.parametrize("jitter", [0.0, 0.15, 0.3])
def test_beacons_are_told(kind: str, jitter: float) -> None:
    office = Office()
    for number, second in enumerate(office.every(600, 24, jitter)):
        if kind == "tls":
            office.tls(second, A, X, "www.odd.example", sport=40_000 + number)
        elif kind == "http":
            office.http(second, A, X, "www.odd.example", "/status", sport=40_000 + number)
        else:
            office.question(second, A, f"r{number}.odd.example", txid=number + 1)
    assert list(office.told) == ["odd.example"]
    assert office.told["odd.example"][0] == "beacon"


def test_a_beacon_straight_to_an_address_is_told() -> None:
    office = Office()
    for number, second in enumerate(office.every(600, 12, 0.1)):
        office.flow(second, A, X, 40_000 + number, 4_443)
    assert set(office.told[X]) == {"beacon", "direct-address", "new-domain"}
    assert office.targets("ask") == [f"address {X}"]


def test_a_connection_that_is_named_in_time_leaves_no_trace_under_its_address() -> None:
    office = Office(learned=False)
    ground = office.engine.behaviour.ground
    office.flow(0.0, A, X)
    office.tls(0.2, A, X, "www.portal.example")
    office.flow(60.0, B, Y)
    assert len(ground) == 1 and office.engine.behaviour.openings.due_us == scene.at(60) + NAME_WITHIN_US
    office.tls(70.0, A, Y, "www.portal.example", sport=40_001)  # nobody has named the other for ten seconds
    assert len(ground) == 2


def test_a_name_that_comes_late_says_that_the_address_is_no_bare_one() -> None:
    office = Office()
    for number, second in enumerate(office.every(600, 12, 0.1)):
        office.flow(second, A, X, 40_000 + number, 4_443)
        office.flow(second + 5, B, Y, 50_000 + number)  # time goes on
        if number == 0:
            office.see(TLS_SNI, second + 20, flow(A, X, 40_000, 4_443), "", note="proxied")
            office.tls(second + 20, A, X, "odd.other.example", sport=40_000)
    assert X not in office.told


def test_the_end_of_a_capture_judges_what_waits() -> None:
    for count in range(4, 13):
        office = Office()
        for number, second in enumerate(office.every(600, count, 0.1)):
            office.flow(second, A, X, 40_000 + number, 4_443)
        before = set(office.told)
        office.engine.finish()
        if office.told:
            break
    assert not before and set(office.told) == {X}


def test_a_flood_of_openings_waits_within_bounds_and_is_judged_little_by_little() -> None:
    office = Office(learned=False)
    behaviour = office.engine.behaviour
    for number in range(3 * PENDING):
        office.flow(number / 1e5, A, f"198.51.{number // 250 % 100}.{number % 250}", 20_000 + number % 40_000)
    assert len(behaviour.openings) <= PENDING + 1
    held = len(behaviour.openings)
    assert len(behaviour.nameless(scene.at(60))) == 0
    assert held - len(behaviour.openings) == watching_module.AT_ONCE


@pytest.mark.parametrize(
    "why", ["many", "guarded", "allowed", "ignored", "listed", "time", "known", "resolver", "local"]
)
def test_regular_contacts_that_are_innocent(why: str) -> None:
    allow = {
        "allowed": 'allow-destination odd.example owner=o reason="r"\n',
        "ignored": f'ignore-client {A} owner=o reason="r"\n',
    }.get(why, "")
    office = Office(allow=allow)
    name = {"guarded": "t.platform.example", "listed": "c2.bad.example", "local": "nas.local"}.get(why, "odd.example")
    port = 123 if why == "time" else 443
    if why == "resolver":  # asks for everybody
        office.resolve(1.0, B, "www.portal.example", Y, server=A)
    if why == "known":
        office.engine.behaviour.knew("odd.example", 1_700_000_000_000_000)
    for number, second in enumerate(office.every(600, 24, 0.05)):
        if why == "time":
            office.flow(second, A, X, 40_000 + number, port)
            continue
        office.tls(second, A, X, name, sport=40_000 + number)
        if why == "many":
            for at, client in enumerate(OFFICE[:12]):
                office.tls(second + at, client, X, name, sport=40_000 + number)
    assert not [one for one in office.sightings if one.match.level == "behaviour"]


def test_many_addresses_of_one_machine_make_nothing_popular() -> None:
    """With a dozen addresses a host visited its controller once each, and none of its contacts there was told."""
    office = Office()
    mac = bytes.fromhex("020000000005")
    crowd = [f"2001:db8::{number:x}" for number in range(1, 31)]
    for client in (A, *crowd):
        office.engine.devices.spoke(mac, scene.packed(client), scene.at(office.now), is_attached=True)
    for at, client in enumerate(crowd):
        office.tls(office.now + at, client, "2001:db8:66::66", "odd.example")
    for number, second in enumerate(office.every(600, 24, 0.05)):
        office.tls(second, A, X, "odd.example", sport=40_000 + number)
    assert {one.match.indicator.value for one in office.sightings} == {"odd.example"}


def test_a_host_with_as_many_addresses_as_it_likes_makes_us_forget_nobody() -> None:
    """Each had its share of what is followed: with ten thousand of them nobody's contacts were ever told as regular."""
    ground = Ground(0, limit=1_000)
    ground.machine_of = lambda address: b"\x02host1" if len(address) == 16 else address
    other = ground.client(b"\x0a\0\0\5", 0)
    track = ground.track(other, ground.domain("odd.example", 0), 0)
    for number in range(20_000):
        client = ground.client(number.to_bytes(16, "big"), 1)
        ground.track(client, ground.domain(f"{number % 20}.example", 1), 1)
    assert ground.client(b"\x0a\0\0\5", 2) is other and ground.clients == 1 + ground_module.MAX_ADDRESSES
    assert ground.track(other, ground.domain("odd.example", 2), 2) is track
    later = 2 * DAY_US
    assert ground.client(b"\xff" * 16, later).address == b"\xff" * 16, "what is used a day later is followed apart"


def test_who_answers_a_question_that_it_forged_is_no_resolver() -> None:
    """Two packets, a question under another's address to itself and its answer, and a host was never judged again."""
    office = Office()
    office.engine.policy.settings = PolicySettings(resolvers=frozenset((scene.packed(scene.RESOLVER),)))
    office.resolve(1.0, B, "www.portal.example", Y, server=A)
    for number, second in enumerate(office.every(600, 24, 0.05)):
        office.tls(second, A, X, "odd.example", sport=40_000 + number)
    assert [one for one in office.sightings if one.match.level == "behaviour"]


def drawn(count: int) -> list[str]:
    draw = random.Random(4)
    return ["".join(draw.choice("bcdfghjklmnpqrstvwxz") for _ in range(12)) + ".example" for _ in range(count)]


def test_nor_is_its_hunt_for_its_server_a_resolvers() -> None:
    office = Office()
    office.engine.policy.settings = PolicySettings(resolvers=frozenset((scene.packed(scene.RESOLVER),)))
    office.resolve(1.0, B, "www.portal.example", Y, server=A)
    for number, name in enumerate(drawn(20)):
        office.failing(office.now + number, A, name)
    assert next(iter(office.told.values()))[0] == "dga"


def test_servers_elsewhere_do_not_take_the_places_of_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver of ours turns to thousands of them; the next resolver of ours was judged by what everybody asks it."""
    monkeypatch.setattr(watching_module, "MAX_RESOLVERS", 16)
    office = Office()
    first, second = "10.0.0.53", "10.0.1.53"
    for resolver in (first, second):
        office.resolve(office.now, B, "www.portal.example", Y, server=resolver)
        for number in range(40):
            office.resolve(office.now + 1, resolver, "www.portal.example", Y, server=f"198.18.{resolver[5]}.{number}")
    for resolver in (first, second):
        for number, name in enumerate(drawn(20)):
            office.failing(office.now + 2 + number, resolver, name)
    assert not office.told and len(office.engine.behaviour._answering) == 16


def test_nor_do_servers_that_ask_as_if_they_were_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who forged an answer and a question of each of a thousand had every later resolver judged as a host, and all of
    them looked through for every server that answered."""
    monkeypatch.setattr(watching_module, "MAX_RESOLVERS", 16)
    office = Office()
    for number in range(20):
        forged = f"10.0.2.{number}"
        office.resolve(office.now, B, "www.portal.example", Y, server=forged)
        office.resolve(office.now + 1, forged, "www.portal.example", Y, server="10.0.2.0")
    office.resolve(office.now + 2, B, "www.portal.example", Y, server="10.0.0.53")
    for number, name in enumerate(drawn(20)):
        office.failing(office.now + 3 + number, "10.0.0.53", name)
    behaviour = office.engine.behaviour
    assert not office.told and len(behaviour._answering) == 16
    assert behaviour._never_asked.keys() <= behaviour._answering.keys()


def test_a_tab_that_loads_itself_again_with_its_page_is_innocent() -> None:
    office = Office()
    for number, second in enumerate(office.every(300, 24)):
        for at, site in enumerate(("odd", "third", "fourth", "fifth")):
            office.tls(second + at * 0.3, A, X, f"www.{site}.example", sport=41_000 + 4 * number + at)
    assert not office.told


def test_a_guest_is_new_and_so_is_all_it_does() -> None:
    office = Office()
    for number, second in enumerate(office.every(600, 24)):
        office.tls(second, "10.0.9.9", X, "push.maker.example", sport=40_000 + number)
    assert not office.told


def test_a_tunnel_is_told_and_antivirus_look_ups_are_not() -> None:
    office = Office()
    draw = random.Random(3)
    for number in range(120):
        label = "".join(draw.choice("0123456789abcdef") for _ in range(60 + number % 3))
        office.question(office.now + number, A, f"{label}.{label[:40]}.odd.example", txid=number + 1)
        hashed = "".join(draw.choice("0123456789abcdef") for _ in range(32))
        office.question(office.now + number + 0.5, B, f"{hashed}.av.example", txid=number + 1, sport=50_001)
    assert list(office.told) == ["odd.example"]
    assert office.told["odd.example"][0] == "dns-tunnel"


def test_a_generator_of_names_is_told_and_typing_errors_are_not() -> None:
    office = Office()
    draw = random.Random(4)
    for number in range(20):
        drawn = "".join(draw.choice("bcdfghjklmnpqrstvwxz") for _ in range(12))
        office.failing(office.now + number, A, f"{drawn}.example")
        office.failing(office.now + number + 0.5, B, f"{drawn}.corp.example")
    for number, word in enumerate(("wetherforecast", "timetabel", "librari", "photograps", "newsportel") * 4):
        office.failing(office.now + 40 + number, OFFICE[0], f"{word}{'s' * (number % 3)}.example")
    assert [one.flow.client for one in office.sightings] == [flow(A, X).client] * len(office.sightings)
    assert next(iter(office.told.values()))[0] == "dga"


def test_two_hosts_in_one_request_are_a_part() -> None:
    office = Office()
    for number, second in enumerate(office.every(300, 5, 0.3)):
        office.http(second, A, X, "odd.example", opaque(number), sport=40_000 + number, header_host="good.example")
    assert "disagreement" in office.told["odd.example"]


def test_going_dark_is_a_part_of_the_score() -> None:
    office = Office()
    for number in range(100):
        office.tls(office.now + number * 150, A, Y, "www.portal.example", sport=42_000 + number)
    office.now += 100 * 150 + HOUR
    for number, second in enumerate(office.every(60, 40)):
        office.see(TLS_SNI, second, flow(A, X, 45_000 + number), "", ClientHello("", "", 0x0304, (), "", ""))
    assert office.engine.behaviour.spoken["went-dark"] == 1


def test_the_learning_time_says_nothing_of_regular_contacts() -> None:
    office = Office(BehaviourSettings(), learned=False)
    for number, second in enumerate(office.every(300, 24)):
        office.tls(second, A, X, "www.odd.example", sport=40_000 + number)
    assert not office.told


@pytest.mark.parametrize("detector", DETECTORS)
def test_each_detector_can_be_switched_off(detector: str) -> None:
    off = BehaviourSettings(learning_s=3_600, switches=((detector, Switch(OFF)),))
    office = Office(off)
    for number, second in enumerate(office.every(300, 24, 0.1)):
        office.http(second, A, X, "odd.example", opaque(number), sport=40_000 + number)
    assert detector not in office.told.get("odd.example", [])
    assert detector not in office.engine.behaviour.spoken


def test_all_switched_off_keeps_no_state() -> None:
    office = Office(BehaviourSettings(switches=tuple((name, Switch(OFF)) for name in DETECTORS)))
    assert len(office.engine.behaviour.ground) == 0


def test_a_switch_at_alert_never_asks() -> None:
    settings_ = PolicySettings(alert_only=frozenset(("behaviour:opaque-gets",)))
    office = Office(BehaviourSettings(learning_s=3_600, switches=(("opaque-gets", Switch(ALERT)),)))
    office.engine.policy.settings = settings_
    for number, second in enumerate(office.every(300, 6, 0.3)):
        office.http(second, A, X, "odd.example", opaque(number), sport=40_000 + number)
    assert set(office.actions) == {"alert"}


def test_a_list_that_comes_later_says_more_than_behaviour() -> None:
    office = Office(lists=f"c3.odd.example added={when(12_000)}\n")
    for number, second in enumerate(office.every(300, 6, 0.3)):
        office.http(second, A, X, "c3.odd.example", opaque(number), sport=40_000 + number)
    assert [(one.match.level, one.retro) for one in office.incidents] == [("behaviour", False)]
    office.tls(12_001, B, Y, "www.portal.example")
    assert [(one.match.level, one.retro) for one in office.incidents] == [("host", True)]


# -- bounds, totality, determinism


def test_a_flood_of_names_and_clients_stays_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground_module, "SHARE_PER_HOUR", 50)
    ground = Ground(0, limit=200)
    for number in range(3_000):
        client = ground.client(bytes((10, 0, number % 7, number % 251)), number)
        domain = ground.domain(f"d{number}.example", number)
        ground.track(client, domain, number)
        assert len(ground) <= 200
    one = ground.client(b"\n\1\1\1", 5_000)
    made = [ground.track(one, ground.domain(f"e{number}.example", 5_000), 5_000) for number in range(80)]
    assert sum(track is not None for track in made) == 50, "its share"
    assert ground.over_share >= 30


def test_times_kept_are_bounded_and_late_packets_change_nothing() -> None:
    ground = Ground(0)
    client = ground.client(b"\n\0\0\1", 0)
    track = ground.track(client, ground.domain("d.example", 0), 0)
    assert track is not None
    for number in range(500):
        ground.visit(client, track, number * 60_000_000)
        ground.visit(client, track, 0)
    assert track.times is not None
    assert len(track.times) == ground_module.KEPT_VISITS
    assert list(track.times) == sorted(track.times)
    ground.visit(client, track, 1 << 60)
    assert track.times is None or len(track.times) <= ground_module.KEPT_VISITS


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("http", "tls", "quic", "flow", "dns", "nx", "socks")),
            st.integers(-10_000, 100_000),
            st.sampled_from((A, B, OFFICE[0])),
            st.text("abz019-._", min_size=1, max_size=40),
        ),
        max_size=60,
    )
)
def test_any_order_of_anything_is_taken_and_the_same_twice(
    steps: list[tuple[str, int, str, str]],
) -> None:
    def run() -> list[object]:
        office = Office(BehaviourSettings(alert_score=1, ask_score=2, learning_s=0), learned=False)
        for kind, second, client, text in steps:
            name = f"{text.strip('.-') or 'x'}.example"
            if kind == "http":
                office.http(second, client, X, name, "/" + text)
            elif kind == "tls":
                office.tls(second, client, X, name)
            elif kind == "quic":
                office.quic(second, client, X, name)
            elif kind == "flow":
                office.flow(second, client, X, 40_001, 8_443)
            elif kind == "dns":
                office.question(second, client, name)
            elif kind == "socks":
                office.socks(second, client, Y, name)
            else:
                office.failing(second, client, name)
        return [repr(event) for event in office.events]

    assert run() == run()
