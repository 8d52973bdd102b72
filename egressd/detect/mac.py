"""Hardware addresses (IEEE 802 MACs): six bytes, and their text."""

from __future__ import annotations


def render_mac(mac: bytes) -> str:
    """The usual text; "" for none."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """A MAC in the usual text; b"" when it is none."""
    parts = text.split(":")
    if len(parts) != 6 or not all(1 <= len(part) <= 2 and part.isascii() and part.isalnum() for part in parts):
        return b""
    try:
        return bytes(int(part, 16) for part in parts)
    except ValueError:
        return b""


def is_local(mac: bytes) -> bool:
    """Whether a MAC is locally administered: made up by the device, often a new one for each network."""
    return bool(mac[0] & 2)


def is_host(mac: bytes) -> bool:
    """Whether one machine can send under it: neither a group's nor nobody's."""
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


def mac_within(address: bytes) -> bytes:
    """The MAC that a packed IPv6 address of the modified EUI-64 form was made from (RFC 4291 appendix A); b"" for an
    address of another form."""
    if address[11:13] != b"\xff\xfe":
        return b""
    return bytes((address[8] ^ 2,)) + address[9:11] + address[13:16]
