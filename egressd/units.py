"""How long a minute, an hour and a day are in the units that times and spans have here: microseconds, seconds."""

from __future__ import annotations

from typing import Final

MICROSECOND_NS: Final = 1_000
SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

DAY_S: Final = 86_400
