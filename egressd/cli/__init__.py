"""The `egressd` command: one file a verb."""
