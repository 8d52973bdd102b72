"""Which detectors work and how sure they must be: what an operator may set of behaviour."""

from __future__ import annotations

from typing import Final, NamedTuple

OPAQUE: Final = "opaque-gets"
BEACON: Final = "beacon"
NEW: Final = "new-domain"
DGA: Final = "dga"
NXDOMAIN: Final = "nxdomain-burst"
TUNNEL: Final = "dns-tunnel"
DISAGREEMENT: Final = "disagreement"
DIRECT: Final = "direct-address"
DARK: Final = "went-dark"
DETECTORS: Final = (OPAQUE, BEACON, NEW, DGA, NXDOMAIN, TUNNEL, DISAGREEMENT, DIRECT, DARK)

OFF: Final = "off"
ALERT: Final = "alert"
ASK: Final = "ask"


class Switch(NamedTuple):
    """One detector: `outcome` is off, alert or ask (the most that a verdict led by it may come to); evidence under
    `least` does not count."""

    outcome: str = ASK
    least: int = 1


class BehaviourSettings(NamedTuple):
    """Scores are 0 to 100. `switches` names only detectors that differ from the default."""

    alert_score: int = 70
    ask_score: int = 80
    learning_s: int = 24 * 3600  # from the first packet: what is met first in it says nothing by being new
    switches: tuple[tuple[str, Switch], ...] = ()

    def switch(self, detector: str) -> Switch:
        """How `detector` is set; one that is not known here (another module's) asks."""
        for name, switch in self.switches:
            if name == detector:
                return switch
        return Switch()

    def is_on(self, detector: str) -> bool:
        """Whether `detector` works at all."""
        return self.switch(detector).outcome != OFF


DEFAULTS: Final = BehaviourSettings()
