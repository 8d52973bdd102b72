"""Names: one normal form for all of egressd, a safe text form for what has none, and the Public Suffix List.

A normal name is lower case, A-label (RFC 5890 section 2.3.2.1), letters, digits, hyphens and underscores, labels of
1 to 63, 253 characters in all, no trailing dot. Hyphens may stand anywhere: resolvers answer for such names, so hosts
use them.
"""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import ConfigError, Problem

MAX_NAME: Final = 253  # RFC 1035 section 3.1: 255 octets on the wire, less the first length octet and the root
MAX_LABEL: Final = 63  # RFC 1035 section 3.1
MAX_ESCAPED_BYTES: Final = 255  # a whole wire name fits; longer input is no name and its tail tells nothing
MAX_CACHED_NAMES: Final = 16_384  # a busy segment's names of a minute; under 12 MB even if every name has full length
MAX_CACHED_DOMAINS: Final = 4_096  # those of them that are met with many names; to free them all takes 0.2 ms

UNLISTED: Final = "* (unlisted)"  # publicsuffix.org, algorithm: "If no rules match, the prevailing rule is '*'."

_LEGAL: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_PLAIN: Final = re.compile(rb"[ -\[\]-~]*")
_PLAIN_BYTES: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
# Each byte in its normal form: letters become small ones, and what no name has becomes "!".
_FORMS: Final = bytes([form if form in _PLAIN_BYTES else 0x21 for form in bytes(range(256)).lower()])
_NORMALISED: Final[dict[bytes, str]] = {}  # of names asked about lately
_ESCAPES: Final = {code: f"\\{code:03d}" for code in range(256) if not 0x20 <= code <= 0x7E or code == 0x5C}


def normalise(raw: bytes) -> str:
    """The normal form of a name as sent, or "" when it is no legal name. One trailing dot is taken off."""
    if len(raw) > MAX_NAME + 1:  # outside the cache, so that no entry of it is long
        return ""
    name = _NORMALISED.get(raw)
    if name is None:
        if len(_NORMALISED) >= MAX_CACHED_NAMES:
            _NORMALISED.clear()
        name = _NORMALISED[raw] = _normalise(raw)
    return name


def _normalise(raw: bytes) -> str:
    if len(raw) <= MAX_LABEL:  # nothing so short has a long label
        plain = raw.translate(_FORMS).decode("ascii")
        is_name = plain and plain[0] != "." and "!" not in plain and ".." not in plain
        return plain.removesuffix(".") if is_name else ""
    name = raw.decode("latin-1").lower() if raw.isascii() else ""
    if name.endswith("."):
        name = name[:-1]
    if len(name) > MAX_NAME or _LEGAL.fullmatch(name) is None:
        return ""
    return name


def escape(raw: bytes) -> str:
    """Printable ASCII for records and screens: other bytes and the backslash as `\\DDD` (RFC 1035 section 5.1).

    Only the first 255 bytes are rendered; what was cut shows as "...".
    """
    if len(raw) > MAX_ESCAPED_BYTES:
        return escape(raw[:MAX_ESCAPED_BYTES]) + "..."
    text = raw.decode("latin-1")
    return text if _PLAIN.fullmatch(raw) is not None else text.translate(_ESCAPES)


def from_labels(labels: list[bytes]) -> tuple[str, str]:
    """(normal form or "", presentation form) of a wire name's labels, root label left out or last.

    A dot inside a label is `\\046` in the presentation form and makes the name illegal. The root is ("", ".").
    """
    joined = b".".join(labels)
    if not joined:
        return "", "."
    if joined.count(b".") != len(labels) - 1:
        return "", _escape_labels(labels)
    return normalise(joined), escape(joined[:-1] if joined.endswith(b".") else joined)


def _escape_labels(labels: list[bytes]) -> str:
    parts: list[str] = []
    left = MAX_ESCAPED_BYTES
    for label in labels:
        if len(label) > left:
            parts.append(escape(label[:left]).replace(".", "\\046") + "...")
            break
        parts.append(escape(label).replace(".", "\\046"))
        left -= len(label) + 1
    return ".".join(parts)


def to_a_label(text: str) -> str:
    """The normal form of a name that a person wrote (U-labels, capitals, a trailing dot), or "" when it is illegal.

    Mapping follows UTS 46 (non-transitional), as browsers do, not the stricter registration rules of RFC 5891: a list
    must be able to name what clients can look up.
    """
    if text.isascii():
        return normalise(text.encode("ascii"))
    if len(text) > MAX_NAME:  # an A-label is never shorter than its U-label
        return ""
    import idna  # only people write U-labels, and its tables take 10 ms to load

    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        encoded = ".".join(_a_label(label) for label in mapped.split("."))
    except (idna.IDNAError, UnicodeError):
        return ""
    return normalise(encoded.encode("ascii"))


def _a_label(label: str) -> str:
    """RFC 3492 form of one label that is already mapped (lower case, NFC)."""
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")


class _Node:
    """What the list says of a name: the rule for it and the wildcard rule one label below, "" where there is none;
    `goes_on` when there are rules below."""

    __slots__ = ("goes_on", "rule", "wildcard")

    def __init__(self, rule: str, goes_on: bool) -> None:
        self.rule = rule
        self.wildcard = ""
        self.goes_on = goes_on


class Suffixes:
    """The Public Suffix List, private section on, by name: each that has a rule, and those above it.

    Rules wait by their last label until a name under it is asked about: to look at ten thousand was half of what it
    costs to start a command, and traffic needs a few hundred.
    """

    __slots__ = ("_domains", "_known", "_leaving", "_nodes", "_waiting", "size", "version")

    def __init__(self, waiting: dict[str, str], size: int, version: str) -> None:
        """`waiting`: by last label, rules in A-labels with a space between; "~" before those of the private section."""
        self._waiting = waiting
        self._nodes: dict[str, _Node] = {}
        self._known: dict[str, tuple[str, str, str]] = {}  # names asked about lately: the same ones come all the time
        self._leaving: dict[str, tuple[str, str, str]] = {}
        # What is said of the names under a registered domain, by that domain: one object for all of them, for tables of
        # ours hold many names under few domains.
        self._domains: dict[str, tuple[str, str, str]] = {}
        self.size = size
        self.version = version

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        return Suffixes, (self._waiting, self.size, self.version)

    @classmethod
    def parse(cls, text: str, source: str = "public_suffix_list.dat") -> Suffixes:
        """Read the list's own format (publicsuffix.org/list, "Format"). Raises ConfigError when it is not that."""
        waiting: dict[str, list[str]] = {}
        version = mark = ""
        size = 0
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("// VERSION:"):
                version = line[11:].strip().partition("_")[0]
            elif line.startswith("// ===BEGIN PRIVATE"):
                mark = "~"
            words = line.split(None, 1)  # "Each line is only read up to the first whitespace"
            if not words or line.startswith("//"):
                continue
            rule = _a_rule(words[0])
            if not _is_rule(rule):
                what = f"not a rule of the Public Suffix List: {escape(rule.encode())}"
                raise ConfigError([Problem(source, number, 1, what, "fetch the list again from publicsuffix.org")])
            size += 1
            if rule != "*":  # the default rule, written out
                waiting.setdefault(rule[rule.rfind(".") + 1 :].lstrip("!"), []).append(mark + rule)
        if not size:
            raise ConfigError([Problem(source, 0, 0, "no rules in it", "fetch the list again from publicsuffix.org")])
        return cls({label: " ".join(rules) for label, rules in waiting.items()}, size, version)

    def grouped(self) -> str:
        """What `from_grouped` reads: the list's date and how many rules, then a line for each last label."""
        lines = [f"{label} {rules}\n" for label, rules in self._waiting.items()]
        return f"{self.version} {self.size}\n{''.join(lines)}"

    @classmethod
    def from_grouped(cls, text: str) -> Suffixes:
        """Read what `grouped` wrote: half a millisecond at each start, where the list itself takes 25."""
        head, *lines = text.split("\n")
        version, _, size = head.rpartition(" ")
        waiting: dict[str, str] = {}
        for line in lines:
            label, _, rules = line.partition(" ")
            if label:
                waiting[label] = rules
        return cls(waiting, int(size), version)

    def split(self, name: str) -> tuple[str, str, str]:
        """(registered domain, suffix, rule text) of a normal name; the registered domain of a suffix is "".

        Rule text is as in the list, A-label, and tells its section: "com", "*.ck", "!www.ck", "github.io (private)", or
        "* (unlisted)". Not for addresses.
        """
        known = self._known.get(name)
        if known is not None:
            return known
        if len(self._known) >= MAX_CACHED_NAMES:
            self._leaving, self._known = self._known, {}
        elif self._leaving:
            self._leaving.popitem()  # one by one: all at once they would take 4 ms
        parts = self._split(name)
        domain = parts[0]
        if domain:
            others = self._domains.get(domain)
            if others is not None:
                parts = others
            else:
                if len(self._domains) >= MAX_CACHED_DOMAINS:
                    self._domains.clear()
                self._domains[domain] = parts
        self._known[name] = parts
        return parts

    def _split(self, name: str) -> tuple[str, str, str]:
        dot = name.rfind(".")  # before the suffix, as far as it is known
        suffix = name[dot + 1 :]
        node = self._nodes.get(suffix)
        if node is None and suffix in self._waiting:
            node = self._from_waiting(suffix)
        if node is None:
            return name[name.rfind(".", 0, dot) + 1 :] if dot >= 0 else "", suffix, UNLISTED
        rule = node.rule or UNLISTED
        end = dot  # of the label to look at next
        while node is not None and node.goes_on and end > 0:
            wildcard = node.wildcard
            start = name.rfind(".", 0, end)
            node = self._nodes.get(name[start + 1 :])
            if node is not None and node.rule:
                if node.rule[0] == "!":  # an exception beats every other rule and takes its first label off
                    dot, rule = end, node.rule
                    break
                dot, rule = start, node.rule
            elif wildcard:
                dot, rule = start, wildcard
            end = start
        if dot < 0:
            return "", name, rule
        return name[name.rfind(".", 0, dot) + 1 :], name[dot + 1 :], rule

    def _from_waiting(self, label: str) -> _Node:
        """The node of a last label whose rules were not asked for yet; they stay, for other threads may ask too."""
        nodes: dict[str, _Node] = {}
        for rule in self._waiting[label].split(" "):
            _add_rule(nodes, rule)
        self._nodes.update(nodes)  # at once
        return nodes[label]

    def registered_domain(self, name: str) -> str:
        """The part of a normal name that someone registered, or "" when the whole name is a suffix."""
        known = self._known.get(name)
        return self.split(name)[0] if known is None else known[0]

    def is_suffix(self, name: str) -> bool:
        """Whether a normal name is a public suffix, by the private section and the rule for unknown TLDs too."""
        return name != "" and not self.split(name)[0]

    def has_suffixes_below(self, name: str) -> bool:
        """Whether the list has public suffixes below a normal name, as below kawasaki.jp (rule *.kawasaki.jp): who
        covers such a name with all below it covers other people's registered domains."""
        label = name[name.rfind(".") + 1 :]
        if label in self._waiting and label not in self._nodes:
            self._from_waiting(label)
        node = self._nodes.get(name)
        return node is not None and node.goes_on


def _a_rule(rule: str) -> str:
    """A rule in A-labels, lower case."""
    return (rule if rule.isascii() else ".".join(map(_a_label, rule.split(".")))).lower()


def _is_rule(rule: str) -> bool:
    """Whether a rule in A-labels is in a form that the list uses (a wildcard only ever comes first)."""
    if rule == "*":
        return True
    name = rule[1:] if rule[0] == "!" else rule[2:] if rule.startswith("*.") else rule
    return len(name) <= MAX_NAME and _LEGAL.fullmatch(name) is not None and (rule[0] != "!" or "." in name)


def _add_rule(nodes: dict[str, _Node], rule: str) -> None:
    """Add a rule, with the mark of its section before it, to the nodes of its last label."""
    name = rule
    if rule[0] == "~":
        name = rule[1:]
        rule = f"{name} (private)"
    is_wildcard = name.startswith("*.")
    if is_wildcard:
        name = name[2:]
    elif name[0] == "!":
        name = name[1:]
    node = nodes.get(name)
    if node is None:
        node = nodes[name] = _Node("" if is_wildcard else rule, is_wildcard)
        dot = name.find(".")
        while dot >= 0:  # those above, as far as they are not known to go on
            name = name[dot + 1 :]
            above = nodes.get(name)
            if above is not None:
                above.goes_on = True
                break
            nodes[name] = _Node("", True)
            dot = name.find(".")
    elif not is_wildcard:
        node.rule = node.rule or rule
    if is_wildcard:
        node.wildcard = node.wildcard or rule
        node.goes_on = True
