"""Implementation of the steps of the part `fast`."""
