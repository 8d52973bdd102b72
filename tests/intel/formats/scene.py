"""What the tests of formats read with: the shipped guard, suffixes and addresses; results as text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from egressd.config.load import SHIPPED
from egressd.errors import Problem
from egressd.intel.formats import Ignored, Rules, read_feed
from egressd.intel.formats.judgement import Found
from egressd.intel.guard import Guard
from egressd.intel.lines import render_time
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.names import Suffixes

SAMPLES = Path(__file__).parent / "samples"
NOW_S = 1_767_323_045  # 2026-01-02T03:04:05Z


@cache
def rules() -> Rules:
    """The rules that egressd ships."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in SHIPPED.iterdir() if path.is_file()}
    suffixes = Suffixes.parse(texts["public_suffix_list.dat"])
    guard, _ = Guard.parse(texts["guard.txt"], suffixes)
    resolvers, _ = Resolvers.parse(texts["resolvers.txt"], "resolvers.txt")
    # Documentation ranges stand for servers here.
    special = "".join(
        line + "\n"
        for line in texts["special_purpose.txt"].splitlines()
        if not line.startswith(("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:"))
    )
    protected, _ = Protected.parse(special, "special_purpose.txt", extra=resolvers.protected_entries())
    return Rules(suffixes, guard, protected, now_s=NOW_S)


def found_in(text: str, format_: str, source: str = "feed", **changes: object) -> list[Found]:
    """Everything a text comes to."""
    return list(read_feed(text, format_, source, rules()._replace(**changes)))  # type: ignore[arg-type]


def render_found(found: Found) -> str:
    """One line of a golden file."""
    if isinstance(found, Ignored):
        return f"{found.line} ignored: {found.reason}"
    if isinstance(found, Problem):
        return f"{found.line}:{found.column} problem: {found.what}"
    words = [f"{found.line} {found.kind} {found.value} {found.scope}"]
    words += [f"narrowed={found.narrowed!r}"] if found.narrowed else []
    words += [f"threat={found.threat!r}"] if found.threat else []
    words += [f"confidence={found.confidence}"] if found.confidence != 100 else []
    words += [f"expires={render_time(found.expires_s)}"] if found.expires_s else []
    words += [f"first_seen={render_time(found.first_seen_s)}"] if found.first_seen_s else []
    words += [f"ref={found.ref!r}"] if found.ref else []
    words += [f"owner={found.owner!r}"] if found.owner else []
    return " ".join(words)
