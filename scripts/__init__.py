"""What `make` runs. A package, so that no other of this name in site-packages takes its place."""
