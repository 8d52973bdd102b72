"""Feeds in the configuration: names, addresses, what goes together; every mistake at its place, no secret in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressd.config.document import parse_config
from egressd.config.feed_options import FEED_FORMATS, MAX_FEEDS, SCOPES, FeedOptions, feed_host
from egressd.config.load import load_config
from egressd.intel.formats import FORMATS, judgement

ROOT = Path(__file__).resolve().parent.parent.parent
URL = "url: https://feeds.example/a.txt"


def problems(text: str) -> list[str]:
    return [str(one) for one in parse_config(text, "c.yaml")[1]]


def test_a_feed_as_somebody_writes_it() -> None:
    text = "feeds:\n  c2:\n    url: https://feeds.example/a?k={credential}\n    credential: key\n    enabled: no\n"
    config, wrong = parse_config(text + "    scope: host\n    max_mib: 5\n  second: {" + URL + "}\n", "c.yaml")
    assert wrong == []
    assert config.feeds == {
        "c2": FeedOptions(
            "https://feeds.example/a?k={credential}", enabled=False, credential="key", scope="host", max_mib=5
        ),
        "second": FeedOptions("https://feeds.example/a.txt"),
    }
    assert config.places["feeds.c2.url"] == (3, 10)
    assert feed_host(config.feeds["c2"]) == "feeds.example"
    assert parse_config("feeds:\n", "c.yaml")[0].feeds == {}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("feeds: [a]", "1:8", "needs keys with values"),
        ("feeds: {C2: {}}", "1:9", "cannot be a feed's name"),
        ("feeds: {../x: {}}", "1:9", "cannot be a feed's name"),
        ("feeds: {operator: {}}", "1:9", "egressd's own"),
        ("feeds: {a: {}}", "1:9", "feeds.a.url: is missing"),
        ("feeds: {a: {ulr: x}}", "1:13", 'did you mean "url"?'),
        ("feeds: {a: {" + URL + ", format: host}}", "1:55", 'did you mean "hosts"?'),
        ("feeds: {a: {" + URL + ", every_s: 5}}", "1:56", "out of bounds"),
        ("feeds: {a: {" + URL + ", enabled: 1}}", "1:56", "needs true or false, not the number 1"),
        ("feeds: {a: {" + URL + ', enabled: "yes"}}', "1:56", "without quotes"),
        ("feeds: {a: {url: feeds.example/a}}", "1:18", "not an address of the web"),
        ("feeds: {a: {url: 'ftp://feeds.example/a'}}", "1:18", "not an address of the web"),
        ("feeds: {a: {url: 'https://[::1/a'}}", "1:18", "not an address of the web"),
        ("feeds: {a: {url: 'https://feeds.example:99999/a'}}", "1:18", "not an address of the web"),
        ("feeds: {a: {url: 'https://u:s3cret@feeds.example/a'}}", "1:18", "holds a user name"),
        ("feeds: {a: {url: 'https://feeds.example/a b?k=s3cret'}}", "1:18", "characters that no such address has"),
        ("feeds: {a: {url: 'https://feeds.example/a#b'}}", "1:18", "goes on after a #"),
        ("feeds: {a: {url: 'http://feeds.example/a?k=s3cret'}}", "1:18", "is http://"),
        ("feeds: {a: {url: 'https://feeds.example/{credential}'}}", "1:18", "there is none"),
        ("feeds: {a: {url: 'https://feeds.example/{key}'}}", "1:18", "braces"),
        ("feeds: {a: {url: 'https://{credential}/'}}", "1:18", "not an address of the web"),
        ("feeds: {a: {" + URL + ", header: 'A: b'}}", "1:55", "cannot carry a credential"),
        ("feeds: {a: {" + URL + ", header: Host}}", "1:55", "cannot carry a credential"),
        ("feeds: {a: {" + URL + "}, a: {" + URL + "}}", "1:48", "is given twice"),
    ],
)
def test_every_mistake_is_told_at_its_place(text: str, place: str, words: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"c.yaml:{place}: feeds"), problem
    assert words in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/a", "http://localhost/a", "'http://[::1]/a'"])
def test_http_on_this_machine_is_right(url: str) -> None:
    assert problems(f"feeds: {{a: {{url: {url}}}}}") == []
    assert problems("feeds: {a: {url: http://feeds.example/, insecure: true}}") == []


def test_there_are_only_so_many() -> None:
    text = "feeds:\n" + "".join(f"  f{number}: {{{URL}}}\n" for number in range(MAX_FEEDS + 1))
    (problem,) = problems(text)
    assert problem.startswith(f"c.yaml:{MAX_FEEDS + 2}:3: feeds.f{MAX_FEEDS}: is one feed too many")


def test_presets_are_disabled_and_right(tmp_path: Path) -> None:
    text = (ROOT / "config" / "feeds.example.yaml").read_text(encoding="utf-8")
    config = load_config(ROOT / "config" / "feeds.example.yaml")
    assert len(config.feeds) >= 4 and {"misp", "stix"} <= {feed.format for feed in config.feeds.values()}
    assert not any(feed.enabled for feed in config.feeds.values())
    assert all(feed.url.startswith("https://") and not feed.insecure for feed in config.feeds.values())
    (tmp_path / "c.yaml").write_text("mode: monitor\n" + text, encoding="utf-8")  # pasted as it says
    assert load_config(tmp_path / "c.yaml").feeds == config.feeds


def test_scopes_are_those_of_lists() -> None:
    assert SCOPES == judgement.SCOPES


def test_formats_are_those_of_lists() -> None:
    assert tuple(FORMATS) == FEED_FORMATS
