"""Pairs of images with known homographies."""
