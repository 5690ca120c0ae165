"""What the steps of the part `fast` are made of."""
