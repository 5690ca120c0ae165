"""Readers of bags in each storage, intact or damaged, and the rule for stamps."""
