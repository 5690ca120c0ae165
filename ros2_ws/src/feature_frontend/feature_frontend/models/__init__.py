"""Published weights: their table, where they are found, and those that ship with the package."""
