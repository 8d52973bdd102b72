"""`list convert` and `list lint` as people run them: outputs, exit codes, escaping, standard input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import commands
from tests.cli.commands import loaded, of, write

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "tests" / "intel" / "formats" / "samples"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    return commands.run(capsys, "list", *argv)


# -- convert


def test_convert_writes_our_format_and_tells_what_was_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write(tmp_path / "ads.txt", "! title\n||bad.example^\n@@||good.example^\n||github.io^\n||bad.example^\n")
    code, out, err = run(capsys, "convert", "--source", "ads", path)
    assert code == 3, "one line is a mistake, whatever is right with the others"
    assert out.splitlines() == [
        "# From ads, format adblock: 1 indicator, 2 left out, 1 problem.",
        "bad.example scope=registered confidence=100",
    ]
    assert err.splitlines() == [
        "ads:3: left out: an allowance: feeds cannot allow",
        'ads:4:3: "github.io" is a public suffix (rule github.io (private)); it would block every site under github.io;'
        " list the sites, or add force=yes for that one name",
        "ads:5: left out: an earlier line says the same",
        "egressd: ads, format adblock: 1 indicator, 2 left out, 1 problem",
        "          1 left out: an allowance: feeds cannot allow",
        "          1 left out: an earlier line says the same",
    ]


@pytest.mark.parametrize(
    "path", sorted(set(SAMPLES.iterdir()) - set(SAMPLES.glob("*.golden"))), ids=lambda path: path.name
)
def test_what_convert_writes_has_no_mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path, path: Path) -> None:
    code, out, _ = run(capsys, "convert", "--format", path.name.split(".")[0].split("+")[0], str(path))
    assert code in (0, 3), "3 where the sample lists documentation ranges only, which are protected"
    assert run(capsys, "lint", "--format", "egressd", write(tmp_path / "out.txt", out))[0] == 0


def test_convert_shows_the_first_twenty_and_counts_the_rest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "many.txt", "good.example\n" + "bad!.example\n" * 50)
    code, _, err = run(capsys, "convert", path)
    assert code == 3
    assert err.count("not a legal name") == 20
    assert "... and 30 more" in err


def test_convert_of_what_has_no_mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "ads.txt", "||bad.example^\n@@||good.example^\n")
    assert run(capsys, "convert", path)[0] == 0, "what is left out is no mistake"


def test_convert_of_what_holds_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "convert", write(tmp_path / "a.txt", "bad!.example\n"))[0] == 3
    assert run(capsys, "convert", write(tmp_path / "b.txt", ""))[0] == 0, "an empty list is none that is wrong"
    code, out, err = run(capsys, "convert", str(tmp_path / "absent.txt"))
    assert (code, out) == (3, "")
    assert "does not exist" in err


def test_hostile_texts_and_names_reach_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (
        "#fields\tindicator\tindicator_type\tmeta.desc\n"
        'bad.example\tIntel::DOMAIN\t\x1b]0;x\x07 "quoted"\n'
        "\x1b[2Jx\tIntel::DOMAIN\tx\n"
    )
    path = write(tmp_path / "a\x1bb.dat", text)
    for words in (("convert",), ("lint",), ("lint", "--json")):
        _, out, err = run(capsys, *words, path)
        assert "\x1b" not in out + err
        assert "\x07" not in out + err


def test_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "egressd", "list", "convert", "-"],
        input="0.0.0.0 bad.example\n", capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == "# From standard input, format hosts: 1 indicator, 0 left out, 0 problems."


def test_own_domains_of_a_configuration_narrow(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = write(tmp_path / "egressd.yaml", "own_domains: [ours.example]\n")
    path = write(tmp_path / "list.txt", "www.ours.example\n")
    assert "www.ours.example scope=host" in run(capsys, "convert", "--config", config, path)[1]
    assert "www.ours.example scope=registered" in run(capsys, "convert", path)[1]
    assert run(capsys, "lint", "--config", write(tmp_path / "bad.yaml", "nonsense: 1\n"), path)[0] == 3


# -- lint


def test_lint_tells_every_mistake_at_its_place(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = write(tmp_path / "good.txt", "bad.example\nbad.example\n")
    bad = write(tmp_path / "bad.txt", "bad.example scop=host\ncom\n")
    code, out, err = run(capsys, "lint", good, bad, str(tmp_path / "absent"))
    lines = out.splitlines()
    assert code == 3
    assert lines[0] == f"{good}: egressd, 1 indicator, 1 left out"
    assert lines[1] == f'{bad}:1:13: unknown option "scop"; did you mean "scope"?'
    assert lines[2].startswith(f'{bad}:2:1: "com" is a public suffix')
    assert "does not exist" in lines[3]
    assert err == "egressd: 3 problems\n"
    assert run(capsys, "lint", good)[0] == 0


def test_lint_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.txt", "0.0.0.0 bad.example\n0.0.0.0 com\n192.0.2.1 x.example\n")
    code, out, _ = run(capsys, "lint", "--json", bad)
    assert code == 3
    (record,) = [json.loads(line) for line in out.splitlines()]
    (problem,) = record.pop("problems")
    assert record == {"file": bad, "format": "hosts", "indicators": 1, "left_out": 1}
    assert (problem["line"], problem["column"]) == (2, 9)
    assert set(problem) == {"line", "column", "what", "advice"}


def test_lint_imports_nothing_that_is_slow() -> None:
    """A hook runs on every commit: 130 ms on a small machine."""
    modules, out = loaded("list", "lint", str(SAMPLES / "hosts.txt"))
    assert of(modules, "yaml", "aiohttp", "sqlite3", "asyncio", "scapy", "dns", "egressd.detect.engine") == []
    assert "hosts.txt" in out
