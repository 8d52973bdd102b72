"""Detectors of what no list knows: each watches one trait and says so in an `Evidence` (egressd/detect/evidence.py)."""
