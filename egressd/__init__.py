"""egressd: sees every destination hosts name or open, matches it by registered domain, blocks, keeps watching."""

__version__ = "0.1.0"
