"""What the parts go by is what the configuration says."""

from __future__ import annotations

from egressd.config.document import parse_config
from egressd.config.load import default_config
from egressd.config.settings import segment_table, volume_settings
from egressd.detect.behaviour.volume import VolumeSettings
from egressd.intel.networks import parse_address


def test_segments_of_a_client() -> None:
    table = segment_table(parse_config("segments: {all: [10.0.0.0/8], lab: [10.2.0.0/16]}", "e.yaml")[0])
    assert table.longest(parse_address("10.2.3.4")) == "lab"
    assert table.longest(parse_address("10.3.3.4")) == "all"
    assert table.longest(parse_address("192.0.2.1")) is None


def test_volume_settings_are_those_of_the_configuration() -> None:
    made = volume_settings(default_config())
    empty = VolumeSettings()
    assert made._replace(except_networks=empty.except_networks, except_clients=empty.except_clients) == empty
    text = "segments: {lab: [10.1.0.0/24]}\nvolume: {baseline: ignore, floor_mib: 2, learn_hours: 5, out_mib_hour: 3,"
    text += " out_mib_day: 4, client_mib_hour: 6, client_mib_day: 7, except_domains: [Backup.example],"
    text += " except_networks: [192.0.2.0/28], except_segments: [lab], pairs: 2048}\n"
    made = volume_settings(parse_config(text, "e.yaml")[0])
    mib = 1 << 20
    assert made[:7] == (False, 2 * mib, 5, 3 * mib, 4 * mib, 6 * mib, 7 * mib)
    assert made.except_domains == {"backup.example"} and made.pairs == 2_048
    assert made.except_networks.longest(bytes((192, 0, 2, 7))) == ""
    assert made.except_clients.longest(bytes((10, 1, 0, 7))) == ""
    assert made.except_clients.longest(bytes((10, 2, 0, 7))) is None
