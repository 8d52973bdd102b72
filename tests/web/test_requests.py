"""What a request is, and that nothing else passes: tables, and every byte string that hypothesis finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egressd.web.requests import MAX_FOR_S, VERB_ARGS, VERB_ROLES, WRONG, Refused, Role, check_args, parse_request

REASON = "notice 12"
# An accepted value for each argument of each verb.
GOOD: dict[str, Any] = {
    "lines": ["+bad.example", "-worse.example"],
    "what": "evil.example", "client": "10.2.7.11", "for_s": 7_200, "reason": REASON, "id": "D12", "incident": "I3",
    "remedy": ["10.0.0.9"], "segment": "JPS", "confirm": "JPS", "mode": "enforce", "state": "open", "limit": 5,
    "feed": "urlhaus", "force": True, "verdict": "confirmed", "actor": "uid:alice", "only": "lists",
    "campaign": "C1", "candidate": "C9",
    "verify": True, "head": "12:" + "a" * 64, "days": 7,
}  # fmt: skip
MUTATING = {verb for verb, role in VERB_ROLES.items() if role > Role.VIEWER}


def line(verb: Any, args: Any, **more: Any) -> bytes:
    return json.dumps({"v": 1, "verb": verb, "args": args, **more}).encode()


def refusal(text: bytes) -> str:
    with pytest.raises(Refused) as caught:
        check_args(parse_request(text))
    assert caught.value.code == WRONG
    assert caught.value.text.isascii() and caught.value.text.isprintable()
    return caught.value.text


def test_the_tables_speak_of_the_same_verbs() -> None:
    assert set(VERB_ROLES) == set(VERB_ARGS)
    assert {verb for verb, args in VERB_ARGS.items() if "reason" in args} == MUTATING, "each of these is audited"
    assert VERB_ROLES["mode"] == VERB_ROLES["panic"] == Role.ADMIN


@pytest.mark.parametrize("verb", VERB_ROLES)
def test_every_argument_of_every_verb(verb: str) -> None:
    args = {name: GOOD[name] for name in VERB_ARGS[verb]}
    assert check_args(parse_request(line(verb, args))) == (verb, args)
    for name, argument in VERB_ARGS[verb].items():
        less = {key: value for key, value in args.items() if key != name}
        if argument.required:
            assert refusal(line(verb, less)) == f"{verb}: {name} is missing"
            assert refusal(line(verb, {**args, name: None})) == f"{verb}: {name} is missing"
        else:
            assert check_args(parse_request(line(verb, less))).args == {**less, name: argument.default}
        for wrong in ({}, [1], 1.5, -1, "", "\x1b", "a\n", "\ud800", "x" * 20_000, ["\n"], "\u202e", " x"):
            if (name == "reason" and wrong == " x") or (name == "remedy" and wrong == []):
                continue
            assert name in refusal(line(verb, {**args, name: wrong})) or isinstance(wrong, float)
    assert "unknown argument 'clinet'" in refusal(line(verb, {**args, "clinet": "10.2.7.11"}))


@pytest.mark.parametrize(
    ("verb", "name", "value"),
    [
        ("block", "for_s", True), ("block", "for_s", 0), ("block", "for_s", MAX_FOR_S + 1), ("block", "for_s", "7200"),
        ("block", "reason", "   "), ("block", "reason", "x" * 501), ("undo", "id", "D"), ("undo", "id", "I3"),
        ("undo", "id", "D1\n"), ("ack", "incident", "D1"), ("tie", "campaign", "I1"),
        ("mode", "mode", "off"), ("mode", "mode", "Enforce"),
        ("audit", "limit", 0), ("audit", "limit", 10_001), ("audit", "verify", 1), ("audit", "head", "1:AB"),
        ("list-preview", "lines", []), ("list-preview", "lines", ["bad.example"]),
        ("list-preview", "lines", ["+" + "x" * 513]),
        ("isolate", "remedy", ["10.0.0.9"] * 17), ("isolate", "remedy", "10.0.0.9"), ("isolate", "remedy", [["x"]]),
    ],
)  # fmt: skip
def test_bounds(verb: str, name: str, value: Any) -> None:
    args = {one: GOOD[one] for one in VERB_ARGS[verb]}
    assert f"{verb}: {name} must be " in refusal(line(verb, {**args, name: value}))


def test_reasons_may_be_in_any_language() -> None:
    args = {"what": "evil.example", "reason": " 厚生労働省の通知 "}
    assert check_args(parse_request(line("block", args))).args["reason"] == "厚生労働省の通知"


def test_cut_without_confirmation_is_a_question() -> None:
    """The daemon tells what it would cut; so the name must not be filled in for anybody."""
    args = {"segment": "JPS", "for_s": 14_400, "reason": REASON}
    assert check_args(parse_request(line("cut", args))).args["confirm"] is None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff\xfe", b"{", b"null", b"[]", b'"status"', b"1" * 5_000, b"[" * 60_000, b'{"a":' * 10_000,
        b'{"v":1,"v":1,"verb":"status"}', b'{"v":1,"verb":"block","args":{"what":"a.example","what":"b.example"}}',
        b'{"v":1e400,"verb":"status"}', b'{"v":NaN,"verb":"status"}', b'{"v":true,"verb":"status"}',
        b'{"v":2,"verb":"status"}', b'{"v":1}', b'{"v":1,"verb":["status"]}', b'{"v":1,"verb":"run"}',
        b'{"v":1,"verb":"__class__"}', b'{"v":1,"verb":"status","args":[]}', b'{"v":1,"verb":"status","args":null}',
        b'{"v":1,"verb":"status","extra":1}', b'{"v":1,"verb":"\\u001b[2J\\ud800"}', b'{"v":1,"verb":"status"} x',
        b'{"v":' + b"9" * 60_000 + b',"verb":"status"}', '{"v":1,"verb":"status"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"v":1,"verb":"status"}',
    ],
)  # fmt: skip
def test_what_is_no_request(text: bytes) -> None:
    refusal(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=2_000))
@example(b'{"v":1,"verb":"status","args":{}}')
def test_bytes_are_a_request_or_refused(text: bytes) -> None:
    try:
        request = check_args(parse_request(text))
    except Refused as refused:
        assert refused.code == WRONG
        assert refused.text.isascii() and len(refused.text) < 200
    else:
        assert request.verb in VERB_ROLES


@settings(max_examples=500, deadline=None)
@given(
    st.fixed_dictionaries(
        {"v": st.just(1) | JSON, "verb": st.sampled_from(sorted(VERB_ROLES)) | st.text()},
        optional={"args": st.dictionaries(st.sampled_from(sorted(GOOD)) | st.text(max_size=5), JSON) | JSON},
    )
)
def test_objects_are_a_request_or_refused(record: dict[str, Any]) -> None:
    try:
        request = check_args(parse_request(json.dumps(record).encode()))
    except Refused as refused:
        assert refused.text.isascii() and refused.text.isprintable() and len(refused.text) < 200
    else:
        assert request.args.keys() == VERB_ARGS[request.verb].keys()
