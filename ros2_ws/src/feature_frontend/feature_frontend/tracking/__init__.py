"""The persistent tracker: predicts points, re-localises them on the score map, and checks them; docs/tracking.md."""
