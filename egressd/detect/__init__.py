"""Observations to sightings, decisions, attempts, incidents and campaigns. Plain functions over values."""
