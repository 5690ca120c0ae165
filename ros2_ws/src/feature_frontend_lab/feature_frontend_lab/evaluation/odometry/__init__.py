"""Front-ends measured in a fixed back-end."""
