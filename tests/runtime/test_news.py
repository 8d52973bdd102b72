"""What a change of lists and allowances makes worth looking for in history."""

from __future__ import annotations

import pytest

from egressd.intel.allowances import Allowance
from egressd.model import Indicator
from egressd.runtime import news as news_module
from egressd.runtime.news import News, Places, news, places_of
from tests.detect.live_scene import intel
from tests.detect.scene import allowed, packed

NOW_S = 1_800_000_000
V6 = (packed("2001:db8::"), packed("2001:db8::ffff:ffff:ffff:ffff"))
LAB = 'owner=o reason="laboratory"'


def change(
    before: str, after: str, lists: str = "bad.example", now: str = "bad.example", over: str = ""
) -> News | None:
    return news(intel(lists, before), intel(now, after), allowed(over).allowances, NOW_S)


def values(found: tuple[Indicator | Allowance, ...]) -> list[str]:
    return [one.value for one in found]


@pytest.mark.parametrize(
    ("before", "after", "ended"),
    [
        (f"ignore-client 10.0.0.5 {LAB}", "", ["10.0.0.5"]),
        (f"allow-destination a.example {LAB}\nignore-indicator b.example {LAB}", "", ["a.example", "b.example"]),
        (f"allow-destination a.example {LAB}", f"# moved\nallow-destination a.example {LAB}", []),
        (f"allow-destination a.example {LAB}", 'allow-destination a.example owner=p reason="said again"', []),
        (f"allow-destination a.example {LAB}", f"allow-destination a.example client=10.0.0.5 {LAB}", ["a.example"]),
        (f"never-block a.example {LAB}", "", []),
        ("", f"allow-destination a.example {LAB}", []),
    ],
)
def test_allowances_that_ended(before: str, after: str, ended: list[str]) -> None:
    found = change(before, after)
    assert found is not None and (values(found.ended), found.arrived) == (ended, ())


def test_one_whose_time_is_over_ends_once() -> None:
    line = f"ignore-client 10.0.0.5 {LAB} expires=2026-01-01"
    for after in ("", line):  # a command's is gone, a file's stays where it is
        found = change(line, after, over=line)
        assert found is not None and values(found.ended) == ["10.0.0.5"]


def test_indicators_that_came_into_force() -> None:
    found = change("", "", "bad.example", "# moved\nbad.example\nworse.example\nlater.example added=2099-01-01")
    assert found is not None and (values(found.arrived), found.ended) == (["worse.example"], ())


def test_so_many_that_all_of_history_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news_module, "MANY_ENDED", 1)
    two = f"allow-destination a.example {LAB}\nallow-destination b.example {LAB}"
    assert change(two, "") is None
    assert change(two, f"allow-destination b.example {LAB}") is not None


@pytest.mark.parametrize(
    ("line", "places"),
    [
        ("allow-destination a.b.example", Places(domains=("b.example",))),
        ("ignore-indicator b.example/path", Places(domains=("b.example",))),
        ("allow-destination hosted.example", Places(domains=("hosted.example",), below=("hosted.example",))),
        ("ignore-indicator hosted.example", Places(domains=("hosted.example",))),
        ("ignore-client 2001:db8::/64", Places(clients=(V6,))),
    ],
)
def test_where_an_allowance_let_contacts_be(line: str, places: Places) -> None:
    (one,) = allowed(f"{line} {LAB}").allowances
    assert places_of(one, intel("bad.example")) == places


@pytest.mark.parametrize("line", ["allow-destination 192.0.2.0/24", "ignore-indicator 192.0.2.0/24"])
def test_addresses_of_an_allowance_are_those_behind_translators_too(line: str) -> None:
    (one,) = allowed(f"{line} {LAB}").allowances
    places = places_of(one, intel("bad.example"))
    assert places.addresses[0] == (packed("192.0.2.0"), packed("192.0.2.255"))
    assert (packed("64:ff9b::192.0.2.0"), packed("64:ff9b::192.0.2.255")) in places.addresses
    assert not places.clients and not places.domains
