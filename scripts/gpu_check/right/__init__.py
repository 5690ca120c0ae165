"""What the steps of the part `right` are made of."""
