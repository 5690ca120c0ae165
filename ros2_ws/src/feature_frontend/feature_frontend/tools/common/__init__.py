"""Common code of the tools."""
