"""The networks, one file per model, with a second file for a fast inference version; and SIFT."""
