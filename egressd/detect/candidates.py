"""Campaigns that may be part of an older one, each with the reason. A person says whether they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from egressd.model import Campaign

MAX_CANDIDATES: Final = 32  # of one campaign
MAX_REJECTED: Final = 4_096


class Candidates:
    """Proposes candidates for `campaigns`, which somebody else fills. They are kept in the campaigns themselves."""

    def __init__(self, campaigns: Mapping[str, Campaign]) -> None:
        self.on_new: Callable[[Campaign], None] | None = None  # told of a campaign that has one more
        self._campaigns = campaigns
        self._unsure: set[str] = set()  # campaigns that have candidates, or had: few, where campaigns may be many
        self._rejected: dict[tuple[str, str], None] = {}

    def restore(self, campaigns: Iterable[Campaign]) -> None:
        """What was proposed before a restart."""
        self._unsure.update(one.id for one in campaigns if one.candidates)

    def propose(self, older: Campaign, younger: Campaign, reason: str) -> None:
        """`younger` may be part of `older`. Said once, and not again after a person rejected it."""
        if (older.id, younger.id) in self._rejected or younger.id in older.candidates:
            return
        if len(older.candidates) < MAX_CANDIDATES:
            older.candidates[younger.id] = reason
            self._unsure.add(older.id)
            if self.on_new is not None:
                self.on_new(older)

    def reject(self, campaign: Campaign, candidate: str) -> bool:
        """A person says that a candidate is no part of a campaign, for good. False when it was no candidate."""
        if campaign.candidates.pop(candidate, None) is None:
            return False
        self.remember_rejected(campaign.id, candidate)
        return True

    def remember_rejected(self, campaign: str, candidate: str) -> None:
        """A person said so, now or before a restart."""
        self._rejected[(campaign, candidate)] = None
        if len(self._rejected) > MAX_REJECTED:
            del self._rejected[next(iter(self._rejected))]

    def merged(self, into: Campaign, other: Campaign) -> None:
        """`into` took over `other`: its candidates, and being one."""
        into.candidates.pop(other.id, None)
        for candidate, why in other.candidates.items():
            if candidate != into.id and len(into.candidates) < MAX_CANDIDATES:
                into.candidates.setdefault(candidate, why)
        if into.candidates:
            self._unsure.add(into.id)
        for campaign in self._with_any():
            if other.id in campaign.candidates:
                why = campaign.candidates.pop(other.id)
                if campaign is not into:
                    campaign.candidates.setdefault(into.id, why)

    def of(self, candidate: str) -> list[tuple[str, str]]:
        """Which campaigns one may be part of, each with the reason."""
        return [(one.id, one.candidates[candidate]) for one in self._with_any() if candidate in one.candidates]

    def _with_any(self) -> list[Campaign]:
        found = [self._campaigns[one] for one in self._unsure & self._campaigns.keys()]
        return sorted(found, key=lambda one: int(one.id[1:]))
