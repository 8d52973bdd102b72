"""The nftables adapter: our own table `inet egressd`, its rules loaded by `nft`, its elements written by raw netlink.

`nft` runs once at the start and whenever the rules are not as they were left; everything that happens often is one
netlink message. The table stays when the daemon goes, and its elements lapse in their own time.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from egressd.enforce.adapter import AdapterError, Capabilities, Existing, Failure, Plan, Rule
from egressd.enforce.conntrack import Conntrack
from egressd.enforce.covers import outermost
from egressd.enforce.elements import (
    CANARY_SETS,
    SETS,
    Place,
    Refused,
    network_of,
    pack,
    place_of,
    render_element,
    render_key,
    render_list,
)
from egressd.enforce.fingerprint import Fingerprint, read_fingerprint
from egressd.enforce.netlink import CREATE, NetfilterSocket, Step
from egressd.enforce.ruleset import (
    Ground,
    Network,
    RulesetSettings,
    ground_elements,
    render_ruleset,
)
from egressd.enforce.sets import DELSETELEM, NEWSETELEM, Change, KernelSets
from egressd.enforce.shield import Protects, Shield
from egressd.enforce.table_watch import TableWatch
from egressd.errors import Malformed
from egressd.intel.networks import NAT64_WELL_KNOWN, NetworkTable
from egressd.model import Target

DAY_S: Final = 86_400
SECOND_US: Final = 1_000_000
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
        self.flow_failures = 0
        self.unprotected = 0  # elements removed because their address became protected


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
        self._inside: dict[Target, Rule] = {}  # networks that stand within a wider one that is held
        self._link = NetfilterSocket(receive_bytes=1 << 24)
        self.sets = KernelSets(self._link)
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
        return self.sets.generation()

    def populate(self) -> list[Existing]:
        """Everything of ours that is there, with the networks that stand inside a wider one."""
        try:
            held = self.sets.read_all()
        except Malformed as error:
            raise AdapterError(f"the kernel's sets cannot be read: {error}") from error
        there = {element.target for element in held}
        return held + self._read_inside(there)

    def apply(self, plan: Plan, now_us: int) -> list[Failure]:
        """Blocks first, then renewals, then what is lifted; then flows of what is new are cut."""
        failures: list[Failure] = []
        add = self._allowed(plan.add, failures)
        refresh = self._allowed(plan.refresh, failures)
        self._apply_intervals(add, refresh, plan.remove, now_us, failures)
        single = [rule for rule in add if not SETS[rule.target.kind].interval]
        renewed = [rule for rule in refresh if not SETS[rule.target.kind].interval]
        self._write([self._change(rule, now_us) for rule in single], single, failures)
        self._write(self._renewals(renewed, now_us), renewed, failures)
        self._read_back([*single, *renewed], now_us, failures)
        self.sets.commit(_removals(plan.remove))
        failed = {failure.rule.target for failure in failures}
        self._cut_flows([rule.target for rule in (*add, *refresh) if rule.target not in failed])
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
        self._link.transact(self._ground_steps())
        self._print = read_fingerprint(self.sets) if self._print is not None else None
        wrong = [held for held in self.populate() if self._shield.refusal(held.target)]
        self._inside = {target: rule for target, rule in self._inside.items() if not self._shield.refusal(target)}
        self.sets.commit(_removals(wrong) + self._interval_removals(wrong))
        self.stats.unprotected += len(wrong)
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

    # Rules

    def _take(self, protected: Protects, ground: Ground) -> None:
        self._protected = protected
        self._ground = ground
        self._shield = Shield(protected, ground.spare)
        self._remedy: NetworkTable[str] = NetworkTable((addr, length, "remedy") for addr, length in ground.remedy)

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
                self._watch.own_pids.add(process.pid)  # it changes nothing before it has read all
                try:
                    _, complaint = process.communicate(script, timeout=_NFT_S)
                except subprocess.TimeoutExpired as error:
                    process.kill()
                    raise AdapterError(f"nft did not load the rules within {_NFT_S:.0f} s") from error
        except OSError as error:
            raise AdapterError(f"cannot run {self.settings.nft[0]}: {error.strerror}; install nftables") from error
        if process.returncode == 0:
            return ""
        return next((line for line in complaint.splitlines() if "Error" in line), complaint.strip() or "nft failed")

    def _replace(self, script: str, problem: str) -> None:
        """The table that is there cannot be changed into ours (a set of another make). Replace it whole, and put back
        what it held."""
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
        timeout_ms = int(element.remaining_s * 1000) or self.settings.max_ttl_s * 1000
        return Change(place, render_element(place, timeout_ms, element.decision_id))

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

    def _allowed(self, rules: Iterable[Rule], failures: list[Failure]) -> list[Rule]:
        allowed: list[Rule] = []
        for rule in rules:
            refusal = self._shield.refusal(rule.target)
            if refusal:
                failures.append(Failure(rule, refusal))
            else:
                allowed.append(rule)
        return allowed

    def _timeout_ms(self, rule: Rule, now_us: int) -> int:
        remaining_ms = (rule.expires_us - now_us) // 1000 if rule.expires_us else self.settings.max_ttl_s * 1000
        return max(1000, min(remaining_ms, self.settings.max_ttl_s * 1000))

    def _change(self, rule: Rule, now_us: int, *, replaces: bool = False) -> Change:
        place = place_of(rule.target)
        element = render_element(place, self._timeout_ms(rule, now_us), rule.decision_id)
        return Change(place, element, removes=replaces, ensure=replaces)

    def _renewals(self, rules: Sequence[Rule], now_us: int) -> list[Change]:
        """A new time-out for the same decision keeps the counters where the kernel can do that; everything else is
        taken out and put in again in one transaction, in which no packet slips through."""
        if not rules:
            return []
        there = self.sets.get([place_of(rule.target) for rule in rules])
        renews = self._can_renew()
        return [
            self._change(
                rule,
                now_us,
                replaces=element is not None and not (renews and element.comment == rule.decision_id),
            )
            for rule, element in zip(rules, there, strict=True)
        ]

    def _can_renew(self) -> bool:
        if self._renews is None:
            for timeout_ms in (10_000, 100_000):
                self.sets.commit([Change(_PROBE, render_element(_PROBE, timeout_ms, "probe"))])
            element = self.sets.get([_PROBE])[0]
            self._renews = element is not None and element.remaining_ms > 50_000
            self.sets.commit([Change(_PROBE, b"", removes=True)])
        return self._renews

    def _write(self, changes: Sequence[Change], rules: Sequence[Rule], failures: list[Failure]) -> None:
        by_place = {change.place: rule for change, rule in zip(changes, rules, strict=True)}
        for change, number in self.sets.commit(changes):
            failures.append(
                Failure(by_place[change.place], _REASONS.get(number, f"refused: {errno.errorcode[number]}"))
            )

    def _read_back(self, rules: Sequence[Rule], now_us: int, failures: list[Failure]) -> None:
        """Look at elements just written, all of a few or some of many."""
        failed = {failure.rule for failure in failures}
        step = max(1, len(rules) // _READ_BACK)
        looked = [rule for rule in rules[::step] if rule not in failed]
        for rule, element in zip(looked, self.sets.get([place_of(rule.target) for rule in looked]), strict=True):
            wanted_ms = self._timeout_ms(rule, now_us)
            if element is None:
                if wanted_ms > _SLACK_MS:
                    failures.append(Failure(rule, "written, but not there when read back"))
            elif element.remaining_ms < wanted_ms - _SLACK_MS:
                failures.append(Failure(rule, "written, but with too short a time when read back"))

    # Networks: few, and none may overlap

    def _apply_intervals(
        self,
        add: Iterable[Rule],
        refresh: Iterable[Rule],
        remove: Iterable[Existing],
        now_us: int,
        failures: list[Failure],
    ) -> None:
        for kind in [kind for kind, sets in SETS.items() if sets.interval]:
            new = {rule.target: rule for rule in (*add, *refresh) if rule.target.kind == kind}
            gone = {element.target for element in remove if element.target.kind == kind}
            if new or gone:
                self._settle_intervals(kind, new, gone, now_us, failures)

    def _settle_intervals(
        self, kind: str, new: dict[Target, Rule], gone: set[Target], now_us: int, failures: list[Failure]
    ) -> None:
        """Make the sets hold the outermost networks of all that should stand, and remember the rest."""
        held = {element.target: element for name in SETS[kind][:2] for element in self.sets.read(name)}
        for target in gone - new.keys():
            self._inside.pop(target, None)
        stands: dict[Target, Rule | None] = {target: None for target in held if _is_network(target)}
        stands.update({target: rule for target, rule in self._inside.items() if target.kind == kind})
        stands.update(new)
        for target in gone - new.keys():
            stands.pop(target, None)
        covers = outermost(network_of(target) for target in stands)
        changes = [_interval_removal(target) for target in held if target in gone and target not in stands]
        rules: dict[Place, Rule] = {}
        for target, rule in stands.items():
            network = network_of(target)
            if covers[network] != network:
                self._inside[target] = rule or _rule_of(held[target], now_us)
                if target in held:
                    changes.append(_interval_removal(target))
                continue
            self._inside.pop(target, None)
            if rule is not None:
                change = self._change(rule, now_us, replaces=target in held)
                rules[change.place] = rule
                changes.append(change)
        for change, number in self.sets.commit(changes):
            failures.append(Failure(rules[change.place], _REASONS.get(number, f"refused: {errno.errorcode[number]}")))

    def _interval_removals(self, elements: Iterable[Existing]) -> list[Change]:
        return [_interval_removal(element.target) for element in elements if SETS[element.target.kind].interval]

    def _read_inside(self, there: set[Target]) -> list[Existing]:
        """The remembered networks whose wider one still stands; the others stand nowhere now and are forgotten."""
        found: list[Existing] = []
        networks = [target for target in (*there, *self._inside) if _is_network(target)]
        covers = {
            kind: outermost(network_of(target) for target in networks if target.kind == kind)
            for kind, sets in SETS.items()
            if sets.interval
        }
        outer = {(target.kind, network_of(target)) for target in there if _is_network(target)}
        now_us = self._now_us()
        for target, rule in list(self._inside.items()):
            if (target.kind, covers[target.kind][network_of(target)]) not in outer or target in there:
                del self._inside[target]
            else:
                found.append(Existing(target, rule.decision_id, self._timeout_ms(rule, now_us) / 1000, 0, 0))
        return found

    # Flows

    def _cut_flows(self, targets: Sequence[Target]) -> None:
        """Established flows of new blocks. The rules stop their packets in any case, so a failure is counted only."""
        if not (targets and self.settings.kill_flows):
            return
        try:
            self.stats.flows_cut += self.flows.kill(targets, self._remedy)
        except (AdapterError, Malformed):
            self.stats.flow_failures += 1


def _removals(elements: Iterable[Existing]) -> list[Change]:
    """Removals from sets of single keys."""
    return [
        Change(place_of(element.target), b"", removes=True)
        for element in elements
        if not SETS[element.target.kind].interval
    ]


def _interval_removal(target: Target) -> Change:
    if _is_network(target):
        return Change(place_of(target), b"", removes=True)
    first, _, last = target.value.partition("-")  # a range that somebody else put there (elements.target_of)
    start, stop = pack(first), pack(last)
    behind = int.from_bytes(stop, "big") + 1
    end = b"" if behind >> 8 * len(stop) else behind.to_bytes(len(stop), "big")
    return Change(Place(SETS[target.kind].of(start), start, end), b"", removes=True)


def _is_network(target: Target) -> bool:
    return SETS[target.kind].interval and "-" not in target.value


def _rule_of(element: Existing, now_us: int) -> Rule:
    expires_us = now_us + int(element.remaining_s * SECOND_US) if element.remaining_s else 0
    return Rule(element.target, element.decision_id or "unmarked", expires_us)


def _interval(set_name: bytes, network: Network) -> Place:
    addr, length = network
    bits = 8 * len(addr)
    behind = int.from_bytes(addr, "big") + (1 << (bits - length))
    return Place(set_name, addr, b"" if behind >> bits else behind.to_bytes(len(addr), "big"))
