"""The forms of text that options have: what a person wrote to its normal form, or Wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from egressd.config.kinds import (
    ADDRESSES,
    INTERFACES,
    LISTENING,
    NAMES,
    NETWORKS,
    PATH,
    PATHS,
    PREFIXES,
    SEGMENT_NAMES,
    TEXT,
    URL,
    WORDS,
)
from egressd.intel.allowances import WIDEST_IPV4, WIDEST_IPV6
from egressd.intel.entries import parse_name
from egressd.intel.lines import Wrong, show
from egressd.intel.networks import (
    NAT64_LENGTHS,
    as_sent,
    first_address,
    last_address,
    parse_address,
    parse_network,
    render_address,
    render_network,
)
from egressd.wire.direction import is_private

MAX_WORD: Final = 64  # characters
MAX_INTERFACE_BYTES: Final = 15  # IFNAMSIZ of linux/if.h, less the zero at its end
WIDEST_OWN_IPV4: Final = 8  # prefix lengths of what one owner has of the public addresses, at most
WIDEST_OWN_IPV6: Final = 16
_MULTICAST: Final = {4: 224, 16: 255}  # by the address's length in bytes: the first byte from which on nobody's host is


def read_text_as_it_is(text: str) -> str:
    """Any text."""
    return text


def read_word(text: str) -> str:
    """A name that the machine gives. Raises Wrong."""
    if not text or len(text) > MAX_WORD or text.split() != [text] or "/" in text:
        raise Wrong(1, f'not a name: "{show(text)}"', "write it as the system shows it, without spaces")
    return text


def read_interface(text: str) -> str:
    """A name that the kernel takes for an interface (dev_valid_name in net/core/dev.c). Raises Wrong."""
    if not text or text in (".", "..") or text.split() != [text] or "/" in text or ":" in text:
        advice = "write it as ip link shows it, without @ and what follows"
        raise Wrong(1, f'not the name of an interface: "{show(text)}"', advice)
    if len(os.fsencode(text)) > MAX_INTERFACE_BYTES:
        what = f'"{show(text)}" is longer than the {MAX_INTERFACE_BYTES} bytes that an interface\'s name has'
        raise Wrong(1, what, "write it as ip link shows it; its other names (altname) are not taken")
    return text


def read_address(text: str) -> str:
    """An address in its normal form. Raises Wrong."""
    addr = parse_address(text)
    if not addr:
        raise Wrong(1, f'not an address: "{show(text)}"', "write an IPv4 or IPv6 address")
    return render_network(*as_sent(addr, 8 * len(addr)))


def read_network(text: str) -> str:
    """An address or network in its normal form. Raises Wrong."""
    network = parse_network(text)
    if network is None:
        raise Wrong(1, f'not an address or network: "{show(text)}"', "write address or address/length")
    addr, length = network
    first = first_address(addr, length)
    if first != addr:
        advice = f"write {render_network(first, length)} or {render_address(addr)}"
        raise Wrong(1, f'"{show(text)}" has address bits beyond its length', advice)
    return render_network(*as_sent(addr, length))


def read_spared(text: str) -> str:
    """An address or network that something does not hold for, in its normal form. Raises Wrong, also for what is so
    wide that it would hold for nobody."""
    spared = read_network(text)
    addr, length = parse_network(spared) or (b"", 0)
    if length < (WIDEST_IPV4 if len(addr) == 4 else WIDEST_IPV6) and addr[0] < _MULTICAST[len(addr)]:
        what = f"{spared} is {'everything' if not length else 'most of what there is'}"
        raise Wrong(1, what, f"name networks of /{WIDEST_IPV4} (IPv4) or /{WIDEST_IPV6} (IPv6) and longer")
    return spared


def read_own_network(text: str) -> str:
    """An address or network of the operator's own, in its normal form. Raises Wrong, also for what holds other
    people's addresses: whoever of them turns to a server inside would be a host of ours."""
    own = read_network(text)
    addr, length = parse_network(own) or (b"", 0)
    if is_private(addr) and is_private(last_address(addr, length)):
        return own
    if length < (WIDEST_OWN_IPV4 if len(addr) == 4 else WIDEST_OWN_IPV6):
        what = f"{own} is {'everybody' if not length else 'far more than yours'}; outsiders would be hosts of yours"
        advice = (
            f"name your own networks, public ones of /{WIDEST_OWN_IPV4} (IPv4) or /{WIDEST_OWN_IPV6} (IPv6) at most"
        )
        raise Wrong(1, what, advice + "; who is in no segment is under mode:")
    return own


def read_listening(text: str) -> str:
    """An address to listen on, or a name that this machine knows one by; may be empty. Raises Wrong."""
    if text and not parse_address(text):
        try:
            parse_name(text, 1)
        except Wrong:
            what = f'not an address: "{show(text)}"'
            raise Wrong(1, what, "write an IPv4 or IPv6 address, without brackets and port") from None
    return text


def read_prefix(text: str) -> str:
    """A NAT64 prefix. Raises Wrong."""
    network = parse_network(text)
    if network is None or network[1] not in NAT64_LENGTHS or len(as_sent(*network)[0]) != 16:
        advice = "write an IPv6 network of length 96, 64, 56, 48, 40 or 32"
        raise Wrong(1, f'not a NAT64 prefix: "{show(text)}"', advice)
    return read_network(text)


def read_name(text: str) -> str:
    """A name of two labels or more in its normal form. Raises Wrong."""
    name = parse_name(text, 1)
    if "." not in name:
        raise Wrong(1, f'"{name}" is a single label', "write the name in full, with its domain")
    return name


def read_url(text: str) -> str:
    """An address of the web. Raises Wrong, which never quotes it: there may be a key in it."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Wrong(1, "not an address of the web", "write https://host/path") from None
    if parts.scheme not in ("http", "https") or not host or "{" in parts.netloc:
        raise Wrong(1, "not an address of the web", "write https://host/path")
    if not text.isascii() or any(map(str.isspace, text)) or '"' in text or "\\" in text:
        raise Wrong(1, "holds characters that no such address has", "percent-encode them")
    if "@" in parts.netloc:
        raise Wrong(1, "holds a user name", "put it into a file named by credential:, as Basic and the two in base64")
    if parts.fragment or "#" in text:
        raise Wrong(1, "goes on after a #, which is not sent", "take that off")
    return text


READERS: Final[dict[str, Callable[[str], str]]] = {
    PATH: read_text_as_it_is,
    PATHS: read_text_as_it_is,
    WORDS: read_word,
    INTERFACES: read_interface,
    SEGMENT_NAMES: read_text_as_it_is,  # that there is such a segment is seen when all is read
    ADDRESSES: read_address,
    LISTENING: read_listening,
    NETWORKS: read_spared,
    PREFIXES: read_prefix,
    NAMES: read_name,
    TEXT: read_text_as_it_is,
    URL: read_url,
}
