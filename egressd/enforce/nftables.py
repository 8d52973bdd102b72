"""The nftables adapter: our own table `inet egressd`, its rules loaded by `nft`, its elements written by raw netlink.

`nft` runs once at the start and whenever the rules are not as they were left; everything that happens often is one
netlink message. The table stays when the daemon goes, and its elements lapse in their own time.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple

from egressd.enforce.adapter import AdapterError, Capabilities, Existing, Failure, Plan, Rule
from egressd.enforce.conntrack import Conntrack
from egressd.enforce.elements import (
    CANARY_SETS,
    SETS,
    Place,
    Refused,
    check_id,
    pack,
    place_of,
    render_element,
    render_key,
    render_list,
)
from egressd.enforce.fingerprint import Fingerprint, read_fingerprint
from egressd.enforce.intervals import KINDS, Intervals
from egressd.enforce.netlink import CREATE, NetfilterSocket, Step
from egressd.enforce.ruleset import (
    Ground,
    Network,
    RulesetSettings,
    ground_elements,
    render_ruleset,
)
from egressd.enforce.sets import DELSETELEM, NEWSETELEM, Change, KernelSets, Placed, render_change, timeout_ms
from egressd.enforce.shield import Protects, Shield
from egressd.enforce.table_watch import TableWatch
from egressd.errors import Malformed
from egressd.intel.networks import NAT64_WELL_KNOWN, NetworkTable
from egressd.model import Target
from egressd.units import DAY_S

CUT_EVERY_S: Final = 0.5
_NFT_S: Final = 30.0
_READ_BACK: Final = 256  # elements looked at after each plan; the kernel acknowledged all of them
_SLACK_MS: Final = 5_000
_PROBE: Final = Place(CANARY_SETS[0], bytes([192, 0, 2, 254]), None)
_REASONS: Final = {
    errno.EEXIST: "overlaps a network that somebody else put into the set",
    errno.ENFILE: "the set is full",
    errno.ENOSPC: "the set is full",
    errno.EINVAL: "the kernel calls the element invalid",
}


class NftablesSettings(NamedTuple):
    """How the adapter works. `max_ttl_s` bounds every element's time-out, so that a block lapses when the daemon never
    comes back; `nft` is the command that loads rules."""

    ruleset: RulesetSettings = RulesetSettings()
    max_ttl_s: int = DAY_S
    max_entries: int = 1_000_000
    nft: tuple[str, ...] = ("nft",)
    nat64: tuple[Network, ...] = (NAT64_WELL_KNOWN,)
    kill_flows: bool = True


class NftablesStats:
    """What the adapter did beside its plans."""

    def __init__(self) -> None:
        self.installs = 0
        self.flows_cut = 0


class NftablesAdapter:
    """Blocks in the kernel of the network namespace that the adapter was made in. One call at a time, but for the two
    methods about events."""

    name: str = "nftables"

    def __init__(
        self,
        protected: Protects,
        ground: Ground,
        now_us: Callable[[], int],
        settings: NftablesSettings | None = None,
    ) -> None:
        """`protected` must know `ground.never` at least. Raises AdapterError when there is no netlink to netfilter."""
        self.settings = settings or NftablesSettings()
        self.stats = NftablesStats()
        self.capabilities: Capabilities = Capabilities(frozenset(SETS), True, self.settings.max_entries)
        self._now_us = now_us
        self._take(protected, ground)
        self._print: Fingerprint | None = None
        self._renews: bool | None = None  # whether this kernel takes a new time-out for an element that is there (6.12)
        self._to_cut: list[Target] = []  # blocks whose established flows the kernel still remembers
        self._cut_again_s = 0.0
        self._link = NetfilterSocket(receive_bytes=1 << 24)
        self.sets = KernelSets(self._link)
        self._intervals = Intervals(self.sets, self.settings.max_ttl_s)
        self.flows = Conntrack()
        self._watch = TableWatch((self._link.port,))

    # What an adapter does

    def install(self) -> None:
        """Rules and protected sets as they should be, in one transaction. Elements stay."""
        if self._print is not None and self._print == read_fingerprint(self.sets):
            return
        script = render_ruleset(self.settings.ruleset, self._ground, self.settings.nat64)
        problem = self._load(script)
        if problem:
            self._replace(script, problem)
        self.stats.installs += 1
        self._print = read_fingerprint(self.sets)

    def generation(self) -> int:
        """The kernel's own count of changes to its rules."""
        self._cut_flows(())
        return self.sets.generation()

    def populate(self) -> list[Existing]:
        """Everything of ours that is there, with the networks that stand inside a wider one."""
        try:
            held = self.sets.read_all()
        except Malformed as error:
            raise AdapterError(f"the kernel's sets cannot be read: {error}") from error
        return held + self._intervals.hidden(held, self._now_us())

    def apply(self, plan: Plan, now_us: int) -> list[Failure]:
        """Blocks first, then renewals, then what is lifted; then flows of what is new are cut."""
        failures: list[Failure] = []
        add = self._allowed(plan.add, failures)
        refresh = self._allowed(plan.refresh, failures)
        removed = [element for element in plan.remove if element.target.kind in KINDS]
        networks = [placed for placed in (*add, *refresh) if placed.rule.target.kind in KINDS]
        for rule, number in self._intervals.apply(networks, removed, now_us):
            failures.append(Failure(rule, _reason(number)))
        new = [placed for placed in add if placed.rule.target.kind not in KINDS]
        old = [placed for placed in refresh if placed.rule.target.kind not in KINDS]
        self._write(new, [render_change(placed, now_us, self.settings.max_ttl_s) for placed in new], failures)
        self._write(old, self._renewals(old, now_us), failures)
        self._read_back([*new, *old], now_us, failures)
        self.sets.commit(_removals(plan.remove))
        failed = {failure.rule.target for failure in failures}
        self._cut_flows([placed.rule.target for placed in (*add, *refresh) if placed.rule.target not in failed])
        return failures

    def close(self) -> None:
        """Let go of the sockets; what is in force stays in force."""
        self._watch.close()
        self.flows.close()
        self._link.close()

    # What the daemon asks beside it

    def set_protected(self, networks: Iterable[Network], protected: Protects) -> list[Existing]:
        """Protect these networks from now on, in the kernel too, and lift blocks of what became protected; returns
        those. Nothing else in the ground changes."""
        return self.set_ground(self._ground._replace(never=tuple(networks)), protected)

    def set_ground(self, ground: Ground, protected: Protects | None = None) -> list[Existing]:
        """Change what is never blocked, who is spared and where remedies are; returns the blocks that were lifted
        because their target may not be blocked any more."""
        self._take(protected or self._protected, ground)
        if not self.sets.has_table():
            return []  # install() will put it in
        was_right, self._print = self._print is not None, None  # should the kernel refuse it, install() puts it in
        self._link.transact(self._ground_steps())
        self._print = read_fingerprint(self.sets) if was_right else None
        wrong = [held for held in self.populate() if self._shield.refusal(held.target)]
        self._intervals.forget(self._shield.refusal)
        self._intervals.apply((), [held for held in wrong if held.target.kind in KINDS], self._now_us())
        self.sets.commit(_removals(wrong))
        return wrong

    def read_counters(self, targets: Sequence[Target]) -> dict[Target, Existing]:
        """Single targets with their counters, without reading whole sets; what is not there is left out."""
        placed: list[tuple[Target, Place]] = []
        for target in targets:
            try:
                placed.append((target, place_of(target)))
            except Refused:
                continue
        found: dict[Target, Existing] = {}
        for (target, place), element in zip(placed, self.sets.get([place for _, place in placed]), strict=True):
            if element is not None and element.key == place.key:
                found[target] = Existing(
                    target, element.comment, element.remaining_ms / 1000, element.packets, element.bytes
                )
        return found

    def take_canary(self, value: str) -> bool:
        """Whether an address stands in the scratch set; takes it out again. For proving that a push arrives."""
        addr = pack(value)
        place = Place(CANARY_SETS[len(addr) == 16], addr, None)
        if self.sets.get([place])[0] is None:
            return False
        self.sets.commit([Change(place, b"", removes=True)])
        return self.sets.get([place])[0] is None

    def watch_socket(self) -> int:
        """Readable when somebody changed nftables."""
        return self._watch.fileno()

    def drain_events(self) -> set[str]:
        """What happened to our table: gone, foreign, overrun."""
        return self._watch.drain()

    def disregard(self, ports: Iterable[int]) -> None:
        """Netlink ports of our own fast lanes: their pushes are no foreign changes."""
        self._watch.disregard(ports)

    def own(self, pids: Iterable[int]) -> None:
        """Our packet processes, before they push."""
        self._watch.own(pids)

    # Rules

    def _take(self, protected: Protects, ground: Ground) -> None:
        self._protected = protected
        self._ground = ground
        self._shield = Shield(protected, ground.spare)
        self._remedy: NetworkTable[str] = NetworkTable((addr, length, "remedy") for addr, length in ground.remedy)
        self._unarmed: NetworkTable[str] = NetworkTable((addr, length, "unarmed") for addr, length in ground.unarmed)

    def _load(self, script: str) -> str:
        """Give text to `nft`; what it complained about, "" when it is in force."""
        try:
            with subprocess.Popen(
                (*self.settings.nft, "-f", "-"),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                self._watch.expect(process.pid)  # it changes nothing before it has read all
                try:
                    _, complaint = process.communicate(script, timeout=_NFT_S)
                except subprocess.TimeoutExpired as error:
                    process.kill()
                    raise AdapterError(f"nft did not load the rules within {_NFT_S:.0f} s") from error
                finally:
                    self._watch.ended(process.pid)
        except OSError as error:
            raise AdapterError(f"cannot run {self.settings.nft[0]}: {error.strerror}; install nftables") from error
        if process.returncode == 0:
            return ""
        return next((line for line in complaint.splitlines() if "Error" in line), complaint.strip() or "nft failed")

    def _replace(self, script: str, problem: str) -> None:
        """The table that is there cannot be changed into ours (a set of another make). Replace it whole, and put back
        what it held."""
        owner = self.sets.foreign_owner()
        if owner:
            raise AdapterError(
                f"another program owns the table inet egressd (netlink port {owner}, as a rule its process id): "
                "end that program, and our rules are put back"
            )
        if not self.sets.has_table():
            raise AdapterError(f"nft refused our rules: {problem}")
        held = self.sets.read_marked()
        script = script.replace("flush table inet egressd", "delete table inet egressd\nadd table inet egressd", 1)
        problem = self._load(script)
        if problem:
            raise AdapterError(f"nft refused our rules: {problem}")
        self.sets.commit([self._restored(element) for element in held])

    def _restored(self, element: Existing) -> Change:
        place = place_of(element.target)
        left_ms = int(element.remaining_s * 1000) or self.settings.max_ttl_s * 1000
        return Change(place, render_element(place, left_ms, element.decision_id))

    def _ground_steps(self) -> list[Step]:
        """One transaction that empties the sets of the ground and fills them again."""
        steps: list[Step] = []
        for name, networks in ground_elements(self._ground, self.settings.nat64).items():
            set_name = name.encode("ascii")
            steps.append(Step(DELSETELEM, 0, render_list(set_name)))
            keys = [_interval(set_name, network) for network in networks]
            for start in range(0, len(keys), 400):
                steps.append(
                    Step(
                        NEWSETELEM, CREATE, render_list(set_name, b"".join(map(render_key, keys[start : start + 400])))
                    )
                )
        return steps

    # Elements

    def _allowed(self, rules: Iterable[Rule], failures: list[Failure]) -> list[Placed]:
        allowed: list[Placed] = []
        for rule in rules:
            try:
                place = place_of(rule.target)
                check_id(rule.decision_id)
                refusal = self._shield.refusal_at(rule.target, place)
            except Refused as refused:
                failures.append(Failure(rule, str(refused)))
                continue
            if refusal:
                failures.append(Failure(rule, refusal))
            else:
                allowed.append(Placed(rule, place))
        return allowed

    def _renewals(self, renewed: Sequence[Placed], now_us: int) -> list[Change]:
        """A new time-out for the same decision keeps the counters where the kernel can do that; everything else is
        taken out and put in again in one transaction, in which no packet slips through."""
        if not renewed:
            return []
        there = self.sets.get([placed.place for placed in renewed])
        renews = self._can_renew()
        return [
            render_change(
                placed,
                now_us,
                self.settings.max_ttl_s,
                replaces=element is not None and not (renews and element.comment == placed.rule.decision_id),
            )
            for placed, element in zip(renewed, there, strict=True)
        ]

    def _can_renew(self) -> bool:
        if self._renews is None:
            for probe_ms in (10_000, 100_000):
                self.sets.commit([Change(_PROBE, render_element(_PROBE, probe_ms, "probe"))])
            element = self.sets.get([_PROBE])[0]
            self._renews = element is not None and element.remaining_ms > 50_000
            self.sets.commit([Change(_PROBE, b"", removes=True)])
        return self._renews

    def _write(self, written: Sequence[Placed], changes: Sequence[Change], failures: list[Failure]) -> None:
        refused = self.sets.commit(changes)
        if refused:
            by_place = {placed.place: placed.rule for placed in written}
            failures += [Failure(by_place[change.place], _reason(number)) for change, number in refused]

    def _read_back(self, written: Sequence[Placed], now_us: int, failures: list[Failure]) -> None:
        """Look at elements just written, all of a few or some of many. What the fast lane put there meanwhile keeps its
        short time on kernels before 6.12: those are replaced."""
        failed = {failure.rule for failure in failures}
        step = max(1, len(written) // _READ_BACK)
        looked = [placed for placed in written[::step] if placed.rule not in failed]
        wrong = self._wrong(looked, now_us)
        if wrong:
            self._write(
                wrong, [render_change(one, now_us, self.settings.max_ttl_s, replaces=True) for one in wrong], failures
            )
            for placed in self._wrong(wrong, now_us):
                if placed.rule not in failed:
                    failures.append(Failure(placed.rule, "written, but not there or too short when read back"))

    def _wrong(self, written: Sequence[Placed], now_us: int) -> list[Placed]:
        elements = self.sets.get([placed.place for placed in written])
        wrong: list[Placed] = []
        for placed, element in zip(written, elements, strict=True):
            remaining_ms = 0 if element is None else element.remaining_ms
            if remaining_ms < timeout_ms(placed.rule, now_us, self.settings.max_ttl_s) - _SLACK_MS:
                wrong.append(placed)
        return wrong

    # Flows

    def _cut_flows(self, targets: Sequence[Target]) -> None:
        """Established flows of new blocks. The rules stop their packets at once in any case; this takes idle ones and
        those of a flowtable. The walk over the kernel's table takes 10 ms in which a kernel without preemption does
        nothing else on that processor, so blocks that follow each other quickly share one."""
        self._to_cut += targets
        now_s = monotonic()
        if not (self._to_cut and self.settings.kill_flows) or now_s < self._cut_again_s:
            return
        self._cut_again_s = now_s + CUT_EVERY_S
        cut, self._to_cut = self._to_cut, []
        with suppress(AdapterError, Malformed):  # the rules stop their packets in any case
            self.stats.flows_cut += self.flows.kill(cut, self._remedy, self._unarmed)


def _reason(number: int) -> str:
    return _REASONS.get(number, f"the kernel refused it: {errno.errorcode.get(number, str(number))}")


def _removals(elements: Iterable[Existing]) -> list[Change]:
    """Removals from sets of single keys."""
    return [
        Change(place_of(element.target), b"", removes=True) for element in elements if element.target.kind not in KINDS
    ]


def _interval(set_name: bytes, network: Network) -> Place:
    addr, length = network
    bits = 8 * len(addr)
    behind = int.from_bytes(addr, "big") + (1 << (bits - length))
    return Place(set_name, addr, b"" if behind >> bits else behind.to_bytes(len(addr), "big"))
