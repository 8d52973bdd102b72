#!/usr/bin/env python3
"""Compare the names that egressd finds in captures with those that tshark found: recall, misses and extras.

usage: scripts/coverage.py CORPUS_DIR [--misses] [--extras]

CORPUS_DIR holds captures and `truth.jsonl` (one object a file: `file`, `names[]`; its README says how to count).
Counted are distinct (file, kind, client, name), answers with their address. Exit code 1 when all are under 99.5 %.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from egressd.capture.merge import Replay
from egressd.errors import CaptureError
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    HTTP_HOST,
    QUIC_SNI,
    TLS_SNI,
    DnsMessage,
    HttpRequest,
    Observation,
)
from egressd.wire.dissector import Dissector

Triple = tuple[str, str, str]  # kind, client, name (an answer's name carries its address)

AIM = 0.995
_KINDS = {
    "dns-query": "dns question",
    "dns-answer": "dns answer",
    "http-host": "http host",
    "http-uri": "http host",
    "tls-sni": "tls sni",
    "quic-sni": "quic sni",
}


def truth_of(entry: dict[str, object]) -> set[Triple]:
    """What tshark saw in one file, of what is counted."""
    found: set[Triple] = set()
    names = entry["names"]
    assert isinstance(names, list)
    for one in names:
        kind = _KINDS.get(one["proto"])
        if kind is None or one.get("quoted") or one.get("gquic") or one.get("h2") or one.get("app", "dns") != "dns":
            continue
        name = str(one["name"] or "").lower().rstrip(".")
        if not name or is_literal(name):
            continue
        if kind == "dns answer":
            found.add((kind, one["dst"], f"{name} {ip_address(one['addr'])}"))
        else:
            found.add((kind, one["src"], name))
    return found


def is_literal(name: str) -> bool:
    """Whether a name is an address literal: those are left out of the count."""
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def as_tshark(name: str) -> str:
    """Our escaped text as tshark prints it: control bytes in octal, other bytes as they are, not UTF-8 replaced."""
    if "\\" in name:
        name = re.sub(rb"\\([0-9]{3})", _byte, name.encode()).decode(errors="replace")
    return name.lower().rstrip(".")


def _byte(found: re.Match[bytes]) -> bytes:
    value = int(found[1])
    return b"\\%03o" % value if value < 0x20 or value == 0x7F else bytes((value,))


def ours_of(path: Path) -> tuple[set[Triple], str]:
    """What egressd sees in one file, and why the file ended early, if it did."""
    found: set[Triple] = set()

    def take(seen: Observation) -> None:
        client = str(ip_address(seen.flow.client))
        detail = seen.detail
        if seen.kind == DNS_QUERY and isinstance(detail, DnsMessage):
            for question in detail.questions:
                add("dns question", client, question.name or question.raw_name)
        elif seen.kind == DNS_ANSWER and isinstance(detail, DnsMessage):
            for record in detail.answers:
                if record.address:
                    name = as_tshark(record.name or record.raw_name)
                    found.add(("dns answer", client, f"{name} {ip_address(record.address)}"))
        elif seen.kind == HTTP_HOST and isinstance(detail, HttpRequest):
            # tshark ends a field's text at a zero byte.
            add("http host", client, (seen.name or seen.raw_name).partition("\\000")[0])
            add("http host", client, detail.header_host)
        elif seen.kind == TLS_SNI:
            add("tls sni", client, seen.name or seen.raw_name)
        elif seen.kind == QUIC_SNI:
            add("quic sni", client, seen.name or seen.raw_name)

    def add(kind: str, client: str, name: str) -> None:
        name = "<root>" if name == "." else as_tshark(name)
        if name and not is_literal(name):
            found.add((kind, client, name))

    dissector = Dissector(take)
    replay = Replay([path], dissector)
    try:
        replay.run()
    except CaptureError as error:
        return found, str(error)
    dissector.flush()
    return found, replay.files[0].error


def main() -> int:
    """Print the table; see the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--misses", action="store_true")
    parser.add_argument("--extras", action="store_true")
    args = parser.parse_args()
    expected: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    extra: Counter[str] = Counter()
    truths = {}
    with (args.corpus / "truth.jsonl").open() as lines:
        for line in lines:
            entry = json.loads(line)
            truths[entry["file"]] = truth_of(entry)
    files = sorted(p for p in args.corpus.rglob("*") if p.suffix in (".pcap", ".pcapng", ".cap"))
    for path in files:
        name = str(path.relative_to(args.corpus))
        truth = truths.get(name, set())
        ours, _ = ours_of(path)
        expected.update(kind for kind, _, _ in truth)
        hit.update(kind for kind, _, _ in truth & ours)
        extra.update(kind for kind, _, _ in ours - truth)
        if args.misses:
            for triple in sorted(truth - ours):
                print("miss ", name, *triple)
        if args.extras:
            for triple in sorted(ours - truth):
                print("extra", name, *triple)
    print(f"{len(files)} files")
    for kind in sorted(expected):
        print(f"{kind:13} {hit[kind]:6} of {expected[kind]:6}  {hit[kind] / expected[kind]:8.2%}  extra {extra[kind]}")
    total = sum(hit.values()) / sum(expected.values())
    print(f"{'all':13} {sum(hit.values()):6} of {sum(expected.values()):6}  {total:8.2%}  extra {sum(extra.values())}")
    return 0 if total >= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
