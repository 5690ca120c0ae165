"""Results as tables, charts and pictures."""
