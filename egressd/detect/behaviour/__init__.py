"""Traits that make a destination suspect though no list names it: a detector a file. Plain functions over values."""
