"""Training of residual descriptors."""
