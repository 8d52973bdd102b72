"""Public DNS resolvers that are known by address or by the host name of their encrypted service."""

from __future__ import annotations

from egressd.errors import Problem
from egressd.intel.lines import Wrong, problem_at, show, split_comment, split_lines
from egressd.intel.networks import parse_address, render_address
from egressd.names import to_a_label


class Resolvers:
    """Addresses and host names with their operator, immutable."""

    __slots__ = ("_addresses", "_endings", "_names", "_shortest", "addresses", "names")

    def __init__(self, addresses: dict[bytes, tuple[str, str]], names: dict[str, tuple[str, str]]) -> None:
        """Both map to (operator, place of the line that says so)."""
        self._addresses = addresses
        self._names = names
        self.addresses: frozenset[bytes] = frozenset(addresses)
        self.names: frozenset[str] = frozenset(names)
        self._shortest = min(map(len, names), default=1)
        self._endings = frozenset(name[-self._shortest :] for name in names)

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        return Resolvers, (self._addresses, self._names)

    @classmethod
    def parse(cls, text: str, source: str = "resolvers.txt") -> tuple[Resolvers, list[Problem]]:
        """Read lines of `address-or-name # operator`. Of two lines with one entry the first is kept. A line that is
        none is a problem, and left out."""
        addresses: dict[bytes, tuple[str, str]] = {}
        names: dict[str, tuple[str, str]] = {}
        problems: list[Problem] = []
        for number, line in enumerate(split_lines(text), 1):
            try:
                words, operator = split_comment(line)
                if not words:
                    continue
                if len(words) > 1:
                    raise Wrong(
                        words[1].column, f'unexpected word "{show(words[1].text)}"', "write one entry # operator"
                    )
                if not operator:
                    raise Wrong(words[0].column, f'"{show(words[0].text)}" has no operator', "add # and who runs it")
                entry = (operator, f"{source}:{number}")
                addr = parse_address(words[0].text)
                name = "" if addr else to_a_label(words[0].text)
                if addr:
                    addresses.setdefault(addr, entry)
                elif "." in name:
                    names.setdefault(name, entry)
                else:
                    what = f'not an address or host name: "{show(words[0].text)}"'
                    raise Wrong(words[0].column, what, "write one address or name # operator")
            except Wrong as wrong:
                problems.append(problem_at(source, number, wrong))
        return cls(addresses, names), problems

    def operator(self, which: bytes | str) -> str:
        """Who runs the resolver at a packed address, or under a normal name; "" when it is none that is known.

        A name below a listed one counts, for some operators give every customer a name.
        """
        if isinstance(which, bytes):
            return self._addresses.get(which, ("", ""))[0]
        if which[-self._shortest :] not in self._endings:
            return ""  # at one look-up: what nearly every name is
        while which:
            found = self._names.get(which)
            if found is not None:
                return found[0]
            which = which.partition(".")[2]
        return ""

    def protected_entries(self) -> list[tuple[str, str]]:
        """(address, reason) of each, in the form that `Protected.parse` takes as `extra`."""
        return [
            (render_address(addr), f"{place}: public resolver, {operator}")
            for addr, (operator, place) in self._addresses.items()
        ]
