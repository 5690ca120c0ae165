"""Layers that extractors share."""
