"""Bytes to observations. Sans-io: no sockets, no clock, no logging; only `Malformed` leaves a parser."""
