"""Stereo: matches along the rows of rectified images, and 3-D points from them."""
