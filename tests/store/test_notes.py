"""Notes of incidents: bounded, gone with the incident, and what its last one says lets it be."""

from __future__ import annotations

from egressd.store import incidents, notes, retention
from egressd.store.db import Database
from egressd.store.notes import MAX_NOTE, MAX_NOTES, Note
from egressd.units import DAY_US
from tests.store.scene import ANNA, T0, A, B, closed, opened, tied

X, Z = "indicator a.example", "indicator b.example"


def test_notes_are_bounded_and_go_with_their_incident(ledger: Database) -> None:
    tied(ledger, "C1", X)
    opened(ledger, "I1", "C1", A), opened(ledger, "I2", "C1", B)
    for number in range(MAX_NOTES + 3):
        text = f"{number} " + "x" * MAX_NOTE
        ledger.call(notes.add_notes, [Note("I1", T0 + number, text, ""), Note("I9", T0, "of nobody", "")])
    ledger.call(notes.add_notes, [Note("I2", T0, "allowed", "ignore-client")])
    found = ledger.call(notes.load_notes, ["I1", "I2", "I3"])
    assert [one.ts_us - T0 for one in found["I1"]] == list(range(3, MAX_NOTES + 3))
    assert {len(one.text) for one in found["I1"]} == {MAX_NOTE}
    assert (found["I2"], len(found)) == ([Note("I2", T0, "allowed", "ignore-client")], 2)
    assert ledger.call(notes.load_allowed) == {"I2": "ignore-client"}
    closed(ledger, "I2")
    assert ledger.call(notes.load_allowed) == {}
    ledger.call(retention.trim, retention.Bounds(closed_incidents=0), T0, ANNA)
    assert list(ledger.call(notes.load_notes, ["I1", "I2"])) == ["I1"]


def test_what_is_said_again_within_a_day_is_counted(ledger: Database) -> None:
    tied(ledger, "C1", X)
    opened(ledger, "I1", "C1")
    said = [
        (0, "again", ""), (1, "again", ""), (DAY_US - 1, "again", ""), (DAY_US, "again", ""), (DAY_US, "again", "x"),
        (DAY_US, "against", "x"), (DAY_US, "again", "x"), (DAY_US, "again", "x"),
    ]  # fmt: skip
    for ts_us, text, allowance in said:
        ledger.call(notes.count_notes, [Note("I1", T0 + ts_us, text, allowance), Note("I9", T0, "of nobody", "")])
    assert [(one.ts_us - T0, one.text, one.allowance) for one in ledger.call(notes.load_notes, ["I1"])["I1"]] == [
        (0, "again; 3 times within a day", ""), (DAY_US, "again", ""), (DAY_US, "again", "x"),
        (DAY_US, "against", "x"), (DAY_US, "again; 2 times within a day", "x"),
    ]  # fmt: skip


def test_what_lets_an_incident_be_is_what_its_last_note_says(ledger: Database) -> None:
    tied(ledger, "C1", X)
    opened(ledger, "I1", "C1")
    for allowance in ("one", "two", ""):
        ledger.call(notes.add_notes, [Note("I1", T0, "so it is", allowance)])
        assert ledger.call(notes.load_allowed) == ({"I1": allowance} if allowance else {})


def test_notes_go_on_with_the_incident_that_took_over(ledger: Database) -> None:
    tied(ledger, "C1", X), tied(ledger, "C2", Z)
    opened(ledger, "I1", "C1"), opened(ledger, "I2", "C2")
    ledger.call(notes.add_notes, [Note("I2", T0, "allowed", "x")])
    ledger.call(incidents.merge_campaigns, "C1", "C2")
    assert ledger.call(notes.load_notes, ["I1", "I2"]) == {"I1": [Note("I1", T0, "allowed", "x")]}
