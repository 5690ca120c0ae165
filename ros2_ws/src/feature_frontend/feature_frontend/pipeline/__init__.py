"""From image to image: `Frontend`, and how it extracts and matches on this device."""
