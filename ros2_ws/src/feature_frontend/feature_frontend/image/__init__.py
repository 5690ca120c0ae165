"""From the bytes of an image file to its samples."""
