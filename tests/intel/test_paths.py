"""The normal form of a URL's path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.paths import normal_path


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("", ""), ("/", "/"), ("/drop/x", "/drop/x"), ("/Drop", "/Drop"), ("/?x", "/?x"),
        ("/%64rop/%78%2d%7E", "/drop/x-~"), ("/%2e/drop", "/drop"), ("/a%2f%c3", "/a%2F%C3"), ("/%2564", "/%2564"),
        ("/100%", "/100%25"), ("/%%36%34", "/%2564"), ("/%6", "/%256"),
        ("//drop///x", "/drop/x"), ("/a//../x", "/x"), ("//", "/"),
        ("/./drop/x", "/drop/x"), ("/a/../drop/x", "/drop/x"), ("/a/%2E%2e/drop", "/drop"), ("/../../x", "/x"),
        ("/a/b/..", "/a/"), ("/a/b/.", "/a/b/"), ("/a/..", "/"), ("/..", "/"), ("/.hidden/...", "/.hidden/..."),
        ("/a/./b/../../c/./g?x=//y/../%7e#/../z", "/c/g?x=//y/../~#/../z"), ("/x?", "/x?"), ("/%3fx//y", "/%3Fx/y"),
    ],
)  # fmt: skip
def test_forms(path: str, normal: str) -> None:
    assert normal_path(path) == normal


@given(st.lists(st.sampled_from(["/", ".", "%", "2", "e", "E", "6", "4", "?", "#", "a", "/..", "%2e", "\xe9"])))
def test_a_normal_form_is_its_own(parts: list[str]) -> None:
    normal = normal_path("/" + "".join(parts))
    assert normal_path(normal) == normal
    assert normal[0] == "/"
