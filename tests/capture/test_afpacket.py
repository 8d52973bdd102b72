"""What of live capture needs no privilege; the rest is in tests/netns/test_afpacket.py."""

from __future__ import annotations

import pytest

from egressd.capture.ring import SLOT, CaptureSettings


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
