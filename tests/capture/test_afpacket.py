"""What of live capture needs no privilege; the rest is in tests/netns/test_afpacket.py."""

from __future__ import annotations

import random

import pytest

from egressd.capture.afpacket import judge_plain
from egressd.capture.prefilter import frame_is_quiet
from egressd.capture.ring import SLOT, CaptureSettings
from tests.capture.test_prefilter import T0_US, random_frame, random_quiet


@pytest.mark.parametrize(
    "wrong",
    [
        {"slot_bytes": 256},
        {"slot_bytes": 3000},
        {"slot_bytes": 131_072},
        {"ring_bytes": 4096},
        {"ring_bytes": 1 << 31},
        {"fanout_group": 65_536},
        {"fanout_group": -1},
        {"fanout_by": "chance"},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError):
        CaptureSettings(**wrong)


def test_defaults_are_allowed():
    assert CaptureSettings().fanout_group == 0 and CaptureSettings(slot_bytes=65_536).slot_bytes == 65_536


def test_a_slots_header_has_the_kernels_size():
    """struct tpacket2_hdr without its tail: status, length, captured, two places, seconds, nanoseconds."""
    assert SLOT.size == 24


def test_the_quick_judgement_is_the_gates():
    rng = random.Random(4)
    verdicts = {True: 0, False: 0}
    for _ in range(6000):
        packet = random_frame(rng)
        quiet, quiet_udp = random_quiet(rng), random_quiet(rng)
        want = frame_is_quiet(packet, 0, len(packet), T0_US + 300, quiet, quiet_udp)
        assert judge_plain(packet, 0, len(packet), T0_US + 300, quiet, quiet_udp) is want
        verdicts[want] += 1
    assert min(verdicts.values()) > 1000
