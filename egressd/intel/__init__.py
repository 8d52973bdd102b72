"""Text to indicators to an index that answers level, indicator and reason for a name, address or URL."""
