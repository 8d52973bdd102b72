"""Where packets come from."""
