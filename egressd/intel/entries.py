"""The first word of a line: a domain, a subtree, an address, a network or a URL prefix, in the forms that people write.

Defanged spellings (`hxxp://bad[.]example`), capitals, U-labels, a trailing dot, IPv4-mapped addresses and the forms of
a URL's path are read as what they mean.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from egressd.intel.lines import Word, Wrong, show
from egressd.intel.networks import as_sent, first_address, parse_address, parse_network, render_address, render_network
from egressd.intel.paths import normal_path
from egressd.names import to_a_label

MAX_URL_PATH: Final = 2048  # characters; request targets are kept no longer

DOMAIN: Final = "domain"
ADDRESS: Final = "address"
NETWORK: Final = "network"
URL: Final = "url"

_DOT: Final = re.compile(r"\[\.\]|\(\.\)|\{\.\}|\[dot\]|\(dot\)", re.I)
_SCHEME: Final = re.compile(r"h(?:tt|xx)ps?(?:\[:\]|:)//|h(?:tt|xx)ps?\[://\]", re.I)
_BROKEN_SCHEME: Final = re.compile(r"h(?:tt|xx)ps?:?/", re.I)  # of :// the colon or a slash is missing
_ANY_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
# Dashes, quotation marks and bullets that word processors put where a person typed - or ". UTS 46 lets them stand, and
# the name that comes of it is one that nobody ever asks for.
_TYPESET: Final = re.compile("[\u2010-\u2015\u2212\u2018-\u201f\u2039\u203a\u00ab\u00bb\u2022\u2032\u2033]")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Entry(NamedTuple):
    """What a line names. `value` is as in model.Indicator; `addr` and `length` are set for addresses, networks and
    a URL whose host is an address; `host` is a URL's host."""

    kind: str
    value: str
    subtree: bool = False
    addr: bytes = b""
    length: int = 0
    host: str = ""


def refang(text: str) -> str:
    """The text with defanged dots and schemes made real."""
    if "[" in text or "(" in text or "{" in text:
        text = _DOT.sub(".", text)
    found = _SCHEME.match(text)
    if found is None:
        return text
    return ("https://" if "s" in found.group().lower() else "http://") + text[found.end() :]


def parse_entry(word: Word) -> Entry:
    """Read an entry. Raises Wrong when it is none."""
    text = refang(word.text)
    column = word.column
    if _ANY_SCHEME.match(text) is not None:
        if not text.startswith(("http://", "https://")):
            raise Wrong(column, f'only http and https URLs can be listed: "{show(text)}"', "list the host instead")
        return _parse_url(text.partition("://")[2], column)
    addr = parse_address(text)
    if addr:
        addr, length = as_sent(addr, 8 * len(addr))
        return Entry(ADDRESS, render_address(addr), addr=addr, length=length)
    if "/" in text:
        if _BROKEN_SCHEME.match(text) is not None:
            raise Wrong(column, f'not a URL: "{show(text)}"', "write http:// or https:// before the host")
        if parse_address(text.partition("/")[0]):
            return _parse_network(text, column)
        return _parse_url(text, column)
    subtree = text.startswith(("*.", "."))
    return Entry(DOMAIN, parse_name(text.removeprefix("*").removeprefix(".") if subtree else text, column), subtree)


def parse_name(text: str, column: int) -> str:
    """The normal form of a name of two labels or more that is not a misspelt address. Raises Wrong."""
    typeset = _TYPESET.search(text) if not text.isascii() else None
    if typeset is not None:
        what = f'U+{ord(typeset.group()):04X} of a word processor in "{show(text)}"'
        raise Wrong(column, what, "write a plain - and no quotation marks")
    name = to_a_label(text)
    if not name:
        host, colon, port = text.rpartition(":")
        if colon and port.isascii() and port.isdigit() and (to_a_label(host) or parse_address(host)):
            raise Wrong(column, f'a port cannot be listed: "{show(text)}"', f'write "{show(host)}" alone')
        if "*" in text:
            if to_a_label(text.removeprefix("*.")):
                raise Wrong(column, f'a wildcard cannot stand here: "{show(text)}"', "write the name without *.")
            what = f'a wildcard can only stand first, as "*.": "{show(text)}"'
            raise Wrong(column, what, "write *.name for a subtree, or the name alone")
        if "#" in text:
            raise Wrong(column, f'not a legal name: "{show(text)}"', "leave a space before the # of a comment")
        if ":" in text:
            raise Wrong(column, f'not an address: "{show(text)}"', "check the spelling")
        what = f'not a legal name: "{show(text)}"'
        if "," in text or ";" in text:
            raise Wrong(column, what, "a table is not read: take out the column with the names, one on a line")
        if '"' in text:
            raise Wrong(column, what, "write it without quotes")
        raise Wrong(column, what, "labels are 1 to 63 letters, digits, hyphens or underscores, at most 253 in all")
    if _NUMBER.fullmatch(name[name.rfind(".") + 1 :]) is not None:
        raise Wrong(
            column, f'not an IPv4 address: "{show(text)}"', "write four numbers of 0 to 255 without leading zeros"
        )
    return name


def _parse_network(text: str, column: int) -> Entry:
    network = parse_network(text)
    if network is None:
        raise Wrong(column, f'not a network: "{show(text)}"', "write address/length, such as 192.0.2.0/24")
    addr, length = network
    first = first_address(addr, length)
    if first != addr:
        what = f'"{show(text)}" has address bits beyond its length'
        raise Wrong(column, what, f"write {render_network(first, length)} or {render_address(addr)}")
    addr, length = as_sent(addr, length)
    kind = ADDRESS if length == 8 * len(addr) else NETWORK
    return Entry(kind, render_network(addr, length), addr=addr, length=length)


def _parse_url(text: str, column: int) -> Entry:
    """`host[:port][/path]`. The port is read and dropped, for a host and a path are matched; so is a fragment."""
    text = text.partition("#")[0]
    cut = len(text)
    for mark in "/?":
        at = text.find(mark)
        cut = min(cut, at if at >= 0 else cut)
    authority, path = text[:cut], text[cut:]
    if "@" in authority:
        raise Wrong(column, f'a URL with a user name: "{show(text)}"', "list it without the part before @")
    host, addr = _parse_authority(authority, column)
    path = path if path.startswith("/") else "/" + path
    if not path.isprintable() or any(map(str.isspace, path)):
        raise Wrong(column, "the URL holds characters that no URL can", "percent-encode or remove them")
    path = "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode()) for char in path)
    if len(path) > MAX_URL_PATH:
        raise Wrong(column, f"the URL's path is longer than {MAX_URL_PATH} characters", "list a prefix of it")
    return Entry(URL, host + normal_path(path), addr=addr, length=8 * len(addr), host=host)


def _parse_authority(authority: str, column: int) -> tuple[str, bytes]:
    """(host as it stands in an indicator's value, packed address when it is one) of `host[:port]`. Raises Wrong."""
    if authority.startswith("["):
        text, bracket, rest = authority[1:].partition("]")
        text = text if bracket else ""
        port = rest.removeprefix(":")
    else:
        text, _, port = authority.partition(":")
        rest = ":" + port if port else ""
    if (rest and rest[0] != ":") or (port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
        raise Wrong(column, f'not a host and port: "{show(authority)}"', "write host or host:port before the path")
    addr = parse_address(text)
    if len(addr) == 16 or authority.startswith("["):
        if not addr or not authority.startswith("["):
            raise Wrong(column, f'not a host: "{show(authority)}"', "write an IPv6 address in a URL as [address]")
        addr, _ = as_sent(addr, 8 * len(addr))
        return (f"[{render_address(addr)}]" if len(addr) == 16 else render_address(addr)), addr
    return (text, addr) if addr else (parse_name(text, column), b"")
