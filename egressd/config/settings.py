"""From the options of a configuration to what the parts of the program go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from egressd.config.schema import Config
from egressd.intel.networks import NetworkTable, first_address, parse_address, parse_network

if TYPE_CHECKING:  # commands that only read lists load none of it
    from egressd.config.policy_file import PolicyFile
    from egressd.detect.behaviour.settings import BehaviourSettings
    from egressd.detect.behaviour.volume import VolumeSettings
    from egressd.detect.policy_settings import PolicySettings

_MIB: Final = 1 << 20


def policy_settings(config: Config, policy: PolicyFile | None = None) -> PolicySettings:
    """What the policy needs of the configuration and, if there is one, of the file that it names."""
    from egressd.detect.policy_settings import PolicySettings

    options = config.policy
    return PolicySettings(
        mode=config.mode,
        block_confidence=options.block_confidence,
        shared_after=options.shared_after,
        addresses_per_indicator_hour=options.addresses_per_indicator_hour,
        blocks_per_hour=options.blocks_per_hour,
        resolvers=frozenset(parse_address(one) for one in config.resolvers),
        ask_score=config.behaviour.ask_score,
        alert_only=frozenset(
            f"behaviour:{name}" for name, switch in behaviour_settings(config).switches if switch.outcome == "alert"
        ),
        rules=policy.rules if policy is not None else None,
        segments=_named_networks(config.segments),
        tags=_named_networks(config.tags),
        modes=tuple(config.modes.items()),
        isolations_per_hour=options.isolations_per_hour,
        rollback_clients=options.rollback_clients,
        rollback_share=options.rollback_share,
    )


def behaviour_settings(config: Config) -> BehaviourSettings:
    """What the detectors of behaviour need of the configuration."""
    from egressd.detect.behaviour.settings import DETECTORS, BehaviourSettings, Switch

    options = config.behaviour
    switches = []
    for name in DETECTORS:
        key = name.replace("-", "_")
        switch = Switch(getattr(options, key), getattr(options, f"{key}_least"))
        if switch != Switch():
            switches.append((name, switch))
    return BehaviourSettings(options.alert_score, options.ask_score, options.learning_h * 3600, tuple(switches))


def segment_table(config: Config) -> NetworkTable[str]:
    """Segment names by network: `longest(addr)` is a client's segment."""
    return NetworkTable(_named_networks(config.segments))


def volume_settings(config: Config) -> VolumeSettings:
    """What the counting of volume needs of the configuration."""
    from egressd.detect.behaviour.volume import VolumeSettings

    volume = config.volume
    segments = [text for name in volume.except_segments for text in config.segments.get(name, ())]
    return VolumeSettings(
        baseline=volume.baseline == "alert",
        floor_bytes=volume.floor_mib * _MIB,
        learn_hours=volume.learn_hours,
        out_hour=volume.out_mib_hour * _MIB,
        out_day=volume.out_mib_day * _MIB,
        client_hour=volume.client_mib_hour * _MIB,
        client_day=volume.client_mib_day * _MIB,
        except_domains=frozenset(volume.except_domains),
        except_networks=_table(volume.except_networks),
        except_clients=_table(segments),
        pairs=volume.pairs,
    )


def network_of(text: str) -> tuple[bytes, int]:
    """First address and prefix length of a network that stands in the configuration. Raises ValueError when the text is
    none, which reading the configuration has ruled out."""
    network = parse_network(text)
    if network is None:
        raise ValueError(f"no network: {text}")
    return first_address(*network), network[1]


def _named_networks(named: Mapping[str, tuple[str, ...]]) -> tuple[tuple[bytes, int, str], ...]:
    return tuple((*network_of(text), name) for name, texts in named.items() for text in texts)


def _table(texts: Sequence[str]) -> NetworkTable[str]:
    return NetworkTable((*network_of(text), "") for text in texts)
