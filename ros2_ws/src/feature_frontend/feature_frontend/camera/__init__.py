"""What cameras are: lens models by all their names, and the files that hold calibrations."""
