"""Topics in the formats of other systems."""
