"""Two cameras side by side: matches along the rows of rectified images, and points in space from them."""
