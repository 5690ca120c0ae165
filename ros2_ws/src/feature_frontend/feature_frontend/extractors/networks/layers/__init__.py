"""Layers used by several extractors."""
