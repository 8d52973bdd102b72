"""Lists and feeds in the formats that people publish: text in, indicators out (see `feed`)."""

from egressd.intel.formats.detection import detect_format
from egressd.intel.formats.feed import FORMATS, read_feed
from egressd.intel.formats.judgement import Found, Ignored, Rules
from egressd.intel.formats.ours import OPTIONS, parse_list, render_indicator

__all__ = [
    "FORMATS",
    "OPTIONS",
    "Found",
    "Ignored",
    "Rules",
    "detect_format",
    "parse_list",
    "read_feed",
    "render_indicator",
]
