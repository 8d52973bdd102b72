"""Opaque GET tails: what is one, what only looks like one, and when they make a report."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.behaviour.opaque import MAX_SHAPES, Requests, is_ocsp, is_opaque, split_tail


def draw(number: int, size: int = 24) -> str:
    return base64.urlsafe_b64encode(random.Random(number).randbytes(size)).decode().rstrip("=")


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (f"/info/index.php?id={draw(1)}", "/info/index.php?id={}"),
        (f"/a?{draw(2)}", "/a?{}"),
        (f"/a?page=2&k={draw(3)}", "/a?page&k={}"),
        (f"/up/{draw(4)}", "/up/{}"),
        (f"/up/{draw(5)}.php", "/up/{}.php"),
        ("/c/9f86d081884c7d659a2feaa0c55ad015", "/c/{}"),
    ],
)
def test_opaque_tails_and_their_shape(target: str, shape: str) -> None:
    tail = split_tail(target)
    assert tail is not None
    assert tail.shape == shape


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "",
        "?",
        "/news/weather/tomorrow-in-tokyo",
        "/search?q=timetable",
        "/search?q=how+to+read+a+timetable",
        "/item?id=1234567890123456",
        "/poll?t=1700000000000",
        "/static/app.9f86d081884c7d659a2feaa0c55ad015.js",
        "/img/9f86d081884c7d659a2feaa0c55ad015.png",
        "/thumb?x=aaaaaaaaaaaaaaaaaaaaaaaa",
        "/collect?cid=abcdef&z=short1",
        "/photographersassociation",
    ],
)
def test_what_is_no_opaque_tail(target: str) -> None:
    assert split_tail(target) is None


def test_an_ocsp_request_over_get_is_none() -> None:
    request = b"\x30\x42" + bytes(range(66))
    text = base64.b64encode(request).decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert is_ocsp(text)
    assert split_tail("/" + text) is None
    assert not is_ocsp(text[:-8]), "its length must be right"


def reports(targets: list[str], per_visit: int = 1) -> Requests:
    requests = Requests(0)
    for number, target in enumerate(targets):
        requests.take("GET", target, number // per_visit + 1)
    return requests


def test_reports_score_more_the_more_there_are() -> None:
    scores = [reports([f"/i.php?id={draw(n)}" for n in range(count)]).score() for count in range(12)]
    assert scores[:4] == [0, 0, 0, 0]
    assert scores[4:7] == [66, 75, 84]
    assert scores == sorted(scores)
    assert max(scores) == 90


@pytest.mark.parametrize(
    "requests",
    [
        reports([f"/i.php?id={draw(7)}"] * 12),  # a token
        reports([f"/i.php?id={draw(n)}" for n in range(40)], per_visit=10),  # a page full of them
        reports([f"/{n}/i.php?id={draw(n)}" for n in range(12)]),  # no one shape
        reports([f"/i.php?id={draw(n)}" if n % 3 == 0 else f"/page{n}" for n in range(30)]),  # among pages
    ],
)
def test_innocents_do_not_score(requests: Requests) -> None:
    assert requests.score() == 0


def test_other_methods_do_not_count_as_gets() -> None:
    requests = Requests(0)
    assert not requests.take("POST", f"/i.php?id={draw(1)}", 1)
    assert requests.score() == 0


@given(st.lists(st.text(max_size=80), max_size=60))
def test_state_is_bounded_and_any_target_is_read(targets: list[str]) -> None:
    requests = reports(targets)
    assert len(requests.shapes) <= 2 * MAX_SHAPES
    assert 0 <= requests.score() <= 90


@given(st.text())
def test_opaque_is_total(text: str) -> None:
    is_opaque(text)
    is_ocsp(text)
    split_tail("/" + text)
