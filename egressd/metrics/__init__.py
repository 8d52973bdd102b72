"""The daemon's numbers: what they are, what they mean, and as Prometheus reads them."""
