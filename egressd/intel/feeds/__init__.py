"""Feeds: lists that others publish, fetched, judged and kept. What is read stands in force only after intel.poison."""
