"""Campaigns and incidents that others took over: an id that was ever told still leads to what it is part of by now."""

from __future__ import annotations


class Succession:
    """Who took over whom. `len()` is how many were taken over until now."""

    def __init__(self) -> None:
        self._into: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._into)

    def takes_over(self, older: str, younger: str) -> None:
        """`younger` is part of `older` from now on, which nobody has taken over."""
        self._into[younger] = older

    def current(self, id_: str) -> str:
        """The id of the campaign, or incident, that one with this id is part of by now; its own when of none."""
        into = self._into.get(id_)
        if into is None:
            return id_
        last = into
        while last in self._into:
            last = self._into[last]
        while into != last:  # the next time it is one step, however often they were taken over
            self._into[id_] = last
            id_, into = into, self._into[into]
        return last
