"""Decisions into firewalls: what an adapter is, what to change in it, and the loop that keeps it true."""
