"""Devices: which machine an address belongs to, by hardware address (MAC) and leases, over time.

What is known comes from frames (`spoke`), the kernel's neighbour table (`spoke`, too: it asked) and DHCP leases
(`leased`). A wrong answer ties two machines' incidents together, no answer leaves an incident with its address as
before; so where it is not plain that a MAC is one machine, there is no answer. The rules:

1. A MAC that sends packets which have passed a router (their TTL tells) for an address that it never sent itself is a
   router: neither it nor who is behind it is a device by that MAC, for a day.
2. A MAC that speaks for two IPv4 addresses by turns stands for several machines (proxy ARP, a wireless bridge, a
   virtual machine on one): no device, for a day. The same for more than MAX_CHANGES changes of IPv4 address in a day
   without a lease, for IPv6 addresses in more than MAX_NETWORKS networks or more than MAX_PRIVACY of them in a day, and
   for an IPv6 address made from another MAC (RFC 4291 appendix A).
3. A device that appears under another IPv4 address has moved there once its earlier address was quiet for SETTLE_US,
   and both are of one /24; at once, when a lease says so. IPv6 addresses come and go (RFC 8981) and count at once.
4. A lease says more than a frame: it knows hosts behind a relay. Where frames from an attached other MAC contradict a
   lease, or two MACs use one address by turns, the address is contested and nobody's.

On a network where anybody can send under any MAC all of this can be forged; isolation does not follow frames alone
(`addresses_of`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressd.detect.mac import is_host, mac_within
from egressd.units import DAY_US, MINUTE_US
from egressd.wire.table import RecentTable

SETTLE_US: Final = 300_000_000
SAMPLE_US: Final = MINUTE_US  # how often a client that goes on talking is looked at; less than SETTLE_US
MAX_DEVICES: Final = 65_536  # and as many addresses; what was not used longest is forgotten
MAX_ADDRESSES: Final = 32  # remembered of one device
MAX_HOLDERS: Final = 4  # remembered of one address
MAX_CHANGES: Final = 4
MAX_NETWORKS: Final = 4  # of IPv6, link-local apart: two prefixes and a unique local one, and one that goes
MAX_PRIVACY: Final = 16  # RFC 8981 makes one a day and keeps it for a week, on each of two prefixes
MAX_BEHIND: Final = 8  # addresses behind a router that are remembered as the reason
MAX_NAME: Final = 63

ROUTER: Final = "router"
SEVERAL: Final = "several hosts"


class Lease(NamedTuple):
    """A DHCP server gave `address` to `mac` from `from_us` (0: it does not say) until `until_us` (0: for ever). `name`
    is what the host calls itself: poison."""

    address: bytes
    mac: bytes
    from_us: int
    until_us: int
    name: str


class _Use:
    """A MAC's use of one address. `first_us` is of the present stay, `ever_us` of the first one."""

    __slots__ = ("address", "ever_us", "first_us", "is_asked", "is_sent", "last_us", "mac")

    def __init__(self, mac: bytes, address: bytes, ts_us: int, is_asked: bool) -> None:
        self.mac = mac
        self.address = address
        self.ever_us = ts_us
        self.first_us = ts_us
        self.last_us = ts_us
        self.is_asked = is_asked  # the kernel asked for the address, and this MAC answered
        self.is_sent = not is_asked  # it sent a packet from it itself


class _Device:
    """What a MAC was seen to use."""

    __slots__ = ("behind", "changes", "reason", "several_until_us", "uses")

    def __init__(self) -> None:
        self.uses: dict[bytes, _Use] = {}
        self.behind: dict[bytes, int] = {}  # address behind it -> when that was seen last
        self.changes: list[int] = []  # when it took up another IPv4 address, of the last day
        self.several_until_us = 0
        self.reason = ""


class _Holders:
    """Who used an address, the latest stay last, and who it is leased to."""

    __slots__ = ("contested_until_us", "lease", "uses")

    def __init__(self) -> None:
        self.uses: list[_Use] = []
        self.lease: Lease | None = None
        self.contested_until_us = 0


class Devices:
    """Bounded. Times are those of what was seen; `now_us` is the latest of them."""

    def __init__(self, limit: int = MAX_DEVICES) -> None:
        self.now_us = 0
        self.leases = 0  # addresses with a lease
        self._devices: RecentTable[bytes, _Device] = RecentTable(limit)
        self._holders: RecentTable[bytes, _Holders] = RecentTable(limit, self._left)
        self._leased_to: dict[bytes, dict[bytes, None]] = {}  # addresses by MAC, of the leases among the holders
        self._names: RecentTable[bytes, str] = RecentTable(limit)
        self._own: frozenset[bytes] = frozenset()

    @property
    def count(self) -> int:
        """MACs that are known."""
        return len(self._devices)

    @property
    def evicted(self) -> int:
        """Devices, addresses and names forgotten because a table was full."""
        return self._devices.evicted + self._holders.evicted + self._names.evicted

    def exclude(self, own: frozenset[bytes]) -> None:
        """The gateway's own MACs: who sends under them is anybody."""
        self._own = own

    # -- what is seen

    def spoke(self, mac: bytes, address: bytes, ts_us: int, *, is_attached: bool, is_asked: bool = False) -> None:
        """`mac` sent a packet from `address`; `is_attached` when it is the IP sender itself. With `is_asked` the kernel
        asked who has the address."""
        if not is_host(mac) or mac in self._own:
            return
        self.now_us = max(self.now_us, ts_us)
        device = self._devices.get(mac)
        if device is None:
            device = _Device()
            self._devices.add(mac, device)
        use = device.uses.get(address)
        if not is_attached or (is_asked and address in device.behind):
            if use is None or not use.is_sent:  # else it shares its own address out (a hotspot, a virtual machine)
                device.uses.pop(address, None)
                _put_bounded(device.behind, address, ts_us, MAX_BEHIND)
            return
        if use is None:
            device.behind.pop(address, None)
            use = _Use(mac, address, ts_us, is_asked)
            if len(device.uses) >= MAX_ADDRESSES:
                del device.uses[_unused_longest(device.uses)]
            device.uses[address] = use
            self._takes_up(device, use, ts_us)
        elif ts_us - use.last_us > SETTLE_US:
            use.first_us = ts_us
            self._takes_up(device, use, ts_us)
        use.is_asked = use.is_asked or is_asked
        use.is_sent = use.is_sent or not is_asked
        use.last_us = max(use.last_us, ts_us)
        self._by_turns(device, use)
        self._holds(use)

    def leased(self, lease: Lease) -> None:
        """A DHCP server's word; a later one of the same address replaces it."""
        if not is_host(lease.mac) or lease.mac in self._own:
            return
        holders = self._holders_of(lease.address)
        if holders.lease is not None and lease.from_us < holders.lease.from_us:
            return
        self._end_lease(lease.address, holders)
        holders.lease = lease
        self.leases += 1
        self._leased_to.setdefault(lease.mac, {})[lease.address] = None
        self.now_us = max(self.now_us, lease.from_us)
        name = host_name(lease.name)
        if name:
            self._names.put(lease.mac, name)

    def lease_since(self, lease: Lease, now_us: int) -> int:
        """Since when a lease that does not say so is known: since before, or since now."""
        holders = self._holders.peek(lease.address)
        before = holders.lease if holders is not None else None
        return before.from_us if before is not None and before.mac == lease.mac else now_us

    def forget_lease(self, address: bytes) -> None:
        """The server's file does not name it any more."""
        holders = self._holders.peek(address)
        if holders is not None:
            self._end_lease(address, holders)

    def named(self, mac: bytes, name: str) -> None:
        """A name from elsewhere (the reverse zone); one that a lease gave stays."""
        name = host_name(name)
        if name and self._names.peek(mac) is None:
            self._names.put(mac, name)

    def shift(self, delta_us: int) -> None:
        """The clock was set: what was seen by it, which leases were not."""
        self.now_us += delta_us
        uses: dict[int, _Use] = {}
        for device in self._devices.values():
            device.behind = {address: last_us + delta_us for address, last_us in device.behind.items()}
            device.changes = [one + delta_us for one in device.changes]
            device.several_until_us += delta_us if device.several_until_us else 0
            uses.update((id(use), use) for use in device.uses.values())
        for holders in self._holders.values():
            holders.contested_until_us += delta_us if holders.contested_until_us else 0
            uses.update((id(use), use) for use in holders.uses)
        for use in uses.values():
            use.ever_us += delta_us
            use.first_us += delta_us
            use.last_us += delta_us

    # -- what is asked

    def device_of(self, address: bytes, ts_us: int) -> bytes:
        """The MAC of the device that had `address` at `ts_us`; b"" when that is not plain."""
        holders = self._holders.peek(address)
        if holders is None:
            return b""
        use = _latest(holders.uses, ts_us)
        lease = holders.lease
        if lease is not None and lease.from_us <= ts_us and (not lease.until_us or ts_us <= lease.until_us):
            if use is not None and use.mac != lease.mac and ts_us - use.last_us <= SETTLE_US:
                return b""
            return lease.mac
        if use is None or ts_us < holders.contested_until_us:
            return b""
        device = self._devices.peek(use.mac)
        if device is None or self._why_none(device):
            return b""
        confirmed = lease is not None and lease.mac == use.mac  # though it may be said later than the host was quick
        return use.mac if confirmed or self._has_moved(device, use) else b""

    def was_anothers(self, address: bytes, mac: bytes, ts_us: int) -> bool:
        """Whether it is known that `address` was not yet the device's at `ts_us`: another MAC used it before, or the
        lease began later. Not that nothing is known of then."""
        holders = self._holders.peek(address)
        if holders is None or self.device_of(address, ts_us) == mac:
            return False
        lease = holders.lease
        if lease is not None and lease.mac == mac and lease.from_us > ts_us:
            return True
        return any(use.mac != mac for use in holders.uses)

    def mac_of(self, address: bytes) -> bytes:
        """The MAC that used `address` last, whatever it is; b"" when none did."""
        holders = self._holders.peek(address)
        return holders.uses[-1].mac if holders is not None and holders.uses else b""

    def machine_of(self, address: bytes) -> bytes:
        """What counts as one where many machines are needed: the MAC that used an address last, else the address. So
        one host with many addresses is one, whether or not it is plain enough to be a device; hosts behind a router are
        many, those behind a bridge that sends under its own MAC are one."""
        return self.mac_of(address) or address

    def why_none(self, mac: bytes) -> str:
        """Why a MAC is no device, for people; "" when it may be one."""
        device = self._devices.peek(mac)
        return self._why_none(device) if device is not None else ""

    def addresses_of(self, mac: bytes, since_us: int) -> list[bytes]:
        """The addresses that a device has now, by lease or by the kernel's own asking: what any host can claim in a
        frame is not among them. Latest first; used since `since_us`, or leased still."""
        found: dict[bytes, int] = {}
        device = self._devices.peek(mac)
        if device is not None and not self._why_none(device):
            for use in device.uses.values():
                if use.is_asked and use.last_us >= since_us and self.device_of(use.address, self.now_us) == mac:
                    found[use.address] = use.last_us
        for address in self._leased_to.get(mac, ()):
            holders = self._holders.peek(address)
            lease = holders.lease if holders is not None else None
            if lease is not None and (not lease.until_us or lease.until_us >= self.now_us):
                found[address] = max(found.get(address, 0), lease.from_us)
        return sorted(found, key=lambda one: (-found[one], one))

    def name_of(self, mac: bytes) -> str:
        """What the device is called; "" when nobody said. Escaped already."""
        return self._names.peek(mac) or "" if mac else ""

    # -- the rules

    def _takes_up(self, device: _Device, use: _Use, ts_us: int) -> None:
        """A MAC began, or began again, to use an address."""
        address = use.address
        if len(address) == 4:
            if any(len(one) == 4 and one != address for one in device.uses):
                device.changes = [one for one in device.changes if ts_us - one < DAY_US][-MAX_CHANGES:]
                device.changes.append(ts_us)
                if len(device.changes) > MAX_CHANGES:
                    self._several(device, ts_us, f"took up {len(device.changes)} IPv4 addresses in a day")
            return
        if mac_within(address) not in (b"", use.mac):
            self._several(device, ts_us, "speaks for an IPv6 address that was made from another MAC")
        recent = [
            one
            for one, other in device.uses.items()
            if len(one) == 16 and one[:2] != b"\xfe\x80" and ts_us - other.last_us < DAY_US
        ]
        if len(recent) > MAX_PRIVACY or len({one[:8] for one in recent}) > MAX_NETWORKS:
            self._several(device, ts_us, f"used {len(recent)} IPv6 addresses in a day")

    def _by_turns(self, device: _Device, use: _Use) -> None:
        """Two stays of one MAC at IPv4 addresses, or of two MACs at one address, that overlap."""
        if len(use.address) == 4 and len(device.uses) > 1:
            for other in device.uses.values():
                if other is not use and len(other.address) == 4 and other.last_us > use.first_us < use.last_us:
                    if other.first_us < use.last_us and not self._are_leased(use, other):
                        self._several(device, use.last_us, "speaks for two IPv4 addresses by turns")
                        return

    def _several(self, device: _Device, ts_us: int, reason: str) -> None:
        device.several_until_us = ts_us + DAY_US
        device.reason = reason

    def _are_leased(self, one: _Use, other: _Use) -> bool:
        """Whether a server gave both to this very MAC."""
        for use in (one, other):
            holders = self._holders.peek(use.address)
            if holders is None or holders.lease is None or holders.lease.mac != use.mac:
                return False
        return True

    def _why_none(self, device: _Device) -> str:
        if any(self.now_us - last_us < DAY_US for last_us in device.behind.values()):
            return f"{ROUTER}: forwards what others send"
        if self.now_us < device.several_until_us:
            return f"{SEVERAL}: {device.reason}"
        return ""

    def _has_moved(self, device: _Device, use: _Use) -> bool:
        """Rule 3."""
        if len(use.address) == 16:
            return True
        for other in device.uses.values():
            if other is use or len(other.address) == 16 or other.first_us > use.first_us:
                continue
            if other.address[:3] != use.address[:3] or self.now_us - other.last_us < SETTLE_US:
                return False
        return True

    def _holds(self, use: _Use) -> None:
        holders = self._holders_of(use.address)
        uses = holders.uses
        if uses and uses[-1] is use:
            return
        for other in uses:
            if other is not use and use.first_us < other.last_us < use.last_us and other.first_us < use.last_us:
                holders.contested_until_us = use.last_us + SETTLE_US
        if use in uses:
            uses.remove(use)
        uses.append(use)
        if len(uses) > MAX_HOLDERS:
            del uses[0]

    def _end_lease(self, address: bytes, holders: _Holders) -> None:
        lease = holders.lease
        if lease is None:
            return
        holders.lease = None
        self.leases -= 1
        addresses = self._leased_to.get(lease.mac, {})
        addresses.pop(address, None)
        if not addresses:
            self._leased_to.pop(lease.mac, None)

    def _left(self, address: bytes, holders: _Holders) -> None:
        """An address was not used for longest, and is forgotten with its lease; it may have come back with another."""
        again = self._holders.peek(address)
        if again is not None and again.lease is not None and holders.lease is not None:
            if again.lease.mac == holders.lease.mac:
                self.leases -= 1
                return
        self._end_lease(address, holders)

    def _holders_of(self, address: bytes) -> _Holders:
        holders = self._holders.get(address)
        if holders is None:
            holders = _Holders()
            self._holders.add(address, holders)
        return holders


def host_name(text: str) -> str:
    """A name that a host gave itself, fit for any screen: printable ASCII without blanks and quotes, the rest as `?`,
    cut at MAX_NAME. "" for the DHCP servers' sign for none."""
    if text in ("", "*", "-"):
        return ""
    return "".join(one if "!" <= one <= "~" and one not in "\"'\\`" else "?" for one in text[:MAX_NAME])


def _unused_longest(uses: dict[bytes, _Use]) -> bytes:
    """The address that was used longest ago, the first of equals."""
    found, oldest_us = b"", -1
    for address, use in uses.items():
        if oldest_us < 0 or use.last_us < oldest_us:
            found, oldest_us = address, use.last_us
    return found


def _latest(uses: list[_Use], ts_us: int) -> _Use | None:
    """Who used an address at a time: the last that had begun by then."""
    for use in reversed(uses):
        if use.first_us <= ts_us or use.ever_us <= ts_us <= use.last_us:
            return use
    return None


def _put_bounded(table: dict[bytes, int], key: bytes, value: int, limit: int) -> None:
    if key not in table and len(table) >= limit:
        del table[min(table, key=table.__getitem__)]
    table[key] = value
