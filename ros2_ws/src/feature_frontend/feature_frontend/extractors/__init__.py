"""Extractors: detector and descriptor head in one network."""
