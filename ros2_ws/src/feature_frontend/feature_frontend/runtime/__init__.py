"""What all of the package runs on: files and their names."""
