"""Fuzzing: every parser of external data, with almost valid inputs."""
