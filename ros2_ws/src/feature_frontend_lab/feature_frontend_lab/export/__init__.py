"""`export`: features and matches of a bag or of images, for COLMAP."""
