"""Files, text, signals and forks: what all of the package runs on. It imports nothing else of the package."""
