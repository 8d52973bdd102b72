"""An interface of a pcapng section (draft-ietf-opsawg-pcapng, 4.2): its link type, and how its timestamps count.

Section numbers are of revision 02.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from egressd.capture.pcapfile import MAX_PACKET_BYTES, USUAL_PACKET_BYTES

# Year 9999: later times cannot be written in ISO 8601, and a 64-bit count of whole seconds reaches far beyond.
MAX_TS_US: Final = 253_402_300_799_999_999
MAX_TS_HIGH: Final = MAX_TS_US >> 32
OPTION_TSRESOL: Final = 9
OPTION_TSOFFSET: Final = 14

_HEAD_LITTLE: Final = Struct("<HH").unpack_from
_HEAD_BIG: Final = Struct(">HH").unpack_from
_OFFSET_LITTLE: Final = Struct("<q").unpack_from
_OFFSET_BIG: Final = Struct(">q").unpack_from


class Interface:
    """An interface of a section: link type, greatest captured length, and how its timestamps count."""

    def __init__(self, link: int, snaplen: int) -> None:
        self.link = link
        self.snaplen = snaplen  # 0 = no limit
        self.max_caplen = min(max(snaplen, USUAL_PACKET_BYTES), MAX_PACKET_BYTES)
        self.plain = True  # microseconds of UTC epoch, the default
        self._times = 1
        self._over = 1
        self._shift = 0
        self._offset_us = 0

    def set_resolution(self, value: int) -> None:
        """if_tsresol (4.2): a negative power of ten, or of two when the top bit is set."""
        self._times, self._over, self._shift = 1_000_000, 1, 0
        if value & 0x80:
            self._shift = value & 0x7F
        else:
            self._over = 10**value
        self._settle()

    def set_offset(self, offset_s: int) -> None:
        """if_tsoffset (4.2): seconds to add to every timestamp."""
        self._offset_us = offset_s * 1_000_000
        self._settle()

    def read_options(self, buf: bytes, pos: int, end: int, little: bool) -> None:
        """Options (3.5): code, length, value padded to four bytes. What does not fit is not there."""
        head, offset = (_HEAD_LITTLE, _OFFSET_LITTLE) if little else (_HEAD_BIG, _OFFSET_BIG)
        while pos + 4 <= end:
            code, length = head(buf, pos)
            pos += 4
            if code == 0 or pos + length > end:
                return
            if code == OPTION_TSRESOL and length >= 1:
                self.set_resolution(buf[pos])
            elif code == OPTION_TSOFFSET and length >= 8:
                self.set_offset(offset(buf, pos)[0])
            pos += (length + 3) & ~3

    def _settle(self) -> None:
        whole = self._times == 1 or (self._over == 1_000_000 and self._shift == 0)
        self.plain = whole and self._offset_us == 0

    def time_of(self, high: int, low: int) -> int:
        """Epoch microseconds of the two halves of a timestamp of this interface, within 1970 to 9999."""
        ts_us = ((high << 32 | low) * self._times // self._over >> self._shift) + self._offset_us
        return min(max(ts_us, 0), MAX_TS_US)


NO_INTERFACE: Final = Interface(0, 0)
