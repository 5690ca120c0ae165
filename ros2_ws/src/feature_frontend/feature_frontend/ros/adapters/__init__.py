"""Adapters that publish topics in the formats of other systems."""
