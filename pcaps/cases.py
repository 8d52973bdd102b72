"""The register of cases: each is a function that makes the packets, with a sentence on what they show."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pcaps.files import pcap
from pcaps.packets import Capture

Made = Capture | dict[str, bytes]  # one capture, or files ready to be written


class Case(NamedTuple):
    """`name` is the folder's, `module` the file that makes it."""

    name: str
    about: str
    module: str
    make: Callable[[], Made]

    def files(self) -> dict[str, bytes]:
        """The capture files by name."""
        made = self.make()
        if isinstance(made, Capture):
            return {"input.pcap": pcap(made.packets, made.link, made.snaplen)}
        return made


CASES: dict[str, Case] = {}


def case(name: str, about: str) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register the function below as a case."""

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = Case(name, " ".join(about.split()), make.__module__.rpartition(".")[2], make)
        return make

    return register
