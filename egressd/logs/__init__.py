"""Logs of other sensors to observations: a line or a frame in, what it tells of out (docs/sensors.md)."""
