"""What the daemon serves: its control socket, and /metrics and /healthz over HTTP."""
