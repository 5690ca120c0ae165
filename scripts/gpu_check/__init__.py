"""`make gpu-check`: tests and measurements on a machine with a CUDA GPU, most valuable first, in a few minutes."""
