"""`make gpu-check`: what a machine with a CUDA card is asked, most valuable first, in a few minutes."""
