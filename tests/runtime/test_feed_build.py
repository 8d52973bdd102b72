"""feed_build: versions of feeds are judged and built into an index by a real child process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from egressd.config.feed_options import FeedOptions
from egressd.intel.allowances import Allowances
from egressd.intel.feeds.fetch import Validators
from egressd.intel.feeds.judging import Job, Judged, JudgeError, Rules
from egressd.intel.feeds.kept import Kept, save_candidate
from egressd.intel.poison import Counts, Poison
from egressd.runtime import feed_build
from egressd.store.index_files import IndexFolder
from tests.intel.feed_scene import ALLOWED, GUARD, NOW_US, PROTECTED, SUFFIXES

NOW_S = NOW_US // 1_000_000
GOOD = "".join(f"c2.bad{number}.example\n" for number in range(50))


def judged(folder: Path, text: str, *, before: Counts | None = None, anew: bool = True) -> Judged:
    kept = folder / "c2.feed"
    kept.write_text("{}\n" + text)
    decide = feed_build.judge_in(folder / "indexes")
    return asyncio.run(decide(*job_of(kept, before, anew=anew)))


def job_of(kept: Path, before: Counts | None = None, *, anew: bool) -> tuple[Job, Rules]:
    poison = Poison(SUFFIXES, GUARD, PROTECTED, Allowances(ALLOWED), NOW_S)
    job = Job("c2", FeedOptions(url="https://feeds.example/c2.txt"), kept, before, True, anew, None)
    return job, Rules(SUFFIXES, GUARD, poison, "the texts of now", NOW_S)


def test_a_good_version_is_an_index_that_answers(tmp_path: Path) -> None:
    found = judged(tmp_path, GOOD + "partner.com\n")
    assert (found.refused, found.counts, found.added, found.removed) == ("", Counts(50, True), 50, 0)
    assert [(one.line, one.value, one.kind) for one in found.quarantined] == [(51, "partner.com", "allowed")]
    assert found.built is not None
    match = found.built.match_name("www.bad7.example", NOW_S)
    assert match is not None and (match.level, match.indicator.line) == ("sibling", 8)


def test_a_version_that_is_refused_leaves_no_index(tmp_path: Path) -> None:
    found = judged(tmp_path, "c2.bad.example\n", before=Counts(50, True))
    assert (found.refused, found.built) == ("shrunk", None)
    assert list(tmp_path.glob("indexes/*/*")) == []


def test_what_was_built_before_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = judged(tmp_path, GOOD)
    monkeypatch.setattr(feed_build, "ask_child", lambda *_: pytest.fail("nothing is to be built"))
    again = judged(tmp_path, GOOD, anew=False)
    assert first.built is not None and again.built is not None
    assert again._replace(built=None) == first._replace(built=None)
    assert again.built.head.digest == first.built.head.digest


@pytest.mark.parametrize(("head", "until_s"), [(True, NOW_S + 14_400), (False, NOW_S + 86_400 + 14_400)])
def test_times_count_from_when_a_version_was_fetched(tmp_path: Path, head: bool, until_s: int) -> None:
    """A ban of four hours lasted for as long as somebody reloaded within four hours."""
    body = b'{"new":[{"value":"203.0.113.7","scope":"Ip","type":"ban","duration":"4h"}],"deleted":null}'
    kept = save_candidate(tmp_path, "c2", Kept(body, Validators(), NOW_US, NOW_US, "", "crowdsec"))
    if not head:
        kept.write_bytes(b"{}\n" + body)
    job, rules = job_of(kept, anew=True)
    job = job._replace(options=FeedOptions(url="https://feeds.example/x", format="crowdsec"), is_new=False)
    found = asyncio.run(feed_build.judge_in(tmp_path / "indexes")(job, rules._replace(now_s=NOW_S + 86_400)))
    assert found.built is not None
    assert [one.expires_s for one in found.built.listed()] == [until_s]


@pytest.mark.parametrize("lead", ["", "\n", " \r\n"])
def test_json_may_begin_with_white_space(tmp_path: Path, lead: str) -> None:
    """Readers took it; the guard said that it is no list of lines, and the feed never had a version."""
    kept = tmp_path / "c2.feed"
    kept.write_text("{}\n" + lead + '{"new":[{"value":"203.0.113.7","scope":"Ip","type":"ban","duration":"4h"}]}')
    job, rules = job_of(kept, anew=True)
    job = job._replace(options=FeedOptions(url="https://feeds.example/x", format="crowdsec"))
    found = asyncio.run(feed_build.judge_in(tmp_path / "indexes")(job, rules))
    assert (found.refused, found.counts.indicators) == ("", 1)


def test_a_kept_version_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="could not be judged: No such file"):
        feed_build.judge_job(IndexFolder(tmp_path / "indexes"), *job_of(tmp_path / "none.feed", anew=False))


def test_a_child_that_cannot_write_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "indexes").write_text("a file where the folder should be")
    with pytest.raises(JudgeError, match="could not be judged: see what was logged above"):
        judged(tmp_path, GOOD)
    assert "no index could be written: Not a directory" in capfd.readouterr().err
