"""`egressd policy`, and the rules in `egressd explain`, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from egressd.cli.exit_codes import FINDINGS, INVALID, OK
from egressd.cli.main import main

POLICY = """\
rules:
  - {name: lab, why: it can wait, when: {segment: lab, match: host}, then: block, scope: pair, ttl: 2h}
  - {name: rest, then: ask}
examples:
  - {name: in the lab, given: {segment: lab}, expect: block, rule: lab}
  - {name: elsewhere, given: {segment: none}, expect: ask}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "l.txt").write_text("c2.bad.example confidence=80\n", encoding="utf-8")
    (tmp_path / "p.yaml").write_text(POLICY, encoding="utf-8")
    path = tmp_path / "egressd.yaml"
    path.write_text("lists: [l.txt]\nsegments: {lab: [10.2.0.0/16]}\npolicy: {file: p.yaml}\n", encoding="utf-8")
    return path


def test_the_shipped_policy_is_shown_and_proven(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test"]) == OK
    assert "8 examples ok" in capsys.readouterr().err
    assert main(["policy", "show"]) == OK
    shown = capsys.readouterr().out
    assert shown.startswith("alert   confidence  (line ") and "block   level-sibling" in shown and "no-rule" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_policy_of_a_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test", "--config", str(config)]) == OK
    assert capsys.readouterr().out == "ok      in the lab\nok      elsewhere\n"
    assert main(["policy", "show", "--config", str(config)]) == OK
    assert capsys.readouterr().out.splitlines()[0] == "block   lab, scope pair, for 2h  (line 2)"
    assert main(["policy", "show", "--config", str(config), "--json"]) == OK
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first == {
        "name": "lab", "when": ["segment lab", "match host"], "then": "block", "scope": "pair", "ttl_s": 7200,
        "escalation_s": [], "why": "it can wait", "line": 2,
    }  # fmt: skip


def test_an_example_that_does_not_hold(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = config.parent / "p.yaml"
    policy.write_text(POLICY.replace("expect: ask", "expect: block"), encoding="utf-8")
    arguments = ["policy", "test", str(policy), "--config", str(config)]
    assert main(arguments) == INVALID
    told = capsys.readouterr()
    assert "FAILED" in told.out and "p.yaml:6:5: example elsewhere: ask by rest, expected block" in told.out
    assert "1 example of 2 failed" in told.err
    assert main([*arguments, "--exit-code"]) == FINDINGS


def test_check_config_and_policy_find_a_rule_that_never_decides(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "p.yaml").write_text(POLICY.replace("examples:", "  - {name: dead, then: alert}\nexamples:"))
    assert main(["check-config", str(config)]) == INVALID
    assert "p.yaml:4:5: rule dead never decides: rule rest on line 3 takes everything" in capsys.readouterr().out
    assert main(["policy", "test", "--config", str(config)]) == INVALID
    assert "rule dead never decides" in capsys.readouterr().err
    (config.parent / "p.yaml").unlink()
    assert main(["check-config", str(config)]) == INVALID
    assert 'policy.file: "p.yaml"' in capsys.readouterr().out


def test_explain_shows_the_rule_and_why_not_the_others(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "c2.bad.example", "--config", str(config)]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert "  would              ask a person whether to block registered domain bad.example" in lines
    at = lines.index("  rules, in order")
    assert lines[at + 1 : at + 3] == ["    lab: not, segment lab: it is none", "    rest: decides, ask"]
