"""What is told when lists were saved."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from egressd.runtime import alarms
from egressd.runtime.knowledge import load_texts
from egressd.runtime.list_following import _take, rest_s
from tests.loops import in_loop
from tests.runtime.core_scene import CONFIG, site_at


@in_loop
async def test_a_list_that_was_emptied_is_loud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It lifts every block of it, and was one line of the lowest priority; `status` had no alarm."""
    caplog.set_level(logging.INFO, "egressd")
    async with site_at(tmp_path) as site:
        (tmp_path / "csirt.txt").write_text("c2.listed.example\n")
        await _take(site.core, "csirt.txt changed")
        assert caplog.records[-1].levelno == logging.INFO
        assert not any("NOTHING IS LISTED" in one for one in alarms.warnings(site.core))
        (tmp_path / "csirt.txt").write_text("")
        await _take(site.core, "csirt.txt changed")
        told = caplog.records[-1]
        assert (told.levelno, told.getMessage()) == (
            logging.ERROR,
            "lists: csirt.txt changed; 0 indicators (1 before); csirt.txt lists nothing any more",
        )
        assert "NOTHING IS LISTED: nothing that a list should name is found or blocked" in alarms.warnings(site.core)
        await _take(site.core, "csirt.txt changed")
        assert caplog.records[-1].levelno == logging.INFO


@in_loop
async def test_a_mode_that_the_kernel_refuses_does_not_end_the_following(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mode of the file that could not be taken is tried with every list that is saved."""
    async with site_at(tmp_path, "monitor") as site:
        await site.lose_mode()
        (tmp_path / "csirt.txt").write_text("c2.listed.example\nc2.other.example\n")
        await _take(site.core, "csirt.txt changed")
        assert site.core.knowledge.intel.index.size == 2
        assert caplog.records[-1].getMessage() == (
            "lists: csirt.txt changed; not all of what was read anew is in force: another egressd has the table"
        )


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@in_loop
async def test_a_list_in_whose_place_is_no_file_keeps_what_it_listed(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """By a pattern it counted as taken away: one line of the lowest priority, and its blocks were lifted."""
    listed = tmp_path / "lists.d" / "soc.txt"
    listed.parent.mkdir()
    listed.write_text("c2.shared.example\n")
    make(tmp_path / "lists.d" / "never.txt")  # this one was none, and is none
    async with site_at(tmp_path, config=CONFIG.replace("csirt.txt", "csirt.txt, lists.d/*.txt")) as site:
        listed.rename(tmp_path / "away.txt")
        make(listed)
        for _ in range(2):
            await _take(site.core, "soc.txt is gone")
            assert site.core.knowledge.intel.index.size == 2
            (problem,) = site.core.reloading.problems
            assert '"lists.d/soc.txt" is not a file' in problem and "egressd.yaml:1:" in problem
        assert load_texts(site.path).texts.intel.index.size == 2  # so a restart does
        listed.rename(tmp_path / "aside")
        await _take(site.core, "soc.txt is gone")
        assert (site.core.knowledge.intel.index.size, site.core.reloading.problems) == (1, [])


@in_loop
async def test_a_list_that_was_taken_away_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By mistake it lifts as much as one that was emptied, and was one line of the lowest priority."""
    caplog.set_level(logging.INFO, "egressd")
    listed = tmp_path / "lists.d" / "soc.txt"
    listed.parent.mkdir()
    listed.write_text("c2.shared.example\n")
    async with site_at(tmp_path, config=CONFIG.replace("csirt.txt", "csirt.txt, lists.d/*.txt")) as site:
        listed.unlink()
        await _take(site.core, "soc.txt is gone")
        told = caplog.records[-1]
        assert (told.levelno, told.getMessage()) == (
            logging.WARNING,
            "lists: soc.txt is gone; 1 indicator (2 before)",
        )
        await _take(site.core, "soc.txt is gone")
        assert caplog.records[-1].levelno == logging.INFO


@in_loop
async def test_a_list_that_was_emptied_is_loud_beside_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line of an operator's, or another list, was enough for it to be quiet."""
    caplog.set_level(logging.INFO, "egressd")
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        (tmp_path / "csirt.txt").write_text("# to be filled\n")
        await _take(site.core, "csirt.txt changed")
        told = caplog.records[-1]
        assert (told.levelno, told.getMessage().rpartition("; ")[2]) == (
            logging.ERROR,
            "csirt.txt lists nothing any more",
        )


@in_loop
async def test_nor_is_it_lost_where_no_copy_of_it_could_be_kept(tmp_path: Path) -> None:
    listed = tmp_path / "lists.d" / "soc.txt"
    listed.parent.mkdir()
    listed.write_text("c2.shared.example\n")
    async with site_at(tmp_path, config=CONFIG.replace("csirt.txt", "csirt.txt, lists.d/*.txt")) as site:
        for copy in (tmp_path / "state" / "last-good").glob("*"):
            copy.unlink()
        listed.unlink()
        listed.mkdir()
        await _take(site.core, "soc.txt is gone")
        assert site.core.knowledge.intel.index.size == 2
        assert '"lists.d/soc.txt" is not a file' in site.core.reloading.problems[0]


@in_loop
async def test_a_list_whose_link_leads_nowhere_keeps_what_it_listed(tmp_path: Path) -> None:
    """The share behind it was not mounted any more; that counted as a list that somebody took away."""
    shared = tmp_path / "share" / "shared.txt"
    for folder in ("lists.d", "share"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lists.d" / "shared.txt").symlink_to(shared)
    shared.write_text("c2.shared.example\n")
    async with site_at(tmp_path, config=CONFIG.replace("csirt.txt", "csirt.txt, lists.d/*.txt")) as site:
        await _take(site.core, "shared.txt changed")
        assert site.core.knowledge.intel.index.size == 2
        shared.rename(tmp_path / "away.txt")
        await _take(site.core, "shared.txt is gone")
        assert site.core.knowledge.intel.index.size == 2
        (problem,) = site.core.reloading.problems
        assert '"lists.d/shared.txt" does not exist' in problem
        (tmp_path / "lists.d" / "shared.txt").unlink()
        await _take(site.core, "shared.txt is gone")
        assert (site.core.knowledge.intel.index.size, site.core.reloading.problems) == (1, [])


@pytest.mark.parametrize(("took_s", "rest"), [(0.0, 0.5), (0.015, 0.5), (0.16, 4.8), (60.0, 10.0)])
def test_looking_takes_a_small_share_of_the_time(took_s: float, rest: float) -> None:
    """10,000 files in a folder of lists took a seventh of a core, twice a second."""
    assert rest_s(took_s) == pytest.approx(rest)
