"""Matchers: which keypoints of two images correspond."""
