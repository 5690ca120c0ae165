"""Reads image files and messages, and prepares images for the network."""
