"""Observation and index: every name in an observation, minus what allowances take out, at packet time."""

from __future__ import annotations

import pytest

from egressd.detect import correlator as correlator_module
from egressd.detect.correlator import MAX_ALIASES, Correlator, Hit
from egressd.detect.resolutions import Resolutions
from egressd.intel.index import Index
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    SOCKS_HOST,
    TLS_SNI,
    HttpRequest,
    Observation,
    SocksRequest,
)
from tests.detect.scene import (
    SUFFIXES,
    A,
    B,
    Scene,
    X,
    Y,
    allowed,
    at,
    flow,
    learn,
    listed,
    message,
    packed,
    record,
    when,
)

LIST = f"c2.bad.example\nworse.example\n{Y}\nhttp://files.good.example/gate.php\nhttp://{X}/gate.php"


def make(lists: str = LIST, allow: str = "") -> tuple[Correlator, Resolutions]:
    resolutions = Resolutions(SUFFIXES)
    return Correlator(Index.build(listed(lists), SUFFIXES), allowed(allow), resolutions, SUFFIXES), resolutions


def http(host: str, target: str = "/", header_host: str = "", raw_host: str = "", second: float = 0) -> Observation:
    path = target if target.startswith("/") else "/" + target.split("/", 3)[3] if "://" in target else ""
    request = HttpRequest("GET", target, host, raw_host or host, 0, "", header_host, path)
    return Observation(HTTP_HOST, at(second), 1, flow(A, X), host, host, request)


def names(hits: list[Hit]) -> list[tuple[str, str, str]]:
    return [(hit.name, hit.match.level, hit.url) for hit in hits]


# -- what an observation holds


@pytest.mark.parametrize(
    ("observation", "wanted"),
    [
        (http("c2.bad.example"), [("c2.bad.example", "host", "")]),
        (http("www.bad.example"), [("www.bad.example", "sibling", "")]),
        (http("www.good.example"), []),
        (
            http("c2.bad.example", "http://c2.bad.example/", "worse.example"),
            [("c2.bad.example", "host", ""), ("worse.example", "host", "")],
        ),
        (http("www.good.example", "http://www.good.example/", "worse.example"), [("worse.example", "host", "")]),
        (
            http("files.good.example", "/gate.php?x=1"),
            [("files.good.example", "url", "files.good.example/gate.php?x=1")],
        ),
        (http("files.good.example", "/other.php"), []),
        (http("", raw_host=Y), [("", "address", "")]),
        (http("", raw_host=f"[::ffff:{Y}]"), [("", "address", "")]),
        (http("", raw_host="0xc6336408"), [("", "address", "")]),
        (http("", raw_host="0306.51.25608"), [("", "address", "")]),
        (http("", "/gate.php", raw_host=X), [("", "url", f"{X}/gate.php")]),
        (http("", raw_host="not\\032an.address"), []),
    ],
)
def test_requests(observation: Observation, wanted: list[tuple[str, str, str]]) -> None:
    assert names(make()[0].match(observation)) == wanted


def test_every_question_of_a_message() -> None:
    detail = message("www.good.example", 1, (), False, ["c2.bad.example", "c2.bad.example", "worse.example", ""])
    observation = Observation(DNS_QUERY, at(0), 1, flow(A, X), "www.good.example", "", detail)
    assert [hit.name for hit in make()[0].match(observation)] == ["c2.bad.example", "worse.example"]


@pytest.mark.parametrize(
    ("rrtype", "found"), [(5, True), (33, True), (39, True), (64, True), (65, True), (15, False), (2, False)]
)
def test_aliases_in_an_answer(rrtype: int, found: bool) -> None:
    detail = message("www.good.example", 1, [record("www.good.example", "c2.bad.example", rrtype)])
    observation = Observation(DNS_ANSWER, at(0), 1, flow(A, X), "www.good.example", "", detail)
    assert [hit.name for hit in make()[0].match(observation)] == (["c2.bad.example"] if found else [])
    detail.answer_count = 0  # it stands in another section
    assert make()[0].match(observation) == []


def test_the_answer_to_a_listed_question_was_told_by_the_question() -> None:
    detail = message("c2.bad.example", 1, [record("c2.bad.example", "worse.example")])
    observation = Observation(DNS_ANSWER, at(0), 1, flow(A, X), "c2.bad.example", "", detail)
    assert make()[0].match(observation) == []


def test_an_address_asked_of_a_proxy_is_what_matched() -> None:
    asked = SocksRequest(5, 1, "", "", packed(Y), 443)
    (hit,) = make()[0].match(Observation(SOCKS_HOST, at(0), 1, flow(A, X), "", "", asked))
    assert hit.address == packed(Y)


def test_connections_match_by_address_or_by_the_one_name_resolved() -> None:
    correlator, resolutions = make()

    def match(client: str, server: str) -> list[Hit]:
        seen = Observation(FLOW, at(10), 1, flow(client, server), "", "", None)
        return correlator.match(seen, True, correlator.attributed(seen))

    assert match(A, X) == []
    learn(resolutions, packed(A), "c2.bad.example", packed(X), at(0))
    assert names(match(A, X)) == [("c2.bad.example", "host", "")]
    assert match(B, X) == []
    resolutions.lives_at("www.good.example", packed(X), at(5))
    assert match(A, X) == []
    (hit,) = match(A, f"64:ff9b::{packed(Y).hex(':', 2)}")
    assert (hit.match.level, hit.match.indicator.value) == ("address", Y)


# -- allowances


def test_allowed_destinations_by_name_by_address_and_by_client() -> None:
    seen = Observation(TLS_SNI, at(0), 1, flow(A, X), "c2.bad.example", "", None)
    for allow, open_ in [
        ("allow-destination bad.example owner=o reason=r", True),
        (f"allow-destination {X} owner=o reason=r", True),
        ("allow-destination c2.bad.example client=10.0.0.0/29 owner=o reason=r", True),
        ("allow-destination c2.bad.example client=10.0.0.8/29 owner=o reason=r", False),
        ("allow-destination www.bad.example owner=o reason=r", False),
        (f"allow-destination c2.bad.example owner=o reason=r expires={when(0)}", False),
        (f"allow-destination c2.bad.example owner=o reason=r expires={when(1)}", True),
        ("never-block c2.bad.example owner=o reason=r", False),
        ("ignore-client 10.0.0.5 owner=o reason=r", True),
        ("ignore-client 10.0.0.6 owner=o reason=r", False),
    ]:
        assert (make(allow=allow)[0].match(seen) == []) is open_, allow


def test_the_address_of_a_proxy_allows_nothing_behind_it() -> None:
    correlator, _ = make(allow=f"allow-destination {X} owner=o reason=r")
    seen = http("c2.bad.example", "http://c2.bad.example/")
    assert correlator.match(seen, True) == []
    assert len(correlator.match(seen, False)) == 1


def test_ignored_clients_are_counted() -> None:
    correlator, _ = make(allow="ignore-client 10.0.0.5 owner=o reason=r")
    assert correlator.match(http("c2.bad.example")) == []
    assert correlator.match(http("www.good.example")) == []
    assert correlator.clients_ignored == 1


def test_an_ignored_indicator_hides_no_other() -> None:
    lists = "bad.example\nc2.bad.example\nx.c2.bad.example"
    correlator, _ = make(lists, "ignore-indicator c2.bad.example owner=o reason=r")
    for name, value in [
        ("c2.bad.example", "bad.example"),
        ("x.c2.bad.example", "x.c2.bad.example"),
        ("bad.example", "bad.example"),
    ]:
        match = correlator.match_name(name, at(0))
        assert match is not None and match.indicator.value == value
    correlator, _ = make("c2.bad.example", "ignore-indicator c2.bad.example owner=o reason=r")
    assert correlator.match_name("www.bad.example", at(0)) is None


def test_an_ignored_address_or_url_hides_no_other() -> None:
    lists = f"{X}\n198.51.100.0/24\nhttp://good.example/a/b\nhttp://good.example/a\nhttp://other.example/a"
    allow = f"ignore-indicator {X} owner=o reason=r\nignore-indicator http://good.example/a/b owner=o reason=r"
    correlator, _ = make(lists, allow)
    match = correlator.match_address(packed(X), at(0))
    assert match is not None and match.indicator.value == "198.51.100.0/24"
    match = correlator.match_url("good.example", "/a/b", at(0))
    assert match is not None and match.indicator.value == "good.example/a"
    correlator, _ = make("http://good.example/a", "ignore-indicator http://good.example/a owner=o reason=r")
    assert correlator.match_url("good.example", "/a", at(0)) is None


def test_ignoring_ends_on_time_for_what_is_remembered() -> None:
    correlator, _ = make("bad.example", f"ignore-indicator bad.example owner=o reason=r expires={when(10)}")
    found = [correlator.match_name("bad.example", at(second)) is not None for second in (0, 9.9, 10, 11, 9)]
    assert found == [False, False, True, True, False]


def test_indicators_come_and_go_on_time_for_what_is_remembered() -> None:
    correlator, _ = make(f"bad.example added={when(10)} expires={when(20)}\nother.example")
    found = [correlator.match_name("bad.example", at(second)) is not None for second in (0, 9.9, 10, 19.9, 20, 15, 5)]
    assert found == [False, False, True, True, False, True, False]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlator_module, "CACHED_VERDICTS", 100)
    correlator, _ = make()
    for number in range(1000):
        assert correlator.match_name(f"n{number}.good.example", at(0)) is None
        assert correlator.match_name("c2.bad.example", at(0)) is not None
    assert len(correlator._verdicts) + len(correlator._leaving) <= 101


# -- who would be harmed


def test_innocent_is_who_is_not_listed_or_exempt() -> None:
    allow = (
        f"allow-destination ok.bad.example client=10.0.0.6 owner=o reason=r expires={when(10)}\n"
        "never-block partner.bad.example owner=o reason=r\nignore-client 10.0.0.9 owner=o reason=r"
    )
    correlator, resolutions = make(allow=allow)
    for name, innocent in [
        ("www.good.example", True),
        ("c2.bad.example", False),
        ("ok.bad.example", True),
        ("x.ok.bad.example", True),
        ("partner.bad.example", True),
        ("bad.example", False),
    ]:
        assert correlator.is_innocent(name, at(0)) is innocent, name
    assert not correlator.is_innocent("ok.bad.example", at(10))
    for name in ("c2.bad.example", "worse.example", "www.good.example"):
        resolutions.lives_at(name, packed(X), at(0))
    assert correlator.co_tenants(packed(X), "bad.example", at(1)) == ["good.example"]


def test_one_answer_leads_to_no_more_listed_names_than_a_bound() -> None:
    """64 KB hold two thousand aliases, as whoever runs a name server likes: each is a sighting, 75 ms in all."""
    scene = Scene("\n".join(f"c2.bad{number}.example" for number in range(MAX_ALIASES + 5)))
    scene.question(0, A, "www.good.example")
    aliases = [record("www.good.example", f"c2.bad{number}.example") for number in range(MAX_ALIASES + 5)]
    scene.answer(0.01, A, "www.good.example", *aliases)
    assert [one.name for one in scene.sightings] == [f"c2.bad{number}.example" for number in range(MAX_ALIASES)]
