"""The node's subscriptions: images, calibrations, masks."""
