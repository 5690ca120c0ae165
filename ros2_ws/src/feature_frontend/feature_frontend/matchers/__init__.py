"""Matchers: find which keypoints of two images match."""
