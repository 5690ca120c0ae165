"""Scripts run by `make`. A package, so that another `scripts` in site-packages does not shadow it."""
