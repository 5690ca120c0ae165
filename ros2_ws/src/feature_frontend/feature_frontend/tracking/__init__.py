"""The persistent tracker: points are predicted, found again on the score map, and checked; docs/tracking.md."""
