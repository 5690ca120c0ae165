"""Implementation of the steps of the part `right`."""
