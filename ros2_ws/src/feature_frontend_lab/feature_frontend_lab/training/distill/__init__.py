"""Training of a small network from a large one: distillation from ALIKED."""
