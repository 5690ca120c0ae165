"""Front-ends over sequences."""
