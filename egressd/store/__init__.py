"""The ledger, the truth of what was decided, and beside it the history, which may lose its last seconds."""
