"""From the options of `volume` to what the counting of volume goes by."""

from __future__ import annotations

from egressd.config.schema import Config
from egressd.detect.behaviour.volume import VolumeSettings
from egressd.intel.networks import NetworkTable, first_address, parse_network

_MIB = 1 << 20


def volume_settings(config: Config) -> VolumeSettings:
    """What the counting of volume needs of the configuration."""
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


def _table(texts: list[str] | tuple[str, ...]) -> NetworkTable[str]:
    networks = [network for network in map(parse_network, texts) if network is not None]
    return NetworkTable((first_address(*network), network[1], "") for network in networks)
