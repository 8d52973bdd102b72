"""Zeek's dns.log, http.log, ssl.log, quic.log and conn.log, as tab-separated text and as JSON (docs.zeek.org, "Log
Formats" and the reference of each log).

The text form says itself how it is written: `#separator`, `#set_separator`, `#unset_field`, `#empty_field`, `#path`,
`#fields`. Of JSON the sort of log is told by `_path` where that is written (the json-streaming-logs package), else by
which fields there are.
"""

from __future__ import annotations

import re
from typing import Any, Final

from egressd.errors import Malformed
from egressd.logs.json_line import Fields, parse_object
from egressd.logs.parser import LogParser
from egressd.logs.telling import MAX_ANSWERS, answer, flow_of, hello, question, record, request
from egressd.logs.times import epoch_of, parse_epoch, parse_iso
from egressd.model import FLOW, FlowKey, Observation

MAX_FIELDS: Final = 256  # columns of one log; conn.log has some 25
MAX_INTERVAL_S: Final = 31_622_400.0  # a year
_ESCAPE: Final = re.compile(r"\\x([0-9A-Fa-f]{2})")
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?")


class ZeekParser(LogParser):
    """Lines of one log, in either form. `written_us` is about when the last line was written, by Zeek's clock."""

    has_header = True

    def __init__(self, sensor: str) -> None:
        super().__init__(sensor)
        self._separator = "\t"
        self._set_separator = ","
        self._unset = "-"
        self._empty = "(empty)"
        self._path = ""
        self._columns: list[str] = []

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line tells of; nothing where it is of another sort. Raises Malformed."""
        if line.startswith(b"{"):
            fields = parse_object(line)
            return self._tell(fields.text("_path") or _path_of(fields), fields)
        text = line.decode("utf-8", "replace")
        if text.startswith("#"):
            self._directive(text)
            return []
        if not self._columns:
            raise Malformed("a line before #fields")
        values = text.split(self._separator)
        if len(values) != len(self._columns):
            raise Malformed("another number of values than of #fields")
        members: dict[str, Any] = {
            name: _unescape(value)
            for name, value in zip(self._columns, values, strict=True)
            if value not in (self._unset, self._empty)
        }
        if "answers" in members:
            raw = values[self._columns.index("answers")]
            members["answers"] = [_unescape(one) for one in raw.split(self._set_separator)[:MAX_ANSWERS]]
        for name in ("id.orig_p", "id.resp_p", "qtype", "trans_id"):
            digits = members.get(name, "")
            if digits.isascii() and digits.isdigit() and len(digits) < 10:
                members[name] = int(digits)
        return self._tell(self._path, Fields(members))

    def _directive(self, text: str) -> None:
        name, _, value = text[1:].partition(" " if text.startswith("#separator") else self._separator)
        if name == "separator":
            self._separator = _unescape(value)[:8] or "\t"
            self._columns = []
        elif name == "set_separator":
            self._set_separator = _unescape(value)[:8] or ","
        elif name == "unset_field":
            self._unset = value[:16]
        elif name == "empty_field":
            self._empty = value[:16]
        elif name == "path":
            self._path = value[:40]
        elif name == "fields":
            self._columns = value.split(self._separator)[:MAX_FIELDS]

    def _tell(self, path: str, fields: Fields) -> list[Observation]:
        begun_us = _time(fields.members.get("ts"))
        lasted_us = round(_seconds(fields.members.get("rtt" if path == "dns" else "duration")) * 1e6)
        self.written_us = begun_us + lasted_us
        if path not in ("dns", "http", "ssl", "quic", "conn"):
            return []
        flow = flow_of(
            fields.text("proto") or ("udp" if path == "quic" else "tcp"),
            fields.text("id.orig_h"), fields.number("id.orig_p"), fields.text("id.resp_h"), fields.number("id.resp_p"),
            fields.number("id.orig_p"),  # of ICMP the type
        )  # fmt: skip
        if flow is None:
            return []
        if path == "dns":
            return self._dns(fields, begun_us, flow)
        found: Observation | None
        if path == "http":
            found = request(
                begun_us, flow, fields.text("method"), fields.text("uri"), fields.text("host"),
                fields.text("user_agent"), self.sensor,
            )  # fmt: skip
        elif path == "conn":
            if _came_only(fields.text("history")):
                return []
            found = Observation(FLOW, begun_us, 0, flow, "", "", None, 0, "", self.sensor)
        else:
            found = hello(begun_us, flow, fields.text("server_name"), quic=path == "quic", sensor=self.sensor)
        return [found] if found is not None else []

    def _dns(self, fields: Fields, begun_us: int, flow: FlowKey) -> list[Observation]:
        """A question with its answer. An answer alone is written down too, and has no rtt: nobody asked for it."""
        name = fields.text("query")
        answered = "rcode" in fields.members or "rcode_name" in fields.members or "answers" in fields.members
        if not name or (answered and "rtt" not in fields.members):
            return []
        rrtype, txid = fields.number("qtype"), fields.number("trans_id")
        told = [question(begun_us, flow, name, rrtype, txid, self.sensor)]
        records = [record(name, rdata) for rdata in fields.texts("answers", MAX_ANSWERS)]
        aliases = [one for one in records if one is not None]
        if aliases:
            told.append(answer(self.written_us, flow, name, rrtype, aliases, txid, self.sensor))
        return told


def _came_only(history: str) -> bool:
    """Whether nothing of a connection is its originator's own, but for a RST. Zeek takes the receiver of what looks
    like an answer for the originator (docs.zeek.org, conn.log: `^` in the history, whose upper-case letters are his),
    and anybody can send a host such a thing, under any address."""
    letters = set(filter(str.isalpha, history))
    return bool(letters) and {one for one in letters if one.isupper()} <= {"R"}


def _path_of(fields: Fields) -> str:
    """The sort of log by its fields, as the reference of each has them."""
    members = fields.members
    if "conn_state" in members:
        return "conn"
    if "query" in members and "trans_id" in members:
        return "dns"
    if "client_initial_dcid" in members or "server_scid" in members:
        return "quic"
    if "trans_depth" in members and "method" in members:
        return "http"
    return "ssl" if "server_name" in members and "established" in members else ""


def _time(value: object) -> int:
    if isinstance(value, str):
        return parse_iso(value) if "-" in value else parse_epoch(value)
    return epoch_of(value)


def _seconds(value: object) -> float:
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value) is not None else 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= MAX_INTERVAL_S:
        return 0.0
    return float(value)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "\\x" in text else text
