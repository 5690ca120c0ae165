"""What the node subscribes to: images, calibrations, masks."""
