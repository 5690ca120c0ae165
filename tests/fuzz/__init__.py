"""Fuzzing: every parser of what comes from outside, fed with inputs that are almost right."""
