"""`make gpu-pack`: what a bare machine with a card lacks, as a folder that is small enough to be carried there."""
