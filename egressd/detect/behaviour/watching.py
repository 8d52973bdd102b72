"""All detectors over one stream of observations: what each says is weighed and put on the board.

One object for the engine: it is called once for each observation and answers with a verdict, or None nearly always.
Weighing (as RITA's modifiers do): how many clients share the destination, whether the network knew it before, and
whether it is loaded along with others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.detect.behaviour.beacon import LEAST_INTERVALS, regularity
from egressd.detect.behaviour.dark import SCORE as DARK_SCORE
from egressd.detect.behaviour.dark import Light
from egressd.detect.behaviour.direct import direct as straight
from egressd.detect.behaviour.disagreement import disagreement
from egressd.detect.behaviour.failures import Failures
from egressd.detect.behaviour.ground import (
    CONNECTIVITY,
    KEPT_VISITS,
    MAX_TRACKS,
    REGULAR_PORTS,
    Client,
    Domain,
    Ground,
    Track,
    by_port,
)
from egressd.detect.behaviour.letters import is_strange
from egressd.detect.behaviour.opaque import Requests
from egressd.detect.behaviour.openings import Opened, Openings
from egressd.detect.behaviour.settings import (
    BEACON,
    DARK,
    DETECTORS,
    DGA,
    DIRECT,
    DISAGREEMENT,
    NEW,
    NXDOMAIN,
    OPAQUE,
    TUNNEL,
    BehaviourSettings,
)
from egressd.detect.behaviour.tunnel import LEAST_NAMES, Below
from egressd.detect.evidence import Evidence, EvidenceBoard, Verdict
from egressd.detect.resolutions import Resolutions
from egressd.intel.guard import Guard
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.model import FLOW, HTTP_HOST, DnsMessage, FlowKey, HttpRequest, Observation
from egressd.names import Suffixes
from egressd.units import DAY_US, MINUTE_US, SECOND_US

NEW_FOR_US: Final = 7 * DAY_US  # RITA: what was first seen less than a week ago weighs more
NEW_SCORE: Final = 25
NXDOMAIN_RCODE: Final = 3  # RFC 1035 section 4.1.1, name error
AT_ONCE: Final = 16  # connections without a name judged between two packets: after a pause there may be thousands
MAX_RESOLVERS: Final = 1_024
LONG_BELOW: Final = 16  # characters under a registered domain from which a name can carry something
EVERY: Final = 5  # visits of a pair that is known well, between two looks at its times
# Names that lead to no registered domain: RFC 6761, 6762, 8375, and what routers hand out.
LOCAL: Final = frozenset(
    ("arpa", "local", "localhost", "localdomain", "internal", "intranet", "lan", "home", "corp", "invalid", "test")
)
# What a detector's word is worth where the destination is (new; of unknown age: still learning, or a new client; known
# before).
AGE_WEIGHTS: Final[dict[str, tuple[float, float, float]]] = {
    BEACON: (1.0, 0.6, 0.5),
    OPAQUE: (1.0, 0.9, 0.8),
    DIRECT: (1.0, 0.6, 0.4),
    TUNNEL: (1.0, 1.0, 0.9),
}
_IS_REGULAR: Final = by_port(REGULAR_PORTS)  # by port: to look a number up in a set takes an object for it
REGULAR: Final = frozenset((BEACON, DIRECT))  # what a guest's telephone does too, to servers nobody else here has
ALONG: Final = 0.5  # of visits with company: from here on it is part of a page
ALONG_WEIGHT: Final = 0.5
BORN: Final = 3  # destinations that followed on the first visit at once: somebody opened a page there
BORN_WEIGHTS: Final[dict[str, float]] = {BEACON: 0.55, OPAQUE: 0.8}


class Behaviour:
    """The detectors, what they share, and the board."""

    def __init__(
        self,
        settings: BehaviourSettings,
        suffixes: Suffixes,
        guard: Guard,
        protected: Protected,
        resolvers: Resolvers,
        resolutions: Resolutions,
        limit: int = MAX_TRACKS,
    ) -> None:
        """`limit` bounds the pairs of client and destination."""
        self.ground = Ground(settings.learning_s * SECOND_US, limit)
        self.board = EvidenceBoard(settings.alert_score, settings.ask_score)
        self.spoken: dict[str, int] = {}  # how often each detector had something to say
        self._resolutions = resolutions
        self.openings = Openings()
        # Who answers DNS, for who does asks others for everybody; and who of them was not seen to.
        self._answering: dict[bytes, None] = {}
        self._never_asked: dict[bytes, None] = {}
        # Whether it may be a resolver: else two packets, of which it forges one, would take a host out of all of this.
        self.may_resolve: Callable[[bytes], bool] = _anybody
        self.replace(settings, suffixes, guard, protected, resolvers)

    def replace(
        self, settings: BehaviourSettings, suffixes: Suffixes, guard: Guard, protected: Protected, resolvers: Resolvers
    ) -> None:
        """What people say has changed; what was seen stays."""
        self.settings = settings
        self.ground.learning_us = settings.learning_s * SECOND_US
        self.board.least = settings.alert_score
        self.board.ask = settings.ask_score
        self._suffixes = suffixes
        self._guard = guard
        self._protected = protected
        self._resolvers = resolvers
        self._on = frozenset(one for one in DETECTORS if settings.is_on(one))
        self._sees_dark = DARK in self._on
        self._sees_disagreement = DISAGREEMENT in self._on
        self._sees_opaque = OPAQUE in self._on
        self._working = bool(self._on)

    def counts(self) -> dict[str, int]:
        """What did not fit a bound."""
        ground = self.ground
        return {
            "behaviour_evicted": ground.evicted + self.board.evicted,
            "behaviour_over_share": ground.over_share,
        }

    # -- what is seen

    def question(self, seen: Observation) -> Verdict | None:
        """A client asks DNS."""
        domain_name = self._registered(seen.name)
        if not domain_name or not self._working:
            return None
        if seen.flow.client in self._answering and self._asks_for_all(seen.flow.client):
            return None
        ts_us = seen.ts_us
        client = self.ground.client(seen.flow.client, ts_us)
        client.asked += 1
        domain = self.ground.domain(domain_name, ts_us)
        domain.asked = True
        track = self.ground.track(client, domain, ts_us)
        if track is None:
            return None
        verdict = self._below(seen, client, track) if len(seen.name) - len(domain_name) > LONG_BELOW else None
        if self.ground.visit(client, track, ts_us):
            return self._times(client, track, ts_us) or verdict
        return verdict

    def answer(self, seen: Observation, message: DnsMessage) -> Verdict | None:
        """A client is answered, as it asked."""
        flow = seen.flow
        if flow.server not in self._answering:
            self._answers(flow)
        if not self._working or (flow.client in self._answering and self._asks_for_all(flow.client)):
            return None
        if message.rcode == NXDOMAIN_RCODE:
            return self._failed(seen)
        client = self.ground.client(flow.client, seen.ts_us)
        failures = client.failures
        if failures is None or not failures.generated() or message.rcode or not message.answer_count:
            return None
        name = self._registered(seen.name)
        if name in failures.names or not is_strange(name.partition(".")[0]):
            return None
        reason = f"found after {failures.generated_reason()}"
        domain = self.ground.domain(name, seen.ts_us)
        return self._say(client, domain, DGA, failures.generated(), reason, failures.first_us, seen.ts_us)

    def contact(self, seen: Observation, name: str, resolved: str, sort: str) -> Verdict | None:
        """A connection, or a name in one. `name` is what it is for as far as is known, `resolved` what its client
        resolved last to get there, `sort` the blind spot that it is (detect/blind.py)."""
        flow = seen.flow
        if not self._working or _IS_REGULAR[flow.server_port]:
            return None
        if flow.client in self._answering and self._asks_for_all(flow.client):
            return None
        ts_us = seen.ts_us
        client = self.ground.client(flow.client, ts_us)
        if seen.kind == FLOW and not name:
            verdict = None
            self.openings.begin(seen)
        else:
            verdict = self._named(seen, name, client, resolved) if name else None
        if self._sees_dark and (sort or seen.kind != FLOW):
            dark = self._dark(seen, client, sort)
            verdict = verdict if verdict is not None else dark
        return verdict

    def add(self, evidence: Evidence) -> Verdict | None:
        """Somebody else's evidence, weighed by itself already (such as traffic volume's)."""
        switch = self.settings.switch(evidence.detector)
        if not self.settings.is_on(evidence.detector) or evidence.score < switch.least:
            return None
        return self.board.add(evidence)

    def knew(self, domain: str, ts_us: int) -> None:
        """A registered domain was contacted before a restart, or where another process looks."""
        self.ground.knew(domain, ts_us)

    # -- who asks for others

    def _answers(self, flow: FlowKey) -> None:
        """A server that was not seen to answer before. A resolver turns to ever new ones elsewhere: of them the oldest
        goes to make room. One who asks for others goes where all do, as those that are forged may, and is back with his
        next answer."""
        machine_of = self.ground.machine_of
        if not self.may_resolve(flow.server) or machine_of(flow.server) == machine_of(flow.client):
            return  # who asks and answers itself is nobody's resolver
        if len(self._answering) >= MAX_RESOLVERS:
            oldest = next(iter(self._never_asked or self._answering))
            del self._answering[oldest]
            self._never_asked.pop(oldest, None)
        self._answering[flow.server] = None
        self._never_asked[flow.server] = None

    def _asks_for_all(self, client: bytes) -> bool:
        """Whether one who answers DNS asks for everybody when he asks himself."""
        if not self.may_resolve(client):
            return False
        self._never_asked.pop(client, None)
        return True

    # -- one detector each

    def _named(self, seen: Observation, name: str, client: Client, resolved: str) -> Verdict | None:
        ts_us = seen.ts_us
        if seen.kind != FLOW:
            self.openings.named(seen.flow)
        domain_name = self._registered(name)
        if not domain_name:
            return None
        domain = self.ground.domain(domain_name, ts_us)
        track = self.ground.track(client, domain, ts_us)
        if track is None:
            return None
        begun = self.ground.visit(client, track, ts_us)
        verdict: Verdict | None = None
        if self._sees_disagreement and seen.kind != FLOW:
            learning = self.ground.is_learning(ts_us) or not self.ground.is_new(domain)
            score, reason = disagreement(seen, client, domain, resolved, learning)
            if score:
                verdict = self._say(client, domain, DISAGREEMENT, score, reason, ts_us, ts_us)
        if self._sees_opaque and seen.kind == HTTP_HOST:
            detail = seen.detail
            if isinstance(detail, HttpRequest):
                verdict = self._request(client, track, detail, ts_us) or verdict
        return self._times(client, track, ts_us) or verdict if begun else verdict

    def _request(self, client: Client, track: Track, detail: HttpRequest, ts_us: int) -> Verdict | None:
        requests = track.requests
        if requests is None:
            requests = track.requests = Requests(ts_us)
        if not requests.take(detail.method, detail.path or detail.target, track.visits):
            return None
        score = requests.score()
        if not score:
            return None
        return self._say(client, track.domain, OPAQUE, score, requests.reason(), requests.first_us, ts_us, track)

    def _times(self, client: Client, track: Track, ts_us: int) -> Verdict | None:
        """A visit has begun: are they regular?"""
        visits = track.visits
        times = track.times
        if visits <= LEAST_INTERVALS or times is None or BEACON not in self._on:
            return None
        if visits > KEPT_VISITS and visits % EVERY:
            return None
        if self.ground.rarity(track.domain) <= 0.0:
            return None
        found = regularity(times)
        score = found.score() if found is not None else 0
        if found is None or not score:
            return None
        return self._say(client, track.domain, BEACON, score, found.reason(visits), track.first_us, ts_us, track)

    def nameless(self, ts_us: int) -> list[tuple[Observation, Verdict]]:
        """Connections whose client has had the time to say a name and has not, with what the detectors say of them.
        Some at a time: `openings.due_us` tells whether more wait. Of those with a name nothing is left."""
        found: list[tuple[Observation, Verdict]] = []
        for opened in self.openings.take(ts_us, AT_ONCE):
            verdict = self._nameless(opened)
            if verdict is not None:
                found.append((opened.seen, verdict))
        return found

    def _nameless(self, opened: Opened) -> Verdict | None:
        """A connection without a name."""
        seen = opened.seen
        ts_us = seen.ts_us
        client = self.ground.client(seen.flow.client, ts_us)
        domain = self.ground.address(seen.flow.server, ts_us)
        track = self.ground.track(client, domain, ts_us)
        if track is None or track.named:
            return None
        track.unnamed += 1
        opened.track = track
        if not self.ground.visit(client, track, ts_us):
            return None
        if self._resolutions.has_tenants(seen.flow.server, ts_us):
            return None  # a site lives there: its connections have names, or will
        score, reason = straight(track)
        verdict: Verdict | None = None
        if score and DIRECT in self._on:
            verdict = self._say(client, domain, DIRECT, score, reason, track.first_us, ts_us, track)
        return self._times(client, track, ts_us) or verdict

    def _below(self, seen: Observation, client: Client, track: Track) -> Verdict | None:
        if TUNNEL not in self._on:
            return None
        below = track.below
        if below is None:
            below = track.below = Below(seen.ts_us)
        message = seen.detail
        rrtype = message.questions[0].rrtype if isinstance(message, DnsMessage) and message.questions else 1
        below.take(seen.name[: -len(track.domain.name) - 1], rrtype, seen.ts_us)
        if below.questions < LEAST_NAMES or below.questions % EVERY:
            return None
        score = below.score()
        if not score:
            return None
        return self._say(client, track.domain, TUNNEL, score, below.reason(), below.first_us, seen.ts_us, track)

    def _failed(self, seen: Observation) -> Verdict | None:
        """A name does not exist."""
        name = self._registered(seen.name)
        if not name:
            return None
        ts_us = seen.ts_us
        client = self.ground.client(seen.flow.client, ts_us)
        failures = client.failures
        if failures is None:
            failures = client.failures = Failures(ts_us)
        if not failures.take(name, ts_us):
            return None
        lead = self.ground.domain(failures.lead, ts_us)
        verdict: Verdict | None = None
        burst = failures.burst()
        if burst and NXDOMAIN in self._on:
            verdict = self._say(client, lead, NXDOMAIN, burst, failures.burst_reason(), failures.first_us, ts_us)
        generated = failures.generated()
        if generated and DGA in self._on:
            reason = failures.generated_reason()
            verdict = self._say(client, lead, DGA, generated, reason, failures.first_us, ts_us) or verdict
        return verdict

    def _dark(self, seen: Observation, client: Client, sort: str) -> Verdict | None:
        light = client.light
        if light is None:
            light = client.light = Light(seen.ts_us)
        if not light.take(sort != "", seen.ts_us):
            return None
        name = self._registered(seen.name)
        ground = self.ground
        domain = ground.domain(name, seen.ts_us) if name else ground.address(seen.flow.server, seen.ts_us)
        return self._say(client, domain, DARK, DARK_SCORE, light.reason(), light.hour_us, seen.ts_us)

    # -- weighing

    def _say(
        self,
        client: Client,
        domain: Domain,
        detector: str,
        score: int,
        reason: str,
        first_us: int,
        last_us: int,
        track: Track | None = None,
    ) -> Verdict | None:
        """Weigh a detector's word and put it on the board."""
        ground = self.ground
        rarity = ground.rarity(domain)
        if rarity <= 0.0 or self._is_exempt(domain):
            return None
        age_us = last_us - domain.first_us
        strange = ground.is_learning(last_us) or (detector in REGULAR and ground.is_guests(client, domain))
        new = not strange and ground.is_new(domain) and age_us < NEW_FOR_US
        weights = AGE_WEIGHTS.get(detector)
        weight = rarity
        if weights is not None:
            weight *= weights[0] if new else weights[1] if strange else weights[2]
        if track is not None and detector in (BEACON, OPAQUE):
            weight *= ALONG_WEIGHT if track.loaded_along() >= ALONG else 1.0
            weight *= BORN_WEIGHTS[detector] if track.born >= BORN else 1.0
        score = round(score * weight)
        if score < max(1, self.settings.switch(detector).least):
            return None
        self.spoken[detector] = self.spoken.get(detector, 0) + 1
        if new and NEW in self._on and detector != DISAGREEMENT and round(NEW_SCORE * rarity):
            words = f"new to the whole network, first contacted {_ago(age_us)} ago"
            self.board.note(
                Evidence(NEW, client.address, domain.name, round(NEW_SCORE * rarity), words, domain.first_us, last_us)
            )
        return self.board.add(Evidence(detector, client.address, domain.name, score, reason, first_us, last_us))

    def _is_exempt(self, domain: Domain) -> bool:
        """Whether a destination never scores: guarded (popular, shared, your own), protected, known infrastructure."""
        if domain.address:
            return domain.address in self._resolvers.addresses or self._protected.why(domain.address) != ""
        if domain.name in CONNECTIVITY or self._resolvers.operator(domain.name):
            return True
        return self._guard.why(domain.name) != ""

    def _registered(self, name: str) -> str:
        """The registered domain of a name, "" when it has none that somebody outside registered."""
        if not name:
            return ""
        domain, suffix, _ = self._suffixes.split(name)
        return "" if suffix in LOCAL or ("." in suffix and suffix.rpartition(".")[2] in LOCAL) else domain


def _ago(span_us: int) -> str:
    minutes = span_us // MINUTE_US
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2_880 else f"{minutes // 1_440} days"


def _anybody(address: bytes) -> bool:
    """Nobody has named the resolvers."""
    return True
