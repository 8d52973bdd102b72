"""Every screen of the live verbs, held to a file; EGRESSD_GOLDEN=write in the environment writes the files."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.cli import incidents as incidents_verb
from egressd.cli import screen
from egressd.cli.audit import render_audit, render_verdict
from egressd.cli.client import Answer
from egressd.cli.decisions import render_decisions
from egressd.cli.doctor import render_doctor
from egressd.cli.feeds import render_feeds, render_quarantine
from egressd.cli.hosts import render_hosts
from egressd.cli.incidents import render_incidents
from egressd.cli.list_effect import Effect, effect_lines
from egressd.cli.lists import render_list
from egressd.cli.operate import outcome
from egressd.cli.plan import render_plan
from egressd.cli.screen import head_lines, time_us
from egressd.cli.status import LINES, render_status
from egressd.cli.watch import render_watch, render_watches
from tests.cli import results

GOLDEN = Path(__file__).parent / "golden"
TAKEN = ("acknowledged", "closed")
NOW_US = time_us(results.NOW)
SINCE = results.at("10-29 13:02:00")
Render = Callable[[Answer], list[str]]


def answer(result: dict[str, Any], mode: str = "enforce", down: tuple[str, ...] = ()) -> Answer:
    return Answer(result, mode, 48_211_377, SINCE, down)


def one_incident(wanted: str, got: Answer) -> list[str]:
    return incidents_verb._one(wanted, got, NOW_US)


def one_decision(wanted: str, got: Answer) -> list[str]:
    from egressd.cli.decisions import _one

    return _one(wanted, screen.rows(got.result, "decisions"))


RENDERS: dict[str, Render] = {
    "status": lambda got: render_status(got, NOW_US),
    "hosts": lambda got: render_hosts(got, NOW_US, 40),
    "incidents": lambda got: render_incidents(got, NOW_US, 40),
    "watches": lambda got: render_watches(got, NOW_US, 40),
    "watch": lambda got: render_watch(got, NOW_US, 40),
    "decisions": lambda got: render_decisions(got, NOW_US, 40),
    "list": lambda got: render_list(got, NOW_US, 40),
    "audit": lambda got: render_audit(got, NOW_US),
    "verdict": lambda got: render_verdict(got, ""),
    "doctor": lambda got: render_doctor(got, NOW_US),
    "outcome": lambda got: outcome(got, undo=True),
    "feeds": lambda got: render_feeds(got, NOW_US),
    "quarantine": lambda got: render_quarantine(got, 40),
    "change": lambda got: effect_lines(Effect(got, "", (), 0))[len(head_lines(got)) :],
}
SCREENS: dict[str, tuple[Answer, Render]] = {
    "status": (answer(results.STATUS), RENDERS["status"]),
    "status-bad": (answer(results.STATUS_BAD, "monitor", ("lan1", "lan\x1b[2J")), RENDERS["status"]),
    "status-empty": (answer({}), RENDERS["status"]),
    "hosts": (answer(results.HOSTS), RENDERS["hosts"]),
    "hosts-monitor": (answer(results.HOSTS, "monitor"), RENDERS["hosts"]),
    "hosts-rows": (answer(results.HOSTS), lambda got: render_hosts(got, NOW_US, 2)),
    "hosts-none": (answer({"hosts": []}, down=("lan1",)), RENDERS["hosts"]),
    "incidents": (answer(results.INCIDENTS), RENDERS["incidents"]),
    "incidents-none": (answer({"incidents": []}), lambda got: render_incidents(got, NOW_US, 40)),
    "incident-sources": (answer(results.INCIDENTS), lambda got: one_incident("I3", got)),
    "incident-leak": (answer(results.INCIDENTS), lambda got: one_incident("I2", got)),
    "incident-device": (answer(results.INCIDENTS), lambda got: one_incident("I3", got)),
    "incident-hostile": (answer(results.INCIDENTS), lambda got: one_incident("I1234", got)),
    "watches": (answer(results.WATCHES), RENDERS["watches"]),
    "watches-none": (answer({"watches": []}), RENDERS["watches"]),
    "watch": (answer(results.WATCHES), RENDERS["watch"]),
    "watch-quiet": (answer(results.WATCH_QUIET), RENDERS["watch"]),
    "feeds": (answer(results.FEEDS), RENDERS["feeds"]),
    "feeds-empty": (answer({"feeds": []}), RENDERS["feeds"]),
    "quarantine": (answer(results.QUARANTINE), RENDERS["quarantine"]),
    "quarantine-rows": (answer(results.QUARANTINE), lambda got: render_quarantine(got, 1)),
    "decisions": (answer(results.DECISIONS, "approve"), RENDERS["decisions"]),
    "decisions-none": (answer({"decisions": []}), RENDERS["decisions"]),
    "decision": (answer(results.DECISIONS), lambda got: one_decision("D1", got)),
    "decision-proposed": (answer(results.DECISIONS), lambda got: one_decision("D24", got)),
    "change": (answer(results.CHANGE), RENDERS["change"]),
    "change-large": (answer(results.CHANGE_LARGE), RENDERS["change"]),
    "plan": (answer(results.PLAN, "monitor"), lambda got: render_plan(got, 40)),
    "list": (answer(results.LIST), RENDERS["list"]),
    "list-none": (answer({"lists": [], "operator": [], "allowances": 0}), RENDERS["list"]),
    "audit": (answer(results.AUDIT), RENDERS["audit"]),
    "audit-verified": (answer(results.VERIFIED), RENDERS["verdict"]),
    "audit-verified-head": (answer(results.VERIFIED), lambda got: render_verdict(got, "4000:" + "d4" * 32)),
    "audit-broken": (answer(results.BROKEN), RENDERS["verdict"]),
    "doctor": (answer(results.DOCTOR), RENDERS["doctor"]),
    "doctor-sick": (answer(results.SICK), RENDERS["doctor"]),
    "block": (answer(results.BLOCKED), RENDERS["outcome"]),
    "cut": (answer(results.CUT), RENDERS["outcome"]),
    "cut-preview": (answer(results.PREVIEW), lambda got: outcome(got, undo=False)),
}


@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str) -> None:
    got, render = SCREENS[name]
    lines = head_lines(got) + render(got)
    shown = "".join(f"{line}\n" for line in lines)
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("EGRESSD_GOLDEN") == "write":
        file.write_text(shown, encoding="ascii")
    assert shown == file.read_text(encoding="ascii")
    assert_fits(lines)
    assert lines[0].startswith("mode ")


def assert_fits(lines: list[str]) -> None:
    for line in lines:
        assert len(line) <= 80, line
        assert all(" " <= char <= "~" for char in line), line


def test_what_an_adapter_held_is_not_said_to_be_in_force_while_it_fails() -> None:
    """Every screen said so, and `status` told the reason twice."""
    why = "another program owns the table inet egressd"
    failing = {**results.STATUS["adapters"][0], "state": "failing", "detail": why, "active": 1, "unsupported": 0}
    status = {**results.STATUS, "adapters": [failing], "warnings": [f"nftables: {why}"]}
    got = answer(status)._replace(failing=("nftables",))
    lines = head_lines(got) + render_status(got, NOW_US)
    assert lines[1] == "!! RULES FAIL: nftables. What is blocked may get through. See: egressd status"
    alarms = " ".join(line.removeprefix("!! ").strip() for line in lines[2:5])
    assert f"RULES nftables failing, 1 block may not hold: {why}" in alarms and "".join(lines).count("owns") == 1
    assert any("nftables failing: 1 were held" in line for line in lines)
    assert len(lines) <= 23


def test_what_the_ledger_lacks_is_said_on_every_screen() -> None:
    """With a full disk `hosts` and `incidents` showed one host where the journal had named four."""
    got = answer(results.HOSTS)._replace(unwritten=11)
    assert head_lines(got)[1] == "!! LEDGER NOT WRITTEN: 11 changes may be missing. See: egressd status"
    assert_fits(head_lines(got._replace(unwritten=12_345_678, failing=("nftables",), down=("lan1",))))
    assert len(head_lines(got) + render_status(got._replace(result=results.STATUS_BAD), NOW_US)) <= 23


def test_a_segment_under_another_mode_is_said_in_the_first_line() -> None:
    """`nothing is blocked` stood over blocks that were in force in an armed segment, and its hosts were NOT BLOCKED."""
    got = answer(results.HOSTS, "monitor")._replace(modes=1)
    assert head_lines(got)[0].startswith("mode MONITOR, 1 segment under another (egressd status); 48,211,377 packets")
    assert_fits(head_lines(got._replace(modes=12)))
    shown = "\n".join(render_hosts(got, NOW_US, 40))
    assert "STILL TRYING" in shown and "NOT BLOCKED" not in shown
    armed = {"watches": [{**results.WATCHES["watches"][0], "mode": "enforce"}]}
    assert "\nblocked; decided" in "\n".join(render_watch(got._replace(result=armed), NOW_US, 40))


def test_lists_without_indicators_are_loud() -> None:
    empty = [{**results.STATUS["lists"][0], "indicators": 0}]
    shown = "\n".join(render_status(answer({**results.STATUS, "lists": empty}), NOW_US))
    assert "LISTS     NOTHING IS LISTED: 1 list, 0 indicators; oldest 3h14m" in shown


def test_a_decision_that_ended_says_when_by_whom_and_why() -> None:
    """It had no word of that, and its addresses were `withdrawn until`."""
    decision = results.DECISIONS["decisions"][0]
    targets = [{**one, "state": "withdrawn", "expires": results.at("11-26 17:11:00")} for one in decision["targets"]]
    ended = {"state": "undone", "ended": results.at("11-25 16:00:00"), "ended_by": "uid:anna", "ended_reason": "ours"}
    shown = "\n".join(one_decision("D1", answer({"decisions": [{**decision, "targets": targets, **ended}]})))
    assert "  ended      11-25 16:00 UTC by uid:anna: ours" in shown
    assert "address 203.0.113.66: withdrawn\n" in shown and "until" not in shown
    assert shown.endswith("Next: egressd watch D1")
    watch = {**results.WATCHES["watches"][0], "state": "undone"}
    gone = {**watch, "addresses": [{**one, "state": "withdrawn"} for one in watch["addresses"]]}
    lines = render_watch(answer({"watches": [gone]}), NOW_US, 40)
    assert any("withdrawn -" in line for line in lines) and not any("11-26 17:11" in line for line in lines)


def test_in_monitor_no_screen_says_to_isolate() -> None:
    """Each ended with `Next: egressd isolate`, which monitor refuses."""
    results_of = {"status": results.STATUS, "hosts": results.HOSTS, "watch": results.WATCHES}
    for name, got in (*results_of.items(), ("incidents", results.INCIDENTS)):
        said = "\n".join(RENDERS[name](answer(got, "monitor")))
        assert "egressd isolate" not in said and "in monitor nobody is isolated" in said, name
    assert "egressd isolate" not in "\n".join(one_incident("I2", answer(results.INCIDENTS, "monitor")))
    assert "egressd isolate" in "\n".join(RENDERS["hosts"](answer(results.HOSTS, "monitor")._replace(modes=1)))


def test_in_monitor_nothing_is_said_to_be_blocked() -> None:
    """`watch D1` had a column BLOCKED and one of what was DROPPED, `status` rules that are in force."""
    text = "\n".join(render_watch(answer(results.WATCHES, "monitor"), NOW_US, 40))
    assert "would be blocked; decided" in text and "WOULD BLOCK" in text
    assert "BLOCKED" not in text and "DROPPED" not in text
    rules = {**results.STATUS["adapters"][0], "name": "dryrun"}
    shown = "\n".join(render_status(answer({**results.STATUS, "adapters": [rules]}, "monitor"), NOW_US))
    assert "dryrun ok: 357 would be in force," in shown
    assert "3 clients NOT BLOCKED" in shown and "STILL TRYING" not in shown


def test_every_golden_file_is_a_screen() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(SCREENS)


@pytest.mark.parametrize(
    ("mode", "through", "told"),
    [
        ("enforce", 0, ""),
        ("enforce", 40, "40 of 148 attempts in 24h were let through, in monitor: egressd mode"),
        ("enforce", 148, "148 of 148 attempts in 24h were let through, in monitor: egressd mode"),
        ("monitor", 40, "40 of 148 attempts in 24h were let through, in monitor: egressd mode"),
        ("monitor", 148, ""),  # as every screen says in its first line
    ],
)
def test_status_tells_tries_apart_that_were_let_through(mode: str, through: int, told: str) -> None:
    """Armed an hour ago, it said so many attempts as if all had been stopped; `watch` and `hosts` did not."""
    watch = {**results.STATUS["watch"], "let_through_24h": through}
    shown = render_status(answer({**results.STATUS, "watch": watch}, mode), NOW_US)
    assert [one.strip() for one in shown if "let through" in one] == ([told] if told else [])


@pytest.mark.parametrize("name", ["status", "status-bad", "status-empty"])
def test_status_is_one_screen(name: str) -> None:
    got, render = SCREENS[name]
    assert len(head_lines(got) + render(got)) <= LINES < 24


def test_status_is_one_screen_whatever_is_wrong() -> None:
    sick = [f"warning {n}" for n in range(50)]
    worse = {**results.STATUS_BAD, "warnings": sick, "adapters": results.STATUS_BAD["adapters"] * 9}
    got = answer(worse, "approve", tuple(f"lan{n}" for n in range(99)))
    lines = head_lines(got) + render_status(got, NOW_US)
    assert len(lines) <= LINES
    assert "more: egressd status --json" in "\n".join(lines)
    assert lines[-1].startswith("Next: "), "what to do is not what is cut off"


DISK = (
    "/var/lib/egressd/ledger.db: database or disk is full; the disk is full: free space on it;"
    " writing resumes by itself"
)


def test_a_doctor_in_mode_monitor_proves_no_block() -> None:
    """`14 checks passed: found, blocked, read back and removed` stood under a push that was not tried."""
    (*_, last) = RENDERS["doctor"](answer(results.DOCTOR, "monitor"))
    assert last.endswith(" passed: a question was found. That blocks hold was not tried.")


def test_why_it_is_wrong_is_not_cut_off() -> None:
    """The path took the line, and the reason stood behind it."""
    got = answer({**results.STATUS, "warnings": [f"the ledger cannot be written (3 changes wait): {DISK}"]})
    assert "free space on it" in " ".join(" ".join(render_status(got, NOW_US)).split())
    checks = [{"name": "ledger", "ok": False, "ms": 0.0, "detail": DISK}]
    doctor = RENDERS["doctor"](answer({"ok": False, "checks": checks}))
    assert "free space on it" in " ".join(" ".join(doctor).split())
    why = "row 4 is not the one whose hash was written outside the ledger, at 2026-11-26T09:17:05Z"
    verdict = RENDERS["verdict"](answer({"ok": False, "problem": why}))
    assert "written outside the ledger" in " ".join(" ".join(verdict).split())


@pytest.mark.parametrize("more", [[], ["two", "three"]])
def test_where_a_mistake_is_fits(more: list[str]) -> None:
    folder = "/etc/egressd/lists.d/of-the-national-centre"
    mistake = f'{folder}/threat-intelligence.txt:12034:17: not a legal name: "x..example"; write it'
    got = answer({**results.STATUS, "list_problems": [mistake, *more]})
    lines = render_status(got, NOW_US)
    (line,) = (line for line in lines if line.startswith("!! LIST"))
    assert "threat-intelligence.txt:12034:17: not a legal" in line and len(line) <= 80
    assert ("(1 of 3)" in line) == bool(more)
    assert "; write it" in " ".join(lines), "and what to do is not cut off where there is room"


def test_a_mistake_of_the_configuration_is_none_of_a_list() -> None:
    got = answer({**results.STATUS, "list_problems": ["/etc/egressd/egressd.yaml:3:1: not YAML: check indentation"]})
    assert any(line.startswith("!! CONFIG /etc/egressd/egressd.yaml:3:1: ") for line in render_status(got, NOW_US))


def test_what_is_wrong_is_said_aloud() -> None:
    text = "\n".join(render_status(answer(results.STATUS_BAD), NOW_US))
    assert "!! SENSOR DOWN lan1 (down): last packet 12m33s ago: BLIND there" in text
    assert "!! SENSOR DOWN lan\\x1b[2J (up): has never seen a packet: BLIND there" in text
    assert "!! 2 LEAKS in 24h: traffic GOT THROUGH" in text
    assert "no alarm" not in text
    calm = "\n".join(render_status(answer(results.STATUS), NOW_US))
    assert "!!" not in calm
    assert "no alarm" in calm


@pytest.mark.parametrize(("uptime_s", "is_told"), [(2, False), (10, True)])
def test_a_start_in_a_quiet_network_is_no_blind_sensor(uptime_s: int, is_told: bool) -> None:
    """`systemctl enable --now egressd; egressd status` said so of each."""
    quiet = [{"name": "lan0", "state": "up", "packets": 0, "kernel_drops": 0, "last_packet": None}]
    text = "\n".join(render_status(answer({**results.STATUS, "interfaces": quiet, "uptime_s": uptime_s}), NOW_US))
    assert ("SENSOR DOWN lan0" in text, "DOWN" in text) == (is_told, is_told)


def test_a_ledger_that_was_put_back_is_told_as_that() -> None:
    """`BROKEN` and `ask who had root` stood on it after every way back to an older version."""
    gap = {"ok": False, "rows": 45, "problem": "rows 11 to 40 are not in it: a copy of before", "put_back": True}
    text = " ".join(render_verdict(answer(gap), ""))
    assert "has a GAP: rows 11 to 40" in text and "45 rows that it holds is whole" in text and "BROKEN" not in text
    assert "is BROKEN" in " ".join(render_verdict(answer({**gap, "put_back": False}), ""))


def test_what_somebody_has_in_hand_is_not_to_be_taken_again() -> None:
    """`egressd ack` was proposed whatever the state."""
    taken = [{**one, "state": state} for one, state in zip(results.INCIDENTS["incidents"], TAKEN, strict=False)]
    for found in (taken, taken[-1:]):
        assert "egressd ack" not in "\n".join(render_incidents(answer({"incidents": found}), NOW_US, 40))
    assert "egressd ack" not in "\n".join(one_incident(taken[0]["id"], answer({"incidents": taken})))
    untaken = [*taken, {**taken[0], "id": "I9", "state": "open"}]
    assert "egressd ack ID" in "\n".join(render_incidents(answer({"incidents": untaken}), NOW_US, 40))


@pytest.mark.parametrize("name", [name for name in SCREENS if name.endswith("-none")])
def test_nothing_found_is_never_called_clean(name: str) -> None:
    got, render = SCREENS[name]
    text = "\n".join(render(got)).lower()
    for word in ("clean", "safe", "no threat", "no infection"):
        assert word not in text
    if name != "list-none":
        assert "in 48,211,377 packets since 10-29 13:02 utc" in " ".join(text.split())


def test_colour_marks_what_has_to_be_seen() -> None:
    assert screen.paint("10.2.7.11 2 GOT THROUGH") == "10.2.7.11 2 \x1b[1;31mGOT THROUGH\x1b[0m"
    assert screen.paint("TRIES LEAKS LAST") == "TRIES LEAKS LAST", "a heading is no alarm"
    assert screen.paint("2 leaks") == "2 leaks"
    assert screen.paint("12 LEAKS in 24h") == "\x1b[1;31m12 LEAKS\x1b[0m in 24h"
    assert screen.paint("!! all of it") == "\x1b[1;31m!! all of it\x1b[0m"
    assert screen.paint("mode ENFORCE: x").startswith("\x1b[1mmode ENFORCE\x1b[0m")
    for name in SCREENS:
        for line in (GOLDEN / f"{name}.txt").read_text(encoding="ascii").splitlines():
            plain = screen.paint(line)
            for code in ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"):
                plain = plain.replace(code, "")
            assert plain == line


HOSTILE_TEXT = st.text(max_size=300) | st.sampled_from(["\x1b[2J", "\r\n", results.HOSTILE, "!!", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HOSTILE_TEXT, inner, max_size=4),
    max_leaves=20,
)
KNOWN = {"status": results.STATUS_BAD, "hosts": results.HOSTS, "incidents": results.INCIDENTS, "watch": results.WATCHES,
         "watches": results.WATCHES, "decisions": results.DECISIONS, "list": results.LIST, "audit": results.AUDIT,
         "verdict": results.BROKEN, "doctor": results.SICK, "outcome": results.BLOCKED,
         "change": results.CHANGE_LARGE}  # fmt: skip


def replaced(value: Any, by: Any, path: tuple[Any, ...]) -> Any:
    """`value` with what is at `path` replaced."""
    if not path:
        return by
    if isinstance(value, dict):
        return {key: replaced(inner, by, path[1:]) if key == path[0] else inner for key, inner in value.items()}
    return [replaced(inner, by, path[1:]) if i == path[0] else inner for i, inner in enumerate(value)]


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a result."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, one in inner for path in paths(one, (*here, key)))]


PLACES = [(name, path) for name, result in KNOWN.items() for path in paths(result) if path]


@settings(max_examples=600, deadline=None)
@given(place=st.sampled_from(PLACES), by=VALUES, mode=HOSTILE_TEXT, down=st.lists(HOSTILE_TEXT, max_size=3))
def test_no_answer_breaks_a_screen(place: tuple[str, tuple[Any, ...]], by: Any, mode: str, down: list[str]) -> None:
    """Whatever stands in whatever field: the screen is shown, fits, and has no byte that a terminal obeys."""
    name, path = place
    got = Answer(replaced(KNOWN[name], by, path), mode, 1, mode, tuple(down))
    assert_fits(head_lines(got) + RENDERS[name](got))


def test_every_field_of_no_type_at_all() -> None:
    for (name, path), by in product(PLACES, (None, [], {}, "x", -1, 10**40, float("nan"), float("inf"), [None], [[]])):
        got = answer(replaced(KNOWN[name], by, path))
        assert_fits(head_lines(got) + RENDERS[name](got))


def test_show_has_no_colour_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(["!! LEAK"])
    assert capsys.readouterr().out == "!! LEAK\n"


def test_where_there_are_more_decisions_than_are_told_it_says_so() -> None:
    told = results.DECISIONS | {"more": True}
    assert render_decisions(answer(told), NOW_US, 40)[0].startswith("the newest ")
    assert not render_decisions(answer(results.DECISIONS), NOW_US, 40)[0].startswith("the newest ")
