"""Files, text, signals and stderr: used by the whole package, imports nothing else from it."""
