"""The sets of networks: few elements, none of which may overlap another (covers.py says what that means for blocks)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from egressd.enforce.adapter import Existing, Rule
from egressd.enforce.covers import outermost
from egressd.enforce.elements import SETS, Place, network_of, pack, place_of
from egressd.enforce.sets import Change, KernelSets, Placed, render_change, timeout_ms
from egressd.model import Target
from egressd.units import SECOND_US

KINDS: Final = tuple(kind for kind, sets in SETS.items() if sets.interval)


class Intervals:
    """Networks in the kernel, and those that stand inside a wider one of them."""

    def __init__(self, sets: KernelSets, max_ttl_s: int) -> None:
        self._sets = sets
        self._max_ttl_s = max_ttl_s
        self._inside: dict[Target, Rule] = {}

    def apply(self, write: Sequence[Placed], remove: Iterable[Existing], now_us: int) -> list[tuple[Rule, int]]:
        """Write rules and remove elements; returns the rules that the kernel refused, with its errno."""
        removed = {element.target for element in remove}
        refused: list[tuple[Rule, int]] = []
        for kind in KINDS:
            new = {placed.rule.target: placed.rule for placed in write if placed.rule.target.kind == kind}
            gone = {target for target in removed if target.kind == kind} - new.keys()
            if new or gone:
                refused += self._settle(kind, new, gone, now_us)
        return refused

    def hidden(self, held: Iterable[Existing], now_us: int) -> list[Existing]:
        """The remembered networks whose wider one still stands. The others stand nowhere now and are forgotten."""
        if not self._inside:
            return []
        found: list[Existing] = []
        for kind in KINDS:
            there = {element.target for element in held if element.target.kind == kind and is_network(element.target)}
            inside = {target: rule for target, rule in self._inside.items() if target.kind == kind}
            standing = {network_of(target) for target in there}
            covers = outermost([*standing, *map(network_of, inside)])
            for target, rule in inside.items():
                if target in there or covers[network_of(target)] not in standing:
                    del self._inside[target]
                else:
                    remaining_s = timeout_ms(rule, now_us, self._max_ttl_s) / 1000
                    found.append(Existing(target, rule.decision_id, remaining_s, 0, 0))
        return found

    def forget(self, is_wrong: Callable[[Target], object]) -> None:
        """Remember no network any more that may not be blocked."""
        self._inside = {target: rule for target, rule in self._inside.items() if not is_wrong(target)}

    def _settle(self, kind: str, new: dict[Target, Rule], gone: set[Target], now_us: int) -> list[tuple[Rule, int]]:
        """Make the sets hold the outermost networks of all that should stand, and remember the rest."""
        held = {element.target: element for name in SETS[kind][:2] for element in self._sets.read(name)}
        stands: dict[Target, Rule | None] = {target: None for target in held if is_network(target)}
        stands |= {target: rule for target, rule in self._inside.items() if target.kind == kind}
        stands |= new
        for target in gone:
            stands.pop(target, None)
            self._inside.pop(target, None)
        changes = [removal(target) for target in held if target in gone]
        rules: dict[Place, Rule] = {}
        covers = outermost(map(network_of, stands))
        for target, rule in stands.items():
            network = network_of(target)
            if covers[network] != network:
                self._inside[target] = rule or _rule_of(held[target], now_us)
                if target in held:
                    changes.append(removal(target))
                continue
            self._inside.pop(target, None)
            if rule is not None:
                place = place_of(target)
                rules[place] = rule
                changes.append(render_change(Placed(rule, place), now_us, self._max_ttl_s, replaces=target in held))
        refused = self._sets.commit(changes)
        return [(rules[change.place], number) for change, number in refused if change.place in rules]


def is_network(target: Target) -> bool:
    """Whether a target read from a set of networks is one; somebody else may have put in a range that is none."""
    return "-" not in target.value


def removal(target: Target) -> Change:
    """Take a network, or a foreign range (elements.target_of), out of its set."""
    if is_network(target):
        return Change(place_of(target), b"", removes=True)
    first, _, last = target.value.partition("-")
    start, stop = pack(first), pack(last)
    behind = int.from_bytes(stop, "big") + 1
    end = b"" if behind >> 8 * len(stop) else behind.to_bytes(len(stop), "big")
    return Change(Place(SETS[target.kind].of(start), start, end), b"", removes=True)


def _rule_of(element: Existing, now_us: int) -> Rule:
    expires_us = now_us + int(element.remaining_s * SECOND_US) if element.remaining_s else 0
    return Rule(element.target, element.decision_id or "unmarked", expires_us)
